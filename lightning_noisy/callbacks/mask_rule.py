"""Which edges of a classifier are kept, and how long."""

from __future__ import annotations

import math
import zlib
from functools import partial

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_noisy.callbacks.head_mask import HeadMask
from lightning_noisy.collectives import process_count, sum_over_processes
from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.functional.masks import dropped_edges, edge_mask, node_mask
from lightning_noisy.functional.random import hash_uniform
from lightning_noisy.functional.scores import gradient_scores
from lightning_noisy.heads.maskable import BATCH_SCORES, WEIGHT_SCORES

SCORES = (*BATCH_SCORES, *WEIGHT_SCORES, "gradient", "random")
_RANDOM_STREAM = 0x6D61736B  # keeps random masks apart from other draws under the same seed
_MASKS = {"node": node_mask, "edge": edge_mask}


class MaskRule:
    """Makes the masks of heads by a score; arguments as in :class:`~lightning_noisy.callbacks.MaskRefresh`.

    Raises:
        NoisyLabelError: An argument is none of those.
    """

    def __init__(
        self, score: str, granularity: str, drop: str, every_n_steps: int = 1, every_n_epochs: int | None = None
    ) -> None:
        check_argument(score in SCORES, "score", f"one of {', '.join(map(repr, SCORES))}", score)
        check_argument(granularity in _MASKS, "granularity", "'node' or 'edge'", granularity)
        check_argument(drop in ("unimportant", "important"), "drop", "'unimportant' or 'important'", drop)
        check_count(every_n_steps, "every_n_steps")
        check_count(every_n_epochs, "every_n_epochs", optional=True)
        self.score = score
        self.granularity = granularity
        self.drop = drop
        self.every_n_steps = every_n_steps
        self.every_n_epochs = every_n_epochs
        self.seed = 0
        """Seed of random masks."""

    def begin_step(self, trainer: Trainer, head: HeadMask, ratio: float) -> None:
        """Give a head its mask for the optimizer step that begins, and record what the next mask needs.

        Args:
            trainer: Counts steps and epochs.
            head: The head, taken.
            ratio: Share of the edges to drop.
        """
        now = self._now(trainer)
        if self._is_due(head, now):
            if self.score == "gradient":
                head.finish_recording()
            self.renew(head, now, ratio)
        if self.score == "gradient" and self._is_due(head, now + 1):
            head.record_gradient(trainer.global_step)
        head.show(head.mask)

    def end_batch(self, trainer: Trainer, head: HeadMask) -> None:
        """Keep the gradient that was recorded, where the next batch begins with a new mask: a collective."""
        if self._is_due(head, self._now(trainer)) or trainer.is_last_batch:
            head.finish_recording()

    def warn_if_nothing_drops(self, head: HeadMask, ratio: float) -> None:
        """Say that a ratio is too small for a head to lose an edge."""
        edges = head.shape[0] if self.granularity == "node" else math.prod(head.shape)
        if ratio > 0 and dropped_edges(edges, ratio) == 0:
            rank_zero_warn(
                f"MaskRefresh drops nothing of `{head.name}`: floor({ratio:g} x {edges}) is 0 edges of "
                f"{'an input' if self.granularity == 'node' else 'the head'}; use a ratio of at least {1 / edges:.2g}"
                f"{' or granularity=' + repr('edge') if self.granularity == 'node' else ''}."
            )

    def renew(self, head: HeadMask, now: int, ratio: float) -> None:
        """Give a head its new mask, at once or, where the score looks at the batch, in its next forward pass.

        Args:
            head: The head, taken.
            now: The step or epoch that the mask is from.
            ratio: Share of the edges to drop.
        """
        if self.granularity == "node" and head.head.ranks_by_magnitude(self.score):
            self._set_mask(head, now, ratio, head.head.weight_scores("magnitude"))
        elif self.score in BATCH_SCORES:
            head.head.on_basis = partial(self._renew_from_batch, head, now, ratio)
        else:
            self._set_mask(head, now, ratio, self._scores(head, now))

    def _now(self, trainer: Trainer) -> int:
        """What intervals are counted in: optimizer steps or epochs."""
        return trainer.global_step if self.every_n_epochs is None else trainer.current_epoch

    def _is_due(self, head: HeadMask, now: int) -> bool:
        interval = self.every_n_epochs or self.every_n_steps
        return head.renewed_at is None or now // interval != head.renewed_at // interval

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _renew_from_batch(self, head: HeadMask, now: int, ratio: float, basis: Tensor) -> None:
        if not torch.is_grad_enabled():
            return
        head.head.on_basis = None
        all_reduce = sum_over_processes if process_count() > 1 else None
        with torch.no_grad(), torch.autocast(basis.device.type, enabled=False):
            basis = basis.to(torch.promote_types(basis.dtype, head.weight.dtype))
            self._set_mask(head, now, ratio, head.head.batch_scores(basis, self.score, all_reduce))
        head.show(head.mask)

    def _scores(self, head: HeadMask, now: int) -> Tensor:
        """Scores (K, D) that do not look at the batch."""
        if self.score == "random":
            edges = torch.arange(math.prod(head.shape), device=head.weight.device).view(head.shape)
            return hash_uniform(self.seed, _RANDOM_STREAM, zlib.crc32(head.name.encode()), now, edges)
        if self.score == "gradient":
            if head.gradient is None:
                return torch.zeros(head.shape, device=head.weight.device)
            return gradient_scores(head.gradient, head.head.coefficients().detach())
        scores: Tensor = head.head.weight_scores(self.score)
        return scores

    def _set_mask(self, head: HeadMask, now: int, ratio: float, scores: Tensor) -> None:
        mask = _MASKS[self.granularity](scores, ratio, self.drop)
        if scores.device.type != "cpu" or scores.numpy().item(0) == 0:  # one look is cheaper than all on a CPU
            mask.masked_fill_(~scores.any(), 1.0)
        head.mask = mask.to(head.weight.dtype)
        head.renewed_at = now
