"""Gradient switching at a criterion: labels are drawn from pools, which grow by what is predicted."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.functional.direction_pool import pool_increment
from lightning_noisy.functional.random import hash_uniform, sample_categorical
from lightning_noisy.state import RunState, Section
from lightning_noisy.targets.call import TargetCall

_STREAM = 0x706F6F6C  # keeps these draws apart from other draws under the same seed


class DirectionPools(ABC):
    """A pool for each sample; a changer of targets. A subclass has ``section`` and ``run``.

    Args:
        lam_prediction: Weight of the predicted direction, at least 0.
        lam_random: Weight of the random directions, at least 0.
        initial_pool: ``"one_hot"`` or ``"zeros"``.
        confidence: ``"given"`` or ``"max"``.
        redraw: ``"step"`` or ``"epoch"``.
        total_epochs: Epochs E of the schedule; None takes the run's.
        seed: Seed of the draws; None takes the run's.

    Raises:
        NoisyLabelError: An argument outside its range.
    """

    replaces_target = True
    makes_soft_targets = False

    section: Section
    """Where the pools are kept."""
    place = ""
    """What tells the pools of several networks apart."""

    def __init__(
        self,
        lam_prediction: float,
        lam_random: float,
        initial_pool: str,
        confidence: str,
        redraw: str,
        total_epochs: int | None,
        seed: int | None,
    ) -> None:
        check_count(total_epochs, "total_epochs", optional=True)
        check_argument(lam_prediction >= 0, "lam_prediction", "a float of at least 0", lam_prediction)
        check_argument(lam_random >= 0, "lam_random", "a float of at least 0", lam_random)
        check_argument(initial_pool in ("one_hot", "zeros"), "initial_pool", "'one_hot' or 'zeros'", initial_pool)
        check_argument(confidence in ("given", "max"), "confidence", "'given' or 'max'", confidence)
        check_argument(redraw in ("step", "epoch"), "redraw", "'step' or 'epoch'", redraw)
        self.lam_prediction = lam_prediction
        self.lam_random = lam_random
        self.initial_pool = initial_pool
        self.confidence = confidence
        self.redraw = redraw
        self.total_epochs = total_epochs
        self.seed = seed
        self.span = 1
        """E, from the start of training on."""

    @property
    @abstractmethod
    def run(self) -> RunState:
        """The run."""

    def change_target(self, call: TargetCall) -> Tensor:
        """Draw labels from the pools of the batch, then update these."""
        store = self.section.store(f"pool{self.place}", (call.num_classes,), device=call.logits.device)
        pool = store.get(call.index)
        unseen = pool.sum(dim=1, keepdim=True) == 0
        increment = self.increment(call).to(pool)
        if self.initial_pool == "one_hot":
            given = F.one_hot(call.given, call.num_classes).to(pool)
            pool = torch.where(unseen, given, pool)
            drawn = self._draw(call, pool)
        else:
            drawn = self._draw(call, torch.where(unseen, increment, pool))
        if self.redraw == "epoch":
            drawn, first = self._first_of_epoch(call, drawn)
            increment = increment * first.unsqueeze(1)
        store.update(call.index, pool + increment)
        return drawn

    def pool(self, index: Tensor) -> Tensor | None:
        """The pools (B, K) of these samples, zero where a sample was never seen; None before the first batch."""
        store = self.section.stores.get(f"pool{self.place}")
        return None if store is None else store.get(index)

    def settled_target(self, call: TargetCall) -> Tensor:
        """The largest entry of each pool, as it is after its update; of several the first."""
        pool = self.pool(call.index)
        assert pool is not None
        return torch.where(pool.sum(dim=1) > 0, pool.argmax(dim=1), call.given)

    def predicted(self, call: TargetCall) -> tuple[Tensor, Tensor]:
        """The predicted labels (B,), and the probabilities (B, K) that confidence is read from."""
        p = call.probabilities
        return p.argmax(dim=1), p

    def _first_of_epoch(self, call: TargetCall, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """The label drawn at a sample's first visit of the epoch, and whether this is that visit."""
        labels = self.section.store(f"drawn{self.place}", (2,), fill=-1, dtype=torch.int64, device=call.logits.device)
        epoch, earlier = labels.get(call.index).unbind(dim=1)
        first = epoch != call.epoch
        drawn = torch.where(first, drawn, earlier)
        labels.update(call.index, torch.stack([torch.full_like(drawn, call.epoch), drawn], dim=1))
        return drawn, first

    def increment(self, call: TargetCall) -> Tensor:
        """What the pools of the batch gain, (B, K)."""
        progress = min(1.0, call.epoch / self.span)
        prediction, sure = self.predicted(call)
        best = sure.amax(dim=1)
        confidence = sure.gather(1, call.given.unsqueeze(1)).squeeze(1) if self.confidence == "given" else best
        weights = self.lam_prediction, self.lam_random
        return pool_increment(call.given, prediction, confidence, progress, *weights, call.num_classes)

    def _draw(self, call: TargetCall, pool: Tensor) -> Tensor:
        seed = self.run.seed if self.seed is None else self.seed
        keys: list[int | Tensor] = [_STREAM, seed, call.epoch, call.index]
        if self.redraw == "step":
            visits = self.section.store(f"visits{self.place}", dtype=torch.int64, device=call.logits.device)
            earlier = visits.get(call.index)
            visits.update(call.index, earlier + 1)
            keys.append(earlier)
        drawn = sample_categorical(pool, hash_uniform(*keys))
        # A pool whose only entry has underflowed has nothing to draw from.
        return torch.where(pool.sum(dim=1) > 0, drawn, call.given)
