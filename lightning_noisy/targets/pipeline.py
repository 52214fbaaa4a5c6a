"""The pipeline at a criterion: given target -> changers -> final target, with observers.

One mechanism for our module and for foreign ones: a forward pre-hook on the criterion, so that nothing else of a
project has to change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn

from lightning_noisy.checks import check_labels, check_not_compiled
from lightning_noisy.data.batch import Batch, IndexKey
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses.class_weights import SoftClassWeights
from lightning_noisy.state import RunState
from lightning_noisy.targets.call import TargetCall, TargetChanger, TargetObserver, changed
from lightning_noisy.targets.criterion import check_soft_targets, find_criterion
from lightning_noisy.targets.signature import CriterionSignature


class TargetPipeline:
    """Changers and observers at one criterion.

    It acts inside training batches alone. The first call of the criterion in a batch counts; further calls of the same
    batch (a second optimizer pass, a second view) get the same target and write nothing. So the criterion is to be
    called with the whole batch, per sample; selection comes after it.

    Args:
        run: The run it acts in; it listens to its batches until the run ends.
        criterion: The module whose first two arguments are logits and target.
        name: Its name, for messages.
    """

    def __init__(self, run: RunState, criterion: nn.Module, name: str) -> None:
        self.run = run
        self.name = name
        self.index_key: IndexKey = None
        """Where its members read the index."""
        self._signature = CriterionSignature(criterion, name)
        self._criterion = ref(criterion)
        self._changers: list[TargetChanger] = []
        self._observers: list[TargetObserver] = []
        self._batch: Batch | None = None
        self._given_parts: dict[str, Tensor] = {}
        self._parts: dict[str, Tensor] = {}
        self._given: Tensor | None = None
        self._final: Tensor | None = None
        self._seen = False
        self._class_weights = SoftClassWeights(criterion)

        # A closure over a weak reference: deep copies of the criterion carry it along, and it passes them by.
        pipeline = ref(self)

        def change(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            alive = pipeline()
            active = alive is not None and alive._batch is not None and module is alive._criterion()
            return alive._change(args, kwargs) if alive is not None and active else None

        self._handle = criterion.register_forward_pre_hook(change, with_kwargs=True)
        run.listeners.append(self)

    @property
    def criterion(self) -> nn.Module | None:
        """The module, None when it is gone."""
        return self._criterion()

    @classmethod
    def at(cls, run: RunState, root: nn.Module, name: str | None, index_key: IndexKey = None) -> TargetPipeline:
        """The run's pipeline at a criterion, made now if there is none.

        Args:
            run: The run.
            root: The LightningModule.
            name: Dotted name of the criterion; None takes the first of ``loss``, ``criterion`` that exists.
            index_key: Where a member reads the index; None goes with the others.

        Raises:
            NoisyLabelError: There is no such module, or another member reads the index elsewhere.
        """
        found, criterion = find_criterion(root, name)
        check_not_compiled(root, criterion, found)
        there = (member for member in run.listeners if isinstance(member, cls) and member.criterion is criterion)
        pipeline = next(there, None) or cls(run, criterion, found)
        if index_key is not None and pipeline.index_key not in (None, index_key):
            raise NoisyLabelError(
                f"Two callbacks at `{found}` read the index at {pipeline.index_key!r} and at {index_key!r}: give one "
                "`index_key`."
            )
        pipeline.index_key = pipeline.index_key if index_key is None else index_key
        return pipeline

    def add_changer(self, changer: TargetChanger) -> None:
        """Append a changer.

        Raises:
            NoisyLabelError: A second one that replaces the target, or the criterion cannot take soft targets.
        """
        if any(changer is other for other in self._changers):
            return
        rival = next((other for other in self._changers if other.replaces_target), None)
        if changer.replaces_target and rival is not None:
            raise NoisyLabelError(
                f"{type(rival).__name__} and {type(changer).__name__} both replace the target of `{self.name}`: "
                "keep one."
            )
        if changer.makes_soft_targets:
            check_soft_targets(self.criterion, type(changer).__name__)
        self._changers.append(changer)

    def add_observer(self, observer: TargetObserver) -> None:
        """Append an observer."""
        if not any(observer is other for other in self._observers):
            self._observers.append(observer)

    def enter_batch(self, batch: Batch) -> None:
        """A training batch begins.

        Raises:
            NoisyLabelError: It has no index, or one that lies outside [0, N).
        """
        self._given = self._final = None
        self._batch = batch
        self._given_parts = batch.indices(self.index_key)
        self._parts = {name: self._inside(index) for name, index in self._given_parts.items()}

    def leave_batch(self) -> None:
        """The training batch was given up."""
        self._batch = self._given = self._final = None
        self._given_parts, self._parts = {}, {}
        self._class_weights.leave()

    def end_batch(self) -> None:
        """The training batch has ended.

        Raises:
            NoisyLabelError: No training step has called the criterion so far.
        """
        self.leave_batch()
        if not self._seen:
            raise NoisyLabelError(f"The training step did not call `{self.name}`, so its target cannot be changed.")

    def detach(self) -> None:
        """Take the hook off the criterion."""
        self.leave_batch()
        self._handle.remove()

    def _inside(self, index: Tensor) -> Tensor:
        """An index of which nothing is read outside the stores, whatever it holds."""
        training_set = self.run.training_set
        assert training_set is not None
        kept = index.clamp(0, training_set.num_samples - 1)
        self.run.checks.require(
            (kept == index).all(),
            lambda: (
                f"Expected indices in [0, {training_set.num_samples}), but the batch has {int(index.min())} to "
                f"{int(index.max())}: wrap the set that the loader reads in `IndexedDataset`; a part of it is a "
                "`Subset(IndexedDataset(train_set), ...)`, or a Subset that is wrapped."
            ),
        )
        return kept

    def _index(self, rows: int) -> Tensor:
        """The index of a call with this many rows.

        Raises:
            NoisyLabelError: No part of the batch has as many, or several have.
        """
        assert self._batch is not None
        called = self._batch.called
        if called is not None:
            known = [self._parts[name] for name, index in self._given_parts.items() if index is called]
            return known[0] if known else self._inside(called)
        parts = list(self._parts.values())
        fitting = [index for index in parts if len(index) == rows]
        if len(parts) > 1 and sum(map(len, parts)) == rows:
            fitting.append(torch.cat(parts))
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise NoisyLabelError(
                f"`{self.name}` was called with {rows} rows of logits, as many as several loaders give "
                f"({', '.join(self._parts)}): name the one it is called with by `index_key`."
            )
        counts = " + ".join(str(len(index)) for index in parts)
        raise NoisyLabelError(
            f"`{self.name}` was called with {rows} rows of logits, but the batch has {counts} indices: call it once "
            "per view or with the whole batch."
        )

    def _change(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self._final is not None and not self._changers:
            return args, kwargs
        call = self._signature.bind(args, kwargs)
        if self._final is None:
            self._given, self._final = call.target, self._run(call.logits.detach(), call.target, call.context)
        else:
            self._check_repeated(call.target)
        if not self._changers:
            return args, kwargs
        call.arguments.arguments[call.target_name] = self._final
        return call.arguments.args, call.arguments.kwargs

    def _run(self, logits: Tensor, given: Tensor, context: Mapping[str, Any]) -> Tensor:
        assert self._batch is not None
        index = self._index(len(logits)).to(logits.device)
        self._check_values(self._batch, index, logits, given)
        labels = given.long().clamp(0, logits.shape[1] - 1)
        call = TargetCall(index, logits, labels, labels, self._batch.epoch, context)
        with torch.no_grad():
            call, soft = changed(call, self._changers)
            self._class_weights.enter(soft)
            for observer in self._observers:
                observer.observe_target(call)
        return call.target

    def _check_repeated(self, given: Tensor) -> None:
        """A later call of a batch must be about the same labels, since it gets the same target."""
        assert self._given is not None
        same = given.shape == self._given.shape and (given == self._given).all()
        self.run.checks.require(
            torch.as_tensor(same),
            lambda: (
                f"`{self.name}` was called twice in a batch with different labels (mixup? a second head?): its target "
                "is changed once a batch; give the other use a criterion of its own."
            ),
        )

    def _check_values(self, batch: Batch, index: Tensor, logits: Tensor, given: Tensor) -> None:
        epoch, batch_idx, num_classes, name = batch.epoch, batch.batch_idx, logits.shape[1], self.name
        if not self._seen and self.run.labels is not None:
            check_labels(self.run.labels, num_classes, "the training labels")
        self._seen = True
        inside, finite = (given >= 0) & (given < num_classes), logits.isfinite().all(dim=1)
        self.run.checks.require(
            (inside & finite).all(),
            lambda: (
                f"The logits are not finite in epoch {epoch}, batch {batch_idx}, samples "
                f"{index[~finite].tolist()[:8]}: lower the learning rate or look at these inputs."
                if inside.all()
                else f"Expected labels in [0, {num_classes}) at `{name}`, but the batch has {int(given.min())} to "
                f"{int(given.max())}."
            ),
        )
