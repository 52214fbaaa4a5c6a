"""Rows that travel between processes, in chunks of fixed size."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lightning_noisy.collectives import (
    communication_device,
    gather_tensors,
    largest_over_processes,
    process_count,
    process_rank,
    receive_from,
    send_to_first,
)

CHUNK_BYTES = 2**24
"""Bytes that are sent at once, and read at once from a store at an epoch's end."""


def rows_in_chunk(columns: Mapping[str, Tensor]) -> int:
    """How many rows of some columns are sent at once."""
    row_bytes = sum(column[:1].numel() * column.element_size() for column in columns.values())
    return max(1, CHUNK_BYTES // max(1, row_bytes))


def exchange(columns: Mapping[str, Tensor], writer: Tensor, mine: Tensor) -> None:
    """Give every process the rows that each process names, in place: a collective.

    Args:
        columns: What is kept of all samples, each (N, ...). Where two processes send a row all keep the same one.
        writer: Whose row it is, (N,).
        mine: The rows that this process sends, int64.
    """
    device, home = communication_device(), writer.device
    longest, chunk = largest_over_processes(mine.numel()), rows_in_chunk(columns)
    for start in range(0, longest, chunk):
        size = min(chunk, longest - start)
        rows = mine[start : start + size]
        index = torch.full((size,), -1, dtype=torch.int64, device=device)
        index[: rows.numel()] = rows.to(device)
        sent = [(numbers >= 0, numbers[numbers >= 0].to(home)) for numbers in gather_tensors(index)]
        for sender, (_, theirs) in enumerate(sent):
            writer[theirs] = sender
        for column in columns.values():
            values = torch.zeros((size, *column.shape[1:]), dtype=column.dtype, device=device)
            values[: rows.numel()] = column[rows].to(device)
            for (given, theirs), received in zip(sent, gather_tensors(values), strict=True):
                column[theirs] = received[given].to(home)


def gather_shards(columns: Mapping[str, Tensor], num_samples: int) -> dict[str, Tensor]:
    """The columns of all samples on rank 0, on the CPU, from processes that keep every W-th one: a collective.

    Args:
        columns: What this process keeps of samples r, r + W, ...
        num_samples: N.

    Returns:
        Columns (N, ...) on rank 0; what came on the others.
    """
    chunk, world = rows_in_chunk(columns), process_count()
    if process_rank() > 0:
        for column in columns.values():
            for part in torch.split(column, chunk):
                send_to_first(part)
        return dict(columns)
    whole = {name: column.new_empty((num_samples, *column.shape[1:]), device="cpu") for name, column in columns.items()}
    for name, column in whole.items():
        column[::world] = columns[name].cpu()
    for sender in range(1, world):
        for column in whole.values():
            for part in torch.split(column[sender::world], chunk):
                part.copy_(receive_from(sender, part))
    return whole
