"""Loaders that save their position."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

from lightning_noisy.data.samplers import EpochSampler
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.private_api import saved_progress


class ResumableLoader(DataLoader[Any]):
    """A ``DataLoader`` over an :class:`EpochSampler` that saves how far training has come.

    Lightning saves and restores loaders that have ``state_dict`` and ``load_state_dict``, so training goes on at the
    next batch when it resumes in the middle of an epoch, and at the one that an exception has broken.
    """

    def __init__(self, dataset: Dataset[Any], **options: Any) -> None:
        super().__init__(dataset, **options)
        self._epoch = self._batches = 0

    def __iter__(self) -> PositionedIterator:  # type: ignore[override]
        return PositionedIterator(self)

    def begin(self) -> Iterator[Any]:
        """The batches from where the sampler starts."""
        if isinstance(self.sampler, EpochSampler):
            self._epoch, self._batches = self.sampler.epoch, self.sampler.skip // (self.batch_size or 1)
        return super().__iter__()

    def count(self) -> None:
        """A batch has been given."""
        self._batches += 1

    def state_dict(self) -> dict[str, Any]:
        """Epoch and position, and what the position depends on."""
        sampler = self.sampler
        if not isinstance(sampler, EpochSampler):
            return {}
        return {
            **sampler.state_dict(),
            "batches": self._position() if self._epoch == sampler.epoch else 0,
            "batch_size": self.batch_size or 1,
            "processes": sampler.num_replicas,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position.

        Raises:
            NoisyLabelError: It lies inside an epoch of another batch size, seed, number of processes or length.
        """
        sampler = self.sampler
        if not state or not isinstance(sampler, EpochSampler):
            return
        here = self.state_dict()
        for name in ("batch_size", "processes", "seed"):
            if state["batches"] > 0 and state[name] != here[name]:
                raise NoisyLabelError(
                    f"The checkpoint lies inside an epoch with {name}={state[name]}, this run has {here[name]}: "
                    "resume with the same value, or from a checkpoint of the end of an epoch."
                )
        sampler.load_state_dict(state, inside=state["batches"] > 0)
        if state["batches"] > len(self):
            raise NoisyLabelError(
                f"The checkpoint lies after batch {state['batches']} of an epoch, this run has {len(self)}: resume "
                "with the data that wrote it, or from a checkpoint of the end of an epoch."
            )
        self._epoch, self._batches = sampler.epoch, state["batches"]
        sampler.skip = self._batches * here["batch_size"]

    def _position(self) -> int:
        """Batches of the current pass that are over: under a Trainer those that have ended, else those fetched."""
        ended, mode = saved_progress() or (self._batches, "alone")
        if mode == "max_size_cycle" and ended > len(self):
            return ended % len(self)  # a shorter loader starts anew within the epoch
        return min(ended, len(self))


class PositionedIterator(Iterator[Any]):
    """Batches of a ResumableLoader, which begins when the first one is asked for.

    Lightning asks for the iterator before it sets the epoch, and workers would prefetch at once.

    Args:
        loader: The loader, which learns how far it has come.
    """

    def __init__(self, loader: ResumableLoader) -> None:
        self._loader = loader
        self.batches: Iterator[Any] | None = None
        """The iterator of the ``DataLoader``, from the first batch on."""

    def __next__(self) -> Any:
        if self.batches is None:
            self.batches = self._loader.begin()
        batch = next(self.batches)
        self._loader.count()
        return batch
