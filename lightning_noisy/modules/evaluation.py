"""What is measured on validation and test splits."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

_TOP_K = 5
_TOP_K_FROM_CLASSES = 10


class Evaluation(nn.ModuleDict):
    """The metrics of each split: accuracy, top-5 accuracy when K > 10, calibration error and cross entropy.

    Args:
        num_classes: K.
        splits: Names of the splits there are from the start.
    """

    def __init__(self, num_classes: int, splits: tuple[str, ...] = ("val", "test")) -> None:
        super().__init__()
        self.num_classes = num_classes
        for split in splits:
            self.add_split(split)

    def add_split(self, split: str, members: tuple[str, ...] = ()) -> None:
        """Measure one more split, unless it is there, and on it what is named beside the module's own answer."""
        for name in (split, *(f"{split}/{member}" for member in members)):
            if name not in self:
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
        for metric in metrics.values():
            if isinstance(metric, MeanMetric):
                metric.update(F.cross_entropy(logits, target), weight=len(target))
            else:
                metric.update(logits.softmax(dim=1), target)
        return {f"{split}/{name}": metric for name, metric in metrics.items()}

    def _metrics(self) -> dict[str, nn.Module]:
        metrics: dict[str, nn.Module] = {
            "acc": MulticlassAccuracy(self.num_classes, average="micro"),
            "ece": MulticlassCalibrationError(self.num_classes, n_bins=15),
            "loss": MeanMetric(),
        }
        if self.num_classes > _TOP_K_FROM_CLASSES:
            metrics["acc_top5"] = MulticlassAccuracy(self.num_classes, average="micro", top_k=_TOP_K)
        return metrics
