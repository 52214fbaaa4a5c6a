"""Which samples a call of a criterion is about."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_noisy.data.batch import Batch, IndexKey
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.state import RunState


class CalledRows:
    """Finds the index of a call among the parts of a batch.

    Args:
        run: The run.
        name: The criterion's name, for messages.
    """

    def __init__(self, run: RunState, name: str) -> None:
        self._run = run
        self._name = name
        self._batch: Batch | None = None
        self._index_key: IndexKey = None
        self._given: dict[str, Tensor] = {}
        self._parts: dict[str, Tensor] = {}

    def enter_batch(self, batch: Batch, index_key: IndexKey) -> None:
        """A batch begins. Its index is read at the first call."""
        self._batch, self._index_key = batch, index_key
        self._given, self._parts = {}, {}

    def leave_batch(self) -> None:
        """It is over."""
        self._batch = None
        self._given, self._parts = {}, {}

    def of_call(self, rows: int) -> Tensor:
        """The index (rows,) of a call with this many rows of logits.

        Raises:
            NoisyLabelError: The batch has no index or one that lies outside [0, N); no part of it has as many rows, or
                several have.
        """
        assert self._batch is not None
        if not self._parts:
            self._given = self._batch.indices(self._index_key)
            self._parts = {name: self._inside(index) for name, index in self._given.items()}
        called = self._batch.called
        if called is not None:
            known = [self._parts[name] for name, index in self._given.items() if index is called]
            return known[0] if known else self._inside(called)
        parts = list(self._parts.values())
        fitting = [index for index in parts if len(index) == rows]
        if len(parts) > 1 and sum(map(len, parts)) == rows:
            fitting.append(torch.cat(parts))
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise NoisyLabelError(
                f"`{self._name}` was called with {rows} rows of logits, as many as several loaders give "
                f"({', '.join(self._parts)}): name the one it is called with by `index_key`."
            )
        counts = " + ".join(str(len(index)) for index in parts)
        raise NoisyLabelError(
            f"`{self._name}` was called with {rows} rows of logits, but the batch has {counts} indices: call it once "
            "per view or with the whole batch; what drops samples on the way needs `index_key`."
        )

    def _inside(self, index: Tensor) -> Tensor:
        """An index of which nothing is read outside the stores, whatever it holds."""
        training_set = self._run.training_set
        if training_set is None:  # nobody keeps rows
            return index
        kept = index.clamp(0, training_set.num_samples - 1)
        self._run.checks.require(
            (kept == index).all(),
            lambda: (
                f"Expected indices in [0, {training_set.num_samples}), but the batch has {int(index.min())} to "
                f"{int(index.max())}: wrap the set that the loader reads in `IndexedDataset`; a part of it is a "
                "`Subset(IndexedDataset(train_set), ...)`, or a Subset that is wrapped."
            ),
        )
        return kept
