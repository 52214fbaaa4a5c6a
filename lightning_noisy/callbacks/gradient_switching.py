"""Gradient switching (GSS-SB): the label of each step is drawn from a pool of directions."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from lightning_noisy.callbacks.criterion_callback import CriterionCallback
from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.functional.direction_pool import pool_increment
from lightning_noisy.functional.random import hash_uniform, sample_categorical
from lightning_noisy.targets import TargetCall, TargetPipeline

_STREAM = 0x706F6F6C  # keeps these draws apart from other draws under the same seed


class GradientSwitching(CriterionCallback):
    r"""Trains each sample on a label drawn from its own, slowly changing pool.

    Sample i has a pool :math:`D_i` (K,). Each time it is seen, the criterion gets
    :math:`\hat y_i \sim D_i / \sum_k D_{ik}`, and then, with the prediction p of that same pass (train mode, detached),

    .. math:: D_i \leftarrow D_i + \operatorname{onehot}(\tilde y_i)\, v_{or}
              + \operatorname{onehot}(\arg\max p_i)\, v_{pr} + \tfrac{1}{K} v_{rd},

    .. math:: v_{or} = c_i (1 - e/E), \quad v_{pr} = c_i \lambda_1 e/E, \quad v_{rd} = \lambda_2 e/E

    with the given label :math:`\tilde y_i`, its confidence :math:`c_i = p_{i \tilde y_i}`, and epochs e from 0 of E.

    The label that a sample has come to is its pool's largest entry, :math:`\arg\max_k D_{ik}`, not the last draw:
    :class:`LabelWriter` writes it, and trackers of corrected labels show it.

    There is no official code; four readings of the paper are arguments.

    Args:
        lam_prediction: :math:`\lambda_1`, weight of the predicted direction. Published: 2.0.
        lam_random: :math:`\lambda_2`, weight of the random directions. Published: 1.0.
        initial_pool: ``"one_hot"``: the pool starts as the one-hot given label, so that the first draw is that label;
            ``"zeros"``: it starts at zero and is updated before the first draw. The paper does not say.
        confidence: ``"given"``: c is the confidence of the given label, as printed; ``"max"``: the largest
            probability, with which a confidently re-predicted sample gains the predicted direction.
        redraw: ``"step"``: draw and update at each visit; ``"epoch"``: at the first visit of an epoch, whose label then
            stands. The paper says both. They are the same for a loader that shows each sample once an epoch. Within a
            batch a sample has one label, and grows its pool once.
        total_epochs: E; None takes the Trainer's ``max_epochs`` at the first start, and keeps it at resume.
        seed: Seed of the draws; None takes the run's (``seed_everything``), else 0.
        **options: ``criterion``, ``index_key``, ``check_labels``, as in :class:`CriterionCallback`.

    Raises:
        NoisyLabelError: An argument outside its range; at start, a second callback that replaces the target or a
            Trainer without ``max_epochs``; at fit, a checkpoint of another data set.

    References:
        Gradient Switching Strategy for learning with noisy labels, CVPR 2023, section 5.1, the single-branch form.

    Example::

        Trainer(max_epochs=150, callbacks=[GradientSwitching()])
    """

    replaces_target = True
    makes_soft_targets = False

    def __init__(
        self,
        lam_prediction: float = 2.0,
        lam_random: float = 1.0,
        initial_pool: str = "one_hot",
        confidence: str = "given",
        redraw: str = "step",
        total_epochs: int | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
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
        self._span = 1

    @override
    def join(self, pipeline: TargetPipeline) -> None:
        pipeline.add_changer(self)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._span = self.run.total_epochs(type(self).__name__, self.total_epochs, key=self.state_key)

    def change_target(self, call: TargetCall) -> Tensor:
        """Draw labels from the pools of the batch, then update these."""
        store = self.section.store("pool", (call.num_classes,), device=call.logits.device)
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
        store = self.section.stores.get("pool")
        return None if store is None else store.get(index)

    def settled_target(self, call: TargetCall) -> Tensor:
        """The largest entry of each pool, as it is after its update; of several the first."""
        pool = self.pool(call.index)
        assert pool is not None
        return torch.where(pool.sum(dim=1) > 0, pool.argmax(dim=1), call.given)

    def _first_of_epoch(self, call: TargetCall, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """The label drawn at a sample's first visit of the epoch, and whether this is that visit."""
        labels = self.section.store("drawn", (2,), fill=-1, dtype=torch.int64, device=call.logits.device)
        epoch, earlier = labels.get(call.index).unbind(dim=1)
        first = epoch != call.epoch
        drawn = torch.where(first, drawn, earlier)
        labels.update(call.index, torch.stack([torch.full_like(drawn, call.epoch), drawn], dim=1))
        return drawn, first

    def increment(self, call: TargetCall) -> Tensor:
        """What the pools of the batch gain, (B, K)."""
        progress = min(1.0, call.epoch / self._span)
        p = call.probabilities
        best, prediction = p.max(dim=1)
        confidence = p.gather(1, call.given.unsqueeze(1)).squeeze(1) if self.confidence == "given" else best
        weights = self.lam_prediction, self.lam_random
        return pool_increment(call.given, prediction, confidence, progress, *weights, call.num_classes)

    def _draw(self, call: TargetCall, pool: Tensor) -> Tensor:
        seed = self.run.seed if self.seed is None else self.seed
        keys: list[int | Tensor] = [_STREAM, seed, call.epoch, call.index]
        if self.redraw == "step":
            visits = self.section.store("visits", dtype=torch.int64, device=call.logits.device)
            earlier = visits.get(call.index)
            visits.update(call.index, earlier + 1)
            keys.append(earlier)
        drawn = sample_categorical(pool, hash_uniform(*keys))
        # A pool whose only entry has underflowed has nothing to draw from.
        return torch.where(pool.sum(dim=1) > 0, drawn, call.given)
