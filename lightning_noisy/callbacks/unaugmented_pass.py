"""What a network says of every training sample as it is evaluated."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import Dataset

from lightning_noisy.data.batch import TrainingBatch
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.state import RunState, Section
from lightning_noisy.state.scoring import check_whole, score_training_set, scoring_loader
from lightning_noisy.trainer_access import check_not_sharded, from_datamodule

_NEAR_ONE = 1e-3


class UnaugmentedPass:
    """A pass over the training set without augmentation, in evaluation mode, whose rows are those of a visit.

    Modes, running statistics and random streams are afterwards what they were. Processes share the pass.

    Args:
        owner: Who looks.
        trainer: The Trainer.
        module: What is trained; ``module(images)`` gives logits (B, K).
        dataset: The training set without augmentation, with samples ``(image, target)`` in its order; None takes the
            ``scoring_loader()`` of the data module, with batches ``(images, target, index)``.
        section: Keeps the rows.
        labels: Name of the criterion whose labels those of the set are held to; None: any are taken.

    Raises:
        NoisyLabelError: Nobody has a set without augmentation, or it has another length; the module has no ``forward``;
            a strategy that shards weights.
    """

    def __init__(
        self,
        owner: str,
        trainer: Trainer,
        module: LightningModule,
        dataset: Dataset[Any] | None,
        section: Section,
        labels: str | None,
    ) -> None:
        if not hasattr(trainer, "train_dataloader"):
            raise NoisyLabelError(
                f"{owner}(unaugmented=...) needs a Trainer: in a loop of your own, hand the logits of a pass without "
                "augmentation to `NoisyLoop.update`."
            )
        check_not_sharded(trainer, f"{owner} cannot pass over the training set")
        kind = type(module)
        if next(cls for cls in kind.__mro__ if "forward" in vars(cls)).__name__ in ("LightningModule", "Module"):
            raise NoisyLabelError(
                f"{owner}(unaugmented=...) asks {kind.__name__} for logits, which has no `forward`: write "
                "`forward(self, images)`, which returns logits (B, K)."
            )
        if dataset is None and from_datamodule(trainer, "scoring_loader") is None:
            raise NoisyLabelError(
                f"{owner}(unaugmented=True) finds no training set without augmentation: give it, "
                "`unaugmented=dataset`, or a data module whose `scoring_loader()` reads it in order, in batches "
                "(images, target, index)."
            )
        check_whole(owner, scoring_loader(trainer, dataset), section.num_samples)
        self._owner, self._module, self._dataset = owner, module, dataset
        self._section, self._labels = section, labels
        self.num_classes: int | None = None
        """K, as the criterion has it; None before its first call."""

    def __call__(self, run: RunState) -> None:
        """Look at all samples: the rows are then in the store ``visit``, equal on all processes.

        Raises:
            NoisyLabelError: The module gives no logits, or ones that are not finite; other labels than in training.
        """
        measure = partial(self._visit, run)
        score_training_set(self._owner, self._module, self._section, measure, dataset=self._dataset)
        run.checks.settle()

    def _visit(self, run: RunState, batch: TrainingBatch) -> dict[str, Tensor]:
        logits = self._module(batch.images)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or not logits.is_floating_point():
            came = f"a tensor {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            raise NoisyLabelError(
                f"{self._owner}(unaugmented=...) needs logits (B, K) of {type(self._module).__name__}, whose `forward` "
                f"returns {came}."
            )
        if self.num_classes is not None and logits.shape[1] != self.num_classes:
            raise NoisyLabelError(
                f"{self._owner}(unaugmented=...) needs the logits of {type(self._module).__name__}, whose `forward` "
                f"returns {tuple(logits.shape)}, but the criterion gets {self.num_classes} classes: return these."
            )
        self._check(run, batch, logits)
        return {"visit": visit_rows(logits, batch.target)}

    def _check(self, run: RunState, batch: TrainingBatch, logits: Tensor) -> None:
        target = batch.target
        inside = ((target >= 0) & (target < logits.shape[1])).all()
        same = (self._expected(run, batch) == target).all()
        run.checks.require(
            inside & same,
            lambda: (
                f"The training set without augmentation has other labels than {self._owner} saw in training, among "
                f"samples {batch.index.tolist()[:8]}: keep its order and labels; labels that change on purpose need "
                "`check_labels=False`."
            ),
        )
        are_logits = ~((logits >= 0).all() & ((logits.sum(dim=1) - 1).abs() < _NEAR_ONE).all())
        run.checks.require(
            are_logits & logits.isfinite().all(),
            lambda: (
                f"{self._owner}(unaugmented=...) needs finite logits of {type(self._module).__name__}, but `forward` "
                f"returns {'probabilities' if logits.isfinite().all() else 'some that are not'}."
            ),
        )

    def _expected(self, run: RunState, batch: TrainingBatch) -> Tensor:
        """The labels of the samples, where they are known; those that came of others."""
        if self._labels is None:
            return batch.target
        if run.labels is not None:
            return run.labels.to(batch.index.device)[batch.index]
        learned = run.learned_labels.stores.get(self._labels)
        if learned is None:
            return batch.target
        labels = learned.get(batch.index)
        return torch.where(labels < 0, batch.target, labels)


def visit_rows(logits: Tensor, label: Tensor) -> Tensor:
    """Log-probabilities and the label of each sample, float32 (B, K + 1).

    Args:
        logits: (B, K).
        label: Given labels, int64 (B,).
    """
    return torch.cat([logits.float().log_softmax(dim=1), label.unsqueeze(1).float()], dim=1)
