"""What is measured on validation and test splits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from lightning_noisy.functional.collapse import collapse_message, collapsed_classes

_TOP_K = 5
_TOP_K_FROM_CLASSES = 10


class AttackSuccess(MeanMetric):
    """The share of samples that are taken for the class that a backdoor's trigger leads to, in [0, 1].

    Args:
        target: The class.
    """

    def __init__(self, target: int) -> None:
        super().__init__()
        self.target = target

    def update(self, probabilities: Tensor, _: Tensor) -> None:  # type: ignore[override]
        """Take in probabilities (B, K) of samples of other classes."""
        super().update((probabilities.argmax(dim=1) == self.target).float())


class ClassesPredicted(Metric):
    """How many of K classes are predicted; once that is computed, :attr:`lost` says which are given up.

    Args:
        num_classes: K.
    """

    full_state_update = False

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.predicted: Tensor
        self.given: Tensor
        for name in ("predicted", "given"):
            self.add_state(name, torch.zeros(num_classes, dtype=torch.int64), "sum")
        self.lost: list[int] = []
        """Classes that have labels and are (almost) never predicted."""
        self.share = 0.0
        """Of all labels that are theirs, in [0, 1]."""

    def update(self, probabilities: Tensor, target: Tensor) -> None:
        """Take in probabilities (B, K) and labels (B,)."""
        ones = torch.ones_like(target)
        self.predicted.scatter_add_(0, probabilities.argmax(dim=1), ones)
        self.given.scatter_add_(0, target, ones)

    def compute(self) -> Tensor:
        """The number, float32."""
        self.lost = collapsed_classes(self.predicted, self.given)
        self.share = float(self.given[self.lost].sum() / self.given.sum())
        return (self.predicted > 0).sum().float()


class Evaluation(nn.ModuleDict):
    """The metrics of each split: accuracy, top-5 accuracy when K > 10, calibration error, cross entropy, classes.

    Where all images show a backdoor's trigger there are two others: its success, and accuracy.

    Args:
        num_classes: K.
        splits: Names of the splits there are from the start.
    """

    def __init__(self, num_classes: int, splits: tuple[str, ...] = ("val", "test")) -> None:
        super().__init__()
        self.num_classes = num_classes
        for split in splits:
            self.add_split(split)

    def add_split(self, split: str, members: tuple[str, ...] = (), attacked: int | None = None) -> None:
        """Measure one more split, unless it is there, and on it what is named beside the module's own answer.

        Args:
            split: Its name.
            members: What is named beside the module's own answer.
            attacked: The class that the trigger in its images leads to, None without a trigger.
        """
        for name in (split, *(f"{split}/{member}" for member in members)):
            if attacked is not None:
                self[name] = nn.ModuleDict({"success": AttackSuccess(attacked), "acc": self._accuracy()})
            elif name not in self:
                self[name] = nn.ModuleDict(self._metrics())

    def reset(self) -> None:
        """Begin anew. A test before may have left tensors of inference mode, which a fit cannot add to."""
        for split in self.values():
            for metric in cast(nn.ModuleDict, split).values():
                cast(Metric, metric).reset()

    def measure(self, split: str, logits: Tensor, target: Tensor) -> dict[str, Metric]:
        """Take in a batch; returns the metrics of the split by their names in logs.

        Args:
            split: Name of the split.
            logits: float32 (B, K).
            target: int64 (B,).
        """
        metrics = {name: cast(Metric, metric) for name, metric in cast(nn.ModuleDict, self[split]).items()}
        for name, metric in metrics.items():
            if name == "loss":
                metric.update(F.cross_entropy(logits, target), weight=len(target))
            else:
                metric.update(logits.softmax(dim=1), target)
        return {f"{split}/{name}": metric for name, metric in metrics.items()}

    def collapse(self, names: Sequence[str] | None) -> str | None:
        """What a user is told of classes that are (almost) never predicted on the first split that has such; else None.

        Args:
            names: What the classes are called; None: numbers.
        """
        own = [cast(nn.ModuleDict, metrics) for split, metrics in self.items() if "/" not in split]
        counted = [one for metrics in own for one in metrics.values() if isinstance(one, ClassesPredicted)]
        found = next((one for one in counted if one.lost), None)
        called = None if names is None else list(names)
        return None if found is None else collapse_message(found.lost, found.share, called)

    def _accuracy(self) -> Metric:
        return MulticlassAccuracy(self.num_classes, average="micro")

    def _metrics(self) -> dict[str, nn.Module]:
        metrics: dict[str, nn.Module] = {
            "acc": self._accuracy(),
            "ece": MulticlassCalibrationError(self.num_classes, n_bins=15),
            "loss": MeanMetric(),
            "classes_predicted": ClassesPredicted(self.num_classes),
        }
        if self.num_classes > _TOP_K_FROM_CLASSES:
            metrics["acc_top5"] = MulticlassAccuracy(self.num_classes, average="micro", top_k=_TOP_K)
        return metrics
