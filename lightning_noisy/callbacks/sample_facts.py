"""What is known of training samples before training, saved beside what training shows of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_noisy.data.origins import PATH, ROW


class SampleFacts:
    """Path or row of each sample, its right label where somebody knows it, and what the data are called.

    A part of a section. Paths are kept as the bytes of one text, a zero behind each: a checkpoint is loaded without
    pickled objects, and they take as much room as on a disk.
    """

    def __init__(self) -> None:
        self.kind: Literal["path", "row"] = "row"
        """``"path"`` or ``"row"``."""
        self.class_names: Sequence[str] | None = None
        """What the classes are called; None: nobody tells."""
        self.labels: Tensor | None = None
        """Given labels, int32 (N,); None where only batches tell them."""
        self.truth: Tensor | None = None
        """Right labels, int64 (N,); -1 where nobody knows one."""
        self.title: str | None = None
        """What the data are called."""
        self.root = ""
        """The folder that paths are relative to; empty: the working directory."""
        self._names = torch.empty(0, dtype=torch.int64)

    def name(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Take over what the samples are called.

        Args:
            arrays: ``path``, text (N,), or ``row``, int64 (N,).
        """
        self.kind = "path" if PATH in arrays else "row"
        if self.kind == "row":
            self._names = torch.as_tensor(arrays[ROW])
            return
        text = "".join(f"{path}\0" for path in arrays[PATH].tolist())
        self._names = torch.frombuffer(bytearray(text.encode(errors="surrogateescape")), dtype=torch.uint8)

    @property
    def samples(self) -> NDArray[np.str_]:
        """Path or row of each sample, as text (N,)."""
        if self.kind == "row":
            return np.asarray(self._names.numpy()).astype(str)
        text = self._names.numpy().tobytes().decode(errors="surrogateescape")
        return np.array(text.split("\0")[:-1], dtype=np.str_)

    def enter_batch(self) -> None:
        """Nothing: facts do not change."""

    def end_batch(self) -> None:
        """Nothing."""

    def leave_batch(self) -> None:
        """Nothing."""

    def reset(self) -> None:
        """Begin without a past: all is said again when training starts."""

    def state_dict(self) -> dict[str, Any]:
        """All as tensors and text."""
        names = None if self.class_names is None else list(self.class_names)
        plain = {"kind": self.kind, "title": self.title, "root": self.root, "class_names": names}
        return {**plain, "names": self._names, "labels": self.labels, "truth": self.truth}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what was saved."""
        self.kind, self.title, self.root = state["kind"], state["title"], state["root"]
        self.class_names = state["class_names"]
        self._names, self.labels, self.truth = state["names"], state["labels"], state["truth"]
