"""What is measured on validation and test splits."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

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


class Evaluation(nn.ModuleDict):
    """The metrics of each split: accuracy, top-5 accuracy when K > 10, calibration error and cross entropy.

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

    def _accuracy(self) -> Metric:
        return MulticlassAccuracy(self.num_classes, average="micro")

    def _metrics(self) -> dict[str, nn.Module]:
        metrics: dict[str, nn.Module] = {
            "acc": self._accuracy(),
            "ece": MulticlassCalibrationError(self.num_classes, n_bins=15),
            "loss": MeanMetric(),
        }
        if self.num_classes > _TOP_K_FROM_CLASSES:
            metrics["acc_top5"] = MulticlassAccuracy(self.num_classes, average="micro", top_k=_TOP_K)
        return metrics
