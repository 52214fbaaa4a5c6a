"""Rows in shards, as a run has them: where they are allowed, and how a checkpoint gets all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lightning_noisy.collectives import process_count, process_rank
from lightning_noisy.data.sharded import ShardedSampler
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.state.section import Section


def check_shards(sections: Iterable[Section], loaders: Iterable[Any]) -> None:
    """Refuse rows in shards where processes do not train on samples of their own.

    Args:
        sections: What is kept.
        loaders: The training loaders.

    Raises:
        NoisyLabelError: There are several processes, shards, and a loader without a
            :class:`~lightning_noisy.data.ShardedSampler` of these processes.
    """
    owner = next((section.owner for section in sections if _is_sharded(section)), None)
    if owner is None or process_count() == 1:
        return
    samplers = [getattr(loader, "sampler", None) for loader in loaders]
    here = process_rank(), process_count()
    if not samplers or any(_shard_of(sampler) != here for sampler in samplers):
        found = ", ".join(type(sampler).__name__ for sampler in samplers) or "none that is known"
        raise NoisyLabelError(
            f"{owner} keeps its rows in shards, so each process has to train on samples of its own, but the sampler is "
            f"{found}: give the training loader a `ShardedSampler`, or a data module `sharded=True`."
        )


def gather_rows_of(sections: Mapping[str, Section], saved: Mapping[str, Any]) -> None:
    """Put the rows of all processes into rank 0's saved sections: a collective where there are shards.

    Args:
        sections: What is kept, by key.
        saved: The state of each, by key.
    """
    for key, section in sections.items():
        for name, store in section.stores.items():
            if store.shard.count > 1:
                saved[key]["stores"][name] = store.whole_state()


def _is_sharded(section: Section) -> bool:
    return any(storage.sharded for storage in (section.storage, *section.storages.values()))


def _shard_of(sampler: Any) -> tuple[int, int] | None:
    return (sampler.rank, sampler.num_replicas) if isinstance(sampler, ShardedSampler) else None
