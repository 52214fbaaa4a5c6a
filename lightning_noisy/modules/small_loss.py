"""What strategies share that keep the samples with the smallest losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lightning_noisy.data.batch import TrainingBatch
from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.functional.selection import forget_rate as forget_rate_at
from lightning_noisy.functional.selection import keep_count, small_loss
from lightning_noisy.losses.sample_losses import SampleLosses
from lightning_noisy.modules.multi_network import MultiNetworkModule


class SmallLossModule(MultiNetworkModule):
    r"""Base of the strategies that keep the samples of each batch with the smallest losses.

    Of B samples :math:`\max(1, \lfloor (1 - R(e)) B \rfloor)` are kept, with :math:`R(e) = r^c\, e / (T_k - 1)` in the
    first :math:`T_k` epochs and r afterwards. B counts the samples of all processes; under gradient accumulation those
    of each batch alone. Logged are ``selection/keep_rate``, and for each network ``selection/network_0/size``,
    ``precision`` and ``recall``.

    Args:
        backbone: See :class:`~lightning_noisy.modules.MultiNetworkModule`, as are the next ones.
        head: Likewise.
        loss: Likewise; the papers have cross entropy.
        num_classes: Likewise.
        forget_rate: r, in [0, 1); the papers take the true noise rate.
        ramp_epochs: :math:`T_k`, at least 1.
        exponent: c, more than 0.
        **options: ``optimizer``, ``lr_scheduler``, ``storage``, ``compile``.

    Raises:
        NoisyLabelError: An argument outside its range.
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
        **options: Any,
    ) -> None:
        super().__init__(backbone, head, loss, num_classes, **options)
        check_argument(0 <= forget_rate < 1, "forget_rate", "a float in [0, 1)", forget_rate)
        check_count(ramp_epochs, "ramp_epochs")
        check_argument(exponent > 0, "exponent", "a float > 0", exponent)
        self.forget_rate = forget_rate
        self.ramp_epochs = ramp_epochs
        self.exponent = exponent

    @property
    def forget_now(self) -> float:
        """R(e), the share that is left out in this epoch."""
        return forget_rate_at(self.current_epoch, self.forget_rate, self.ramp_epochs, self.exponent)

    def easiest(self, losses: Tensor, among: Tensor | None = None) -> Tensor:
        """Which samples of this process are among those with the smallest losses of all processes.

        Args:
            losses: (B,).
            among: The samples that may be chosen, bool (B,), and of whose number the share is; None means all.

        Returns:
            bool (B,).
        """
        everywhere = self.gather_batch(losses)
        if among is None:
            return self.local_rows(small_loss(everywhere, keep_count(self.forget_now, len(everywhere))))
        allowed = self.gather_batch(among)
        rows = allowed.nonzero().squeeze(1)
        chosen = rows[small_loss(everywhere[rows], keep_count(self.forget_now, len(rows)))]
        return self.local_rows(allowed.new_zeros(len(allowed)).index_fill_(0, chosen, True))

    def learn_from(
        self, losses: list[SampleLosses], chosen: list[Tensor], batch: TrainingBatch, divide_twice: bool = False
    ) -> Tensor:
        """The sum of the networks' mean losses, each over the samples that are chosen for it.

        Args:
            losses: For each network those of the samples.
            chosen: For each network bool (B,).
            batch: The batch.
            divide_twice: Whether each mean is divided by the number of chosen samples of all processes once more.
        """
        self.note(**{"selection/keep_rate": 1 - self.forget_now})
        for name, rows in zip(self.members, chosen, strict=True):
            self.note_selection(rows, batch, name)
        means = [self.selected_mean(own, rows) for own, rows in zip(losses, chosen, strict=True)]
        if divide_twice:
            means = [own / self.gather_batch(rows).sum() for own, rows in zip(means, chosen, strict=True)]
        return means[0] + means[1]
