"""Co-teaching: each of two networks learns from what the other one finds easy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.data.batch import TrainingBatch
from lightning_noisy.modules.small_loss import SmallLossModule


class CoTeaching(SmallLossModule):
    r"""Two networks, each of which chooses the small-loss samples of a batch from which the other one learns.

    .. math:: \mathcal{L} = \frac{1}{|S_2|} \sum_{i \in S_2} \ell^1_i + \frac{1}{|S_1|} \sum_{i \in S_1} \ell^2_i,
              \qquad S_k = \text{the } (1 - R(e)) B \text{ samples with the smallest } \ell^k

    Both networks learn in one step of one optimizer, which for SGD or Adam is the same as one optimizer for each;
    gradient clipping by norm sees both. The networks have no parameter in common.

    The code's rate is 1 - 0.8 = 0.1999... in floats; here it is exact.

    Args:
        backbone: Makes a backbone; called once for each network.
        head: Makes a classifier from (D, K).
        loss: The loss; the paper has cross entropy.
        num_classes: K.
        forget_rate: r, the share of a batch that is left out in the end; the paper takes the noise rate.
        ramp_epochs: :math:`T_k`, epochs until then. Published: 10.
        exponent: c of the ramp. Published: 1.
        divide_twice: Whether each mean is divided by the number of its samples once more, as in the code and the
            published numbers. Adam, their optimizer, hides it; with SGD it makes steps about B times smaller.
        **options: ``optimizer``, ``lr_scheduler``, ``compile``.

    Raises:
        NoisyLabelError: An argument outside its range.

    References:
        Han et al., Co-teaching: Robust Training of Deep Neural Networks with Extremely Noisy Labels, NeurIPS 2018.

    Example::

        module = CoTeaching(CNN9, LinearHead, torch.nn.CrossEntropyLoss(), num_classes=10, forget_rate=0.4)
    """

    def __init__(
        self,
        backbone: Callable[[], nn.Module],
        head: Callable[[int, int], nn.Module],
        loss: nn.Module,
        num_classes: int,
        forget_rate: float = 0.4,
        ramp_epochs: int = 10,
        exponent: float = 1.0,
        divide_twice: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(backbone, head, loss, num_classes, forget_rate, ramp_epochs, exponent, **options)
        self.divide_twice = divide_twice

    @override
    def step(self, batch: TrainingBatch) -> Tensor:
        losses = self.all_losses(self.all_outputs(batch.images), batch)
        easy_for_first, easy_for_second = (self.easiest(own.losses) for own in losses)
        return self.learn_from(losses, [easy_for_second, easy_for_first], batch, self.divide_twice)
