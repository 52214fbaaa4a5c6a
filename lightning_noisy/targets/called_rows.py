"""Which samples a call of a criterion is about."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_noisy.data.batch import Batch, IndexKey
from lightning_noisy.errors import NoisyLabelError


def called_rows(batch: Batch, index_key: IndexKey, rows: int, name: str) -> Tensor:
    """The index (rows,) of a call with this many rows of logits, among the parts of a batch.

    Args:
        batch: The batch.
        index_key: Where it holds the index, or the loader that is meant.
        rows: Rows of logits.
        name: The criterion's name, for messages.

    Raises:
        NoisyLabelError: The batch has no index; no part of it has as many rows, or several have.
    """
    parts = batch.indices(index_key)
    if batch.called is not None:
        return batch.called
    found = list(parts.values())
    fitting = [index for index in found if len(index) == rows]
    if len(found) > 1 and sum(map(len, found)) == rows:
        fitting.append(torch.cat(found))
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise NoisyLabelError(
            f"`{name}` was called with {rows} rows of logits, as many as several loaders give ({', '.join(parts)}): "
            "name the one it is called with by `index_key`."
        )
    counts = " + ".join(str(len(index)) for index in found)
    raise NoisyLabelError(
        f"`{name}` was called with {rows} rows of logits, but the batch has {counts} indices: call it once per view or "
        "with the whole batch; what drops samples on the way needs `index_key`."
    )
