"""What a run keeps, and when it begins, is shared, closes, is saved and loaded: all of it in one object."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lightning_noisy.checks import DeferredChecks
from lightning_noisy.data.batch import Batch
from lightning_noisy.data.origins import Origins
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.state.batch_listener import BatchListener
from lightning_noisy.state.open_batch import OpenBatch
from lightning_noisy.state.schedule_spans import ScheduleSpans
from lightning_noisy.state.section import Section, Stateful, say_what_is_missing
from lightning_noisy.state.training_set import TrainingSet


class RunState:
    """The one owner of what a run keeps: sections, deferred checks, the batch of now, seed and number of epochs.

    It knows nothing of a Trainer: :class:`~lightning_noisy.state.RunDriver` tells it what happens, in Lightning.
    """

    def __init__(self) -> None:
        self.sections: dict[str, Section] = {}
        """What each member keeps, by its key."""
        self.listeners: list[BatchListener] = []
        """Who acts inside training batches."""
        self.modes: list[TorchFunctionMode] = []
        """What is entered around each training step."""
        self.index_keys: set[str] = set()
        """Where they read the index, or which loaders they name; empty where the loaders' own way counts."""
        self.checks = DeferredChecks()
        """Conditions on tensors, read back at the next pause."""
        self.training_set: TrainingSet | None = None
        """The set of this run; None before training and where no section needs it."""
        self.labels: Tensor | None = None
        """Its given labels, int64 (N,), where they are known."""
        self.origins = Origins()
        """What its classes are called and where its samples come from; after a load the classes of the checkpoint."""
        self.learned_labels = Section("The training set", "labels")
        """Where they are not: the labels at each criterion, as they came the first time."""
        self.fresh = True
        """Whether the run has begun without a past."""
        self.seed = 0
        """Seed of the run's draws: that of the first start."""
        self.max_epochs: int | None = None
        """Number of epochs that the run was first started with; None or -1 without a limit."""
        self.spans = ScheduleSpans()
        """Number of epochs of each schedule."""
        self.open_batch = OpenBatch()
        """Which training batch is open, and whether its step runs again."""
        self.batch: Batch | None = None
        """The training batch of now, None outside."""
        self.open_epoch: int | None = None
        """The epoch that has begun and has no metrics yet."""
        self.prepared_epoch: int | None = None
        """The last epoch whose start was announced to the module."""
        self._loaded: dict[str, dict[str, Any]] = {}
        self._saved: set[str] | None = None
        self._begun = self._over = False

    @property
    def needs_index(self) -> bool:
        """Whether anybody asks which samples a batch has."""
        return bool(self.listeners) or any(section.per_sample for section in self.sections.values())

    def add(self, section: Section) -> None:
        """Own a section; one that is added again is the same.

        Raises:
            NoisyLabelError: Another one has its key.
        """
        if self._over:  # members of the fit, validation or test before this one
            self.sections, self._over = {}, False
        if self.sections.setdefault(section.key, section) is not section:
            raise NoisyLabelError(
                f"Two {section.owner} would keep the same state (`{section.key}`): keep one, or tell them apart by "
                "their arguments (`criterion`, `head`)."
            )
        section.follow(self.open_batch)
        if section.key in self._loaded:
            section.load_state_dict(self._loaded.pop(section.key))

    def begin(
        self,
        training_set: TrainingSet | None,
        labels: Tensor | None,
        fresh: bool,
        device: torch.device,
        seed: int,
        max_epochs: int | None,
    ) -> None:
        """Training starts.

        Args:
            training_set: The set of this run.
            labels: Its given labels, where they are known.
            fresh: The run starts at step 0: what an earlier run or a test of the same objects left is dropped.
            device: The accelerator; stores go there when they fit.
            seed: The run's seed, which counts at its first start.
            max_epochs: Its number of epochs, likewise.

        Raises:
            NoisyLabelError: The state belongs to another training set.
        """
        self.fresh = fresh
        if fresh:
            self._forget()
        if fresh or not self._begun:
            self.seed, self.max_epochs, self._begun = seed, max_epochs, True
        elif self.training_set is not None and training_set is not None:
            training_set.check_state_of(self.training_set)
        if training_set is not None and labels is None:
            self.add(self.learned_labels)
        self._say_what_is_missing()
        self.training_set, self.labels = training_set, labels
        for section in self.sections.values():
            section.begin(None if training_set is None else training_set.num_samples, device)

    def follow(self, training_set: TrainingSet, epoch: int) -> None:
        """An epoch begins with other loaders; another training set is refused."""
        assert self.training_set is not None
        training_set.check_epoch_of(self.training_set, epoch)

    def enter_batch(self, batch: Batch) -> None:
        """A training batch begins, and with the first one its epoch."""
        self.leave_batch()  # one that an exception or a skipped batch has left open
        self.open_epoch, self.batch = batch.epoch, batch
        self.open_batch.now = object()  # not the batch, whose images those that remember it would keep alive
        for part in self._parts():
            part.enter_batch()
        for listener in self.listeners:
            listener.enter_batch(batch)

    def end_batch(self) -> None:
        """A training batch has run to its end."""
        self.batch, self.open_batch.now, self.open_batch.repeated = None, None, False
        for part in self._parts():
            part.end_batch()
        for listener in self.listeners:
            listener.end_batch()

    def leave_batch(self) -> None:
        """Give an open training batch up: what it has written is taken back."""
        if self.batch is None:
            return
        for section in self.sections.values():
            section.take_back()
        self.batch, self.open_batch.now, self.open_batch.repeated = None, None, False
        for listener in self.listeners:
            listener.leave_batch()

    def step(self) -> ExitStack:
        """What is entered around a training step, and reaches the functions that it calls."""
        stack = ExitStack()
        for mode in self.modes:
            stack.enter_context(mode)
        return stack

    def finish(self) -> None:
        """Training has come to its end; a listener that had no part in it refuses it."""
        for listener in self.listeners:
            listener.finish()

    def share(self) -> None:
        """Bring what all processes know to rank 0, which writes checkpoints: a collective."""
        self.leave_batch()
        self.checks.settle()
        for section in self.sections.values():
            section.share()

    def close_epoch(self) -> dict[str, float]:
        """End the open epoch: the metrics of all sections; none where no batch has run. A collective."""
        self.leave_batch()
        self.checks.settle()
        if self.open_epoch is None:
            return {}
        metrics: dict[str, float] = {}
        for section in self.sections.values():
            metrics |= section.close(self.open_epoch)
        self.open_epoch = None
        return metrics

    def end(self) -> None:
        """The run is over, or has failed: nothing acts any more. What was kept can still be read and saved."""
        self.leave_batch()
        for listener in self.listeners:
            listener.detach()
        self.listeners, self.modes, self.index_keys = [], [], set()
        self._over = True

    def total_epochs(self, owner: str, given: int | None = None, key: str | None = None) -> int:
        """The number of epochs E of a schedule, see :meth:`ScheduleSpans.resolve`; a ``key`` of None is ``owner``."""
        return self.spans.resolve(owner if key is None else key, owner, given, self.max_epochs)

    def state_dict(self) -> dict[str, Any]:
        """Everything as plain values. Never a collective."""
        known = self.training_set
        return {
            "num_samples": known.num_samples if known else None,
            "labels_hash": known.labels_hash if known else None,
            "part_hash": known.part_hash if known else None,
            "class_names": self.origins.class_names and list(self.origins.class_names),
            "seed": self.seed,
            "max_epochs": self.max_epochs,
            "schedules": dict(self.spans.epochs),
            "open_epoch": self.open_epoch,
            "prepared_epoch": self.prepared_epoch,
            "sections": {
                key: section.state_dict()
                for key, section in self.sections.items()
                if section is not self.learned_labels or section.stores
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what was saved; whether it belongs to the training set is asked when training begins."""
        self.training_set = None
        if state["num_samples"] is not None:
            self.training_set = TrainingSet(state["num_samples"], state["labels_hash"], state["part_hash"])
        names = state.get("class_names")
        self.origins = Origins(class_names=names and tuple(names))
        self.seed, self.max_epochs = state["seed"], state["max_epochs"]
        self.spans.epochs = dict(state["schedules"])
        self.open_epoch, self.prepared_epoch = state["open_epoch"], state["prepared_epoch"]
        self._loaded, self._saved, self._begun = dict(state["sections"]), set(state["sections"]), True
        for key, section in self.sections.items():
            if key in self._loaded:
                section.load_state_dict(self._loaded.pop(key))

    def _parts(self) -> list[Stateful]:
        return [part for section in self.sections.values() for part in section.parts.values()]

    def _forget(self) -> None:
        for section in self.sections.values():
            section.reset()
        self.open_epoch = self.prepared_epoch = None
        self.spans.epochs, self._loaded, self._saved = {}, {}, None

    def _say_what_is_missing(self) -> None:
        """A resume with other members than those that were saved is allowed, and said."""
        new = set() if self._saved is None else self.sections.keys() - self._saved
        for key in new:
            self.sections[key].reset()  # an earlier run of the same objects may have left something
        say_what_is_missing(dropped=self._loaded, new=new - {self.learned_labels.key})
        self._loaded, self._saved = {}, None
