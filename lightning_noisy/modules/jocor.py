"""JoCoR: two networks that learn together from what both find easy and agree on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.data.batch import TrainingBatch
from lightning_noisy.errors import check_argument
from lightning_noisy.functional.losses import symmetric_divergence
from lightning_noisy.losses.sample_losses import SampleLosses
from lightning_noisy.modules.small_loss import SmallLossModule


class JoCoR(SmallLossModule):
    r"""Two networks with one loss: both learn from the samples on which they are right together and agree.

    .. math:: \ell_i = (1 - \lambda)\, (\ell^1_i + \ell^2_i)
              + \lambda\, \big( D_{KL}(p^1_i \| p^2_i) + D_{KL}(p^2_i \| p^1_i) \big)

    The :math:`(1 - R(e)) B` samples with the smallest :math:`\ell_i` count; the loss is their mean.

    Args:
        backbone: Makes a backbone; called once for each network.
        head: Makes a classifier from (D, K).
        loss: The loss of each network; the paper has cross entropy.
        num_classes: K.
        forget_rate: r, the share of a batch that is left out in the end. Published: the noise rate, under asymmetric
            noise half of it.
        ramp_epochs: :math:`T_k`, epochs until then. Published: 10.
        agreement: :math:`\lambda`, in [0, 1). Published: 0.9 on CIFAR-10 (0.65 at 80 %), 0.85 on CIFAR-100; the code's
            default is 0.1.
        **options: ``exponent``, ``optimizer``, ``lr_scheduler``, ``compile``.

    Raises:
        NoisyLabelError: An argument outside its range.

    References:
        Wei et al., Combating Noisy Labels by Agreement: A Joint Training Method with Co-Regularization, CVPR 2020. Its
        code reports the mean accuracy of both networks, ``test/network_0/acc`` and ``test/network_1/acc``.

    Example::

        module = JoCoR(CNN7, LinearHead, torch.nn.CrossEntropyLoss(), num_classes=10, forget_rate=0.5)
    """

    def __init__(
        self,
        backbone: Callable[[], nn.Module],
        head: Callable[[int, int], nn.Module],
        loss: nn.Module,
        num_classes: int,
        forget_rate: float = 0.4,
        ramp_epochs: int = 10,
        agreement: float = 0.9,
        **options: Any,
    ) -> None:
        super().__init__(backbone, head, loss, num_classes, forget_rate, ramp_epochs, **options)
        check_argument(0 <= agreement < 1, "agreement", "a float in [0, 1)", agreement)
        self.agreement = agreement

    @override
    def step(self, batch: TrainingBatch) -> Tensor:
        first, second = self.all_outputs(batch.images)
        losses = self.all_losses([first, second], batch)
        apart = symmetric_divergence(*(said.logits[:, : self.num_classes] for said in (first, second)))
        together = (1 - self.agreement) * (losses[0].losses + losses[1].losses) + self.agreement * apart
        easy = self.easiest(together)
        self.note(**{"selection/keep_rate": 1 - self.forget_now})
        self.note_selection(easy, batch)
        return self.selected_mean(SampleLosses(together, losses[0].weights), easy)
