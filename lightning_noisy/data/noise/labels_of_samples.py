"""Labels in a file that says which sample each of them belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_noisy.data.array_file import Array, ArrayFile
from lightning_noisy.data.origins import CLASS_NAMES, PATH, ROW
from lightning_noisy.errors import printable


@dataclass(frozen=True)
class LabelsOfSamples:
    """Labels with the paths or rows of their samples.

    Args:
        file: Where they stand.
        kind: ``"path"`` or ``"row"``.
        sources: Paths, text (M,), or rows, integers (M,).
        labels: int64 (M,), counted in ``names``.
        names: What the classes are called, text (K,); None where the file does not say.
    """

    file: ArrayFile
    kind: str
    sources: Array
    labels: Array
    names: Array | None

    @classmethod
    def read(cls, file: ArrayFile, key: str | None) -> LabelsOfSamples | None:
        """What a file holds; None of a file that does not say which samples its labels belong to.

        Args:
            file: The file.
            key: Name of the labels' array; None is the only one.
        """
        with file.open("labels") as arrays:
            found = {name: arrays[name] for name in (PATH, ROW, CLASS_NAMES) if name in arrays}
        kind = next((name for name in (PATH, ROW) if name in found), None)
        if kind is None:
            return None
        array, names = file.pick(key), found.get(CLASS_NAMES)
        labels = file.labels(array, len(found[kind]), None if names is None else len(names), of=kind)
        return cls(file, kind, found[kind], labels.numpy(), names)

    def of(self, sources: Array, num_classes: int, class_names: Sequence[str] | None) -> Tensor:
        """The labels of some samples.

        Args:
            sources: Their paths or rows, (N,).
            num_classes: K.
            class_names: What the classes are called in the data, None where nobody knows it.

        Returns:
            int64 (N,).

        Raises:
            NoisyLabelError: A sample without a label, or with two different ones, or a label of another class.
        """
        kind = PATH if sources.dtype.kind == "U" else ROW
        if kind != self.kind:
            way_out = f"take a file of these data, or drop the array `{self.kind}` if the order is theirs"
            raise self.file.error(f"the {kind} of each label", f"its {self.kind}", way_out)
        found = self.labels if np.array_equal(self.sources, sources) else self._matched(sources)
        classes = self._classes(class_names)
        if classes is not None:
            found = self._renamed(found, classes)
        return self.file.labels(found, len(sources), num_classes)

    def _matched(self, sources: Array) -> Array:
        known, first, where = np.unique(self.sources, return_index=True, return_inverse=True)
        labels = self.labels[first]
        twice = labels[where] != self.labels
        if twice.any():
            came = f"two for '{printable(self.sources[twice.argmax()])}'"
            raise self.file.error("one label for each sample", came, "keep one")
        at = np.searchsorted(known, sources).clip(max=len(known) - 1)
        missing = known[at] != sources
        if missing.any():
            came = f"none for {missing.sum()} of them, the first '{printable(sources[missing.argmax()])}'"
            way_out = "take a file of all these data, of a run without a validation split (`val_fraction=0`)"
            raise self.file.error(f"labels of all {len(sources)} training samples", came, way_out)
        chosen: Array = labels[at]
        return chosen

    def _classes(self, class_names: Sequence[str] | None) -> dict[str, int] | None:
        """The class of each name, where file and data have names."""
        if self.names is None or class_names is None:
            return None
        return {name: label for label, name in enumerate(class_names)}

    def _renamed(self, labels: Array, classes: dict[str, int]) -> Array:
        """Labels by the order of the data's classes."""
        assert self.names is not None
        used = [str(self.names[label]) for label in np.unique(labels)]
        foreign = next((name for name in used if name not in classes), None)
        if foreign is not None:
            came = f"'{printable(foreign)}'"
            raise self.file.error(f"labels of the {len(classes)} classes of the data", came, "use the same class names")
        order = torch.tensor([classes.get(str(name), -1) for name in self.names])
        return order.numpy()[labels]
