"""Files of features with labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_noisy.data.array_file import Array, ArrayFile
from lightning_noisy.data.origins import CLASS_NAMES, PATH, ROW, checked_sources
from lightning_noisy.errors import check_argument

NETWORK = "network"
"""Name of the array that says what made the features."""
_NAMES = ("x", "y", "clean", "x_test", "y_test", CLASS_NAMES, PATH, ROW, "path_test", NETWORK)


def checked_suffix(path: str | Path, name: str, suffixes: tuple[str, ...]) -> str:
    """The path as a string, if it ends in one of ``suffixes``.

    Raises:
        NoisyLabelError: It ends otherwise.
    """
    check_argument(Path(path).suffix.lower() in suffixes, name, f"a {' or '.join(suffixes)} file", str(path))
    return str(path)


@dataclass(frozen=True)
class Part:
    """Features float32 (N, D) with labels and, where known, clean labels, int64 (N,), and paths or rows, (N,)."""

    x: Tensor
    y: Tensor
    clean: Tensor | None = None
    sources: Array | None = None

    def split(self, test_rows: int) -> tuple[Part, Part]:
        """The rows before the last ``test_rows``, and these with the best labels that are known."""
        best = self.y if self.clean is None else self.clean
        clean = None if self.clean is None else self.clean[:-test_rows]
        sources = np.arange(len(self.x)) if self.sources is None else self.sources
        train = Part(self.x[:-test_rows], self.y[:-test_rows], clean, sources[:-test_rows])
        return train, Part(self.x[-test_rows:], best[-test_rows:], sources=sources[-test_rows:])


class FeatureFile(ArrayFile):
    """The arrays of a file of features, checked one by one."""

    def __init__(self, path: str, argument: str, num_classes: int | None) -> None:
        super().__init__(path, argument)
        self.num_classes = num_classes
        with self.open("features") as arrays:
            self.names = [name or "x" for name in arrays]  # that of an .npy file has none
            self.arrays = {name or "x": arrays[name] for name in arrays if name in (None, *_NAMES)}

    def part(self, x: str, y: str, width: int, path: str = PATH) -> Part:
        """Features of ``width`` and their labels."""
        features = self.matrix(x, width)
        return Part(features, self.vector(y, len(features), x), sources=self.sources(len(features), path))

    def sources(self, count: int, path: str = PATH) -> Array | None:
        """Paths or rows of the samples, (N,), None where the file does not say."""
        told = self.arrays.get(path, self.arrays.get(ROW) if path == PATH else None)
        return None if told is None else checked_sources(told, count)

    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes, None where the file does not say."""
        names = self.arrays.get(CLASS_NAMES)
        if names is None:
            return None
        if names.ndim != 1 or names.dtype.kind != "U":
            raise self.error(f"`{CLASS_NAMES}` as text (K,)", f"shape {names.shape} of {names.dtype}", "save strings")
        return tuple(names.tolist())

    def network(self) -> tuple[str, str | None] | None:
        """What made the features, and the file of its weights, None for its own; None where the file does not say."""
        told = self.arrays.get(NETWORK)
        if told is None or told.shape != (2,) or told.dtype.kind != "U":
            return None
        return str(told[0]), str(told[1]) or None

    def matrix(self, name: str, width: int | None = None) -> Tensor:
        """Finite features, float32 (N, D)."""
        array = self._array(name)
        if array.ndim != 2 or array.size == 0 or array.shape[1] != (width or array.shape[1]):
            wanted = f"features `{name}` of shape (N, {width or 'D'})"
            raise self.error(wanted, f"shape {array.shape}", "save one row per sample, none of them empty")
        if array.dtype.kind not in "fiu":
            raise self.error(f"numbers in `{name}`", f"dtype {array.dtype}", "save features as floats")
        with np.errstate(over="ignore"):
            x = torch.from_numpy(array.astype(np.float32, order="C", copy=False))
        broken = ~x.isfinite()
        if broken.any():
            count, first = int(broken.sum()), int(broken.any(dim=1).nonzero()[0])
            came = f"{count} that are not, the first in row {first}"
            raise self.error(f"features `{name}` that are finite in float32", came, "mend or drop these rows")
        return x

    def vector(self, name: str, count: int, of: str) -> Tensor:
        """Labels, int64 (N,), one for each row of ``of``."""
        return self.labels(self._array(name), count, self.num_classes, f"labels `{name}`", f"row of `{of}`")

    def _array(self, name: str) -> Array:
        if name not in self.arrays:
            came = ", ".join(f"`{known}`" for known in self.names) or "no array"
            raise self.error(f"an array `{name}`", came, "save it under this name")
        return self.arrays[name]
