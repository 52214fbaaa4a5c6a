"""What a module says of images, and how good that is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor
from typing_extensions import override

from lightning_noisy.errors import check_argument
from lightning_noisy.modules.context import widened
from lightning_noisy.modules.evaluation import Evaluation
from lightning_noisy.modules.in_run import ModuleInRun
from lightning_noisy.trainer_access import from_datamodule


class EvaluatedModule(ModuleInRun, ABC):
    """A module that is measured on validation and test sets, and predicts.

    Args:
        num_classes: K.
    """

    num_classes: int

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.evaluation = Evaluation(num_classes)

    @abstractmethod
    @override
    def forward(self, images: Any) -> Tensor:
        """Images (B, C, H, W) to logits (B, K): what is evaluated."""

    @property
    def members(self) -> tuple[str, ...]:
        """Whose accuracy is measured beside that of :meth:`forward`."""
        return ()

    def evaluations(self, images: Any) -> dict[str, Tensor]:
        """What is measured on validation and test sets: logits (B, K) by name, the empty one being :meth:`forward`'s.

        The others are logged as ``val/<name>/acc`` and so on; their names are :attr:`members`.
        """
        return {"": self(images)}

    def lost_classes_line(self) -> str | None:
        """A line about classes that the last evaluation has (almost) never predicted though it has them; else None."""
        return self.evaluation.collapse(self.run.origins.class_names)

    def find_splits(self) -> None:
        """Learn what there is to be measured on."""
        attacked = from_datamodule(self.trainer, "attacked_splits") or {}
        for split in from_datamodule(self.trainer, "validation_splits") or ("val", "test"):
            self.evaluation.add_split(split, self.members, attacked.get(split))

    @override
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate("val", "validation_splits", batch, dataloader_idx)

    @override
    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate("test", "test_splits", batch, dataloader_idx)

    @override
    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Probabilities (B, K) of a batch of images, alone or first in a tuple."""
        images = batch[0] if isinstance(batch, (tuple, list)) else batch
        return widened(self(images)).softmax(dim=1)

    @override
    def on_validation_start(self) -> None:
        self.evaluation.reset()

    def _evaluate(self, only: str, declared: str, batch: Any, dataloader_idx: int) -> None:
        splits = from_datamodule(self.trainer, declared) or (only,)
        check_argument(dataloader_idx < len(splits), f"{only}_dataloaders", f"{len(splits)} loaders: {splits}", "more")
        split = splits[dataloader_idx]
        for member, logits in self.evaluations(batch[0]).items():
            metrics = self.evaluation.measure(f"{split}/{member}" if member else split, widened(logits), batch[1])
            for name, metric in metrics.items():
                place = "evaluation." + ".".join(name.rsplit("/", 1))  # what Lightning finds itself, no copy can use
                self.log(
                    name,
                    metric,
                    prog_bar=name == f"{split}/acc",
                    add_dataloader_idx=False,
                    metric_attribute=place,
                )
