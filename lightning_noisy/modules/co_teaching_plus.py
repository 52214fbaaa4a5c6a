"""Co-teaching+: co-teaching among the samples on which the networks disagree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.data.batch import TrainingBatch
from lightning_noisy.errors import check_count
from lightning_noisy.modules.context import widened
from lightning_noisy.modules.small_loss import SmallLossModule


class CoTeachingPlus(SmallLossModule):
    r"""Co-teaching that keeps its networks apart: after some epochs it chooses among the samples they disagree on.

    In the first ``warmup_epochs`` epochs it is :class:`~lightning_noisy.modules.CoTeaching`. Then each network chooses,
    among the samples D of the batch (of all processes) for which the networks predict different classes, the
    :math:`(1 - R(e)) |D|` with its smallest losses, from which the other one learns. Where they disagree on nothing,
    both learn from the whole batch.

    The code differs: it leaves out a disagreeing sample whose position in the data set is 0, and learns nothing from a
    batch without disagreement after some thousands of steps. Here neither happens.

    Args:
        backbone: Makes a backbone; called once for each network.
        head: Makes a classifier from (D, K).
        loss: The loss; the paper has cross entropy.
        num_classes: K.
        forget_rate: r, the share of a batch that is left out in the end; the paper takes the noise rate.
        ramp_epochs: :math:`T_k`, epochs until then. Published: 10.
        warmup_epochs: Epochs of co-teaching. Published: 20 on CIFAR-10, 5 on CIFAR-100.
        double_softmax: After these, give the loss probabilities for logits, as the code does, with which the published
            numbers were made. The paper has the loss of the logits.
        divide_twice: As of :class:`~lightning_noisy.modules.CoTeaching`, in the published numbers too; not where the
            networks disagree on nothing.
        **options: ``exponent``, ``optimizer``, ``lr_scheduler``, ``compile``.

    Raises:
        NoisyLabelError: An argument outside its range.

    References:
        Yu et al., How does Disagreement Help Generalization against Label Corruption?, ICML 2019.

    Example::

        module = CoTeachingPlus(CNN7, LinearHead, torch.nn.CrossEntropyLoss(), num_classes=100, warmup_epochs=5)
    """

    def __init__(
        self,
        backbone: Callable[[], nn.Module],
        head: Callable[[int, int], nn.Module],
        loss: nn.Module,
        num_classes: int,
        forget_rate: float = 0.4,
        ramp_epochs: int = 10,
        warmup_epochs: int = 20,
        double_softmax: bool = False,
        divide_twice: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(backbone, head, loss, num_classes, forget_rate, ramp_epochs, **options)
        check_count(warmup_epochs, "warmup_epochs", least=0)
        self.warmup_epochs = warmup_epochs
        self.double_softmax = double_softmax
        self.divide_twice = divide_twice

    @override
    def step(self, batch: TrainingBatch) -> Tensor:
        outputs = self.all_outputs(batch.images)
        warm = self.current_epoch < self.warmup_epochs
        apart = None if warm else self.disagreement(outputs)
        if self.double_softmax and not warm:
            outputs = [replace(own, logits=widened(own.logits).softmax(dim=1)) for own in outputs]
        losses = self.all_losses(outputs, batch)
        if apart is not None and not self.gather_batch(apart).any():
            everyone = apart.new_ones(len(apart))
            return self.learn_from(losses, [everyone, everyone], batch)
        easy_for_first, easy_for_second = (self.easiest(own.losses, among=apart) for own in losses)
        return self.learn_from(losses, [easy_for_second, easy_for_first], batch, self.divide_twice)
