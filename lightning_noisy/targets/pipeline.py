"""The pipeline at a criterion: given target -> changers -> final target, with observers.

One mechanism for our module and for foreign ones: a forward pre-hook on the criterion, or a mode that sees which
functions a step calls, so that nothing else of a project has to change.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any
from weakref import ref

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_noisy.checks import check_not_compiled
from lightning_noisy.data.batch import Batch, IndexKey
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.state import RunState
from lightning_noisy.targets.batch_check import BatchCheck
from lightning_noisy.targets.call import TargetCall, TargetChanger, TargetObserver, changed
from lightning_noisy.targets.called_rows import CalledRows
from lightning_noisy.targets.criterion import check_soft_targets, find_criterion, missing_context, try_soft_targets
from lightning_noisy.targets.functional_criterion import FunctionalCriterion
from lightning_noisy.targets.module_criterion import ModuleCriterion
from lightning_noisy.targets.signature import BoundCall


class TargetPipeline:
    """Changers and observers at one criterion.

    It acts inside training batches alone. The first call of the criterion in a batch counts; further calls of the same
    batch (a second optimizer pass, a second view) get the same target and write nothing. So the criterion is to be
    called with the whole batch, per sample; selection comes after it.

    Args:
        run: The run it acts in; it listens to its batches until the run ends.
        criterion: What is called with logits and target.
        root: The LightningModule, or the module that a loop of one's own trains.
    """

    def __init__(self, run: RunState, criterion: ModuleCriterion | FunctionalCriterion, root: nn.Module) -> None:
        self.run = run
        self.name = criterion.name
        """The criterion's name."""
        self.index_key: IndexKey = None
        """Where its members read the index."""
        self.check_labels = True
        """Whether the labels at the criterion are held to those of the samples that the index names."""
        self._place = criterion
        self._root = ref(root)
        self._changers: list[TargetChanger] = []
        self._observers: list[TargetObserver] = []
        self._batch: Batch | None = None
        self._rows = CalledRows(run, self.name)
        self._check = BatchCheck(run, self.name)
        self._given: Tensor | None = None
        self._final: Tensor | None = None
        self._batches = self._calls = 0

        # Closures over a weak reference: deep copies of the criterion carry them along.
        pipeline = ref(self)

        def change(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
            alive = pipeline()
            return (args, kwargs) if alive is None or alive._batch is None else alive._change(args, kwargs)

        if isinstance(criterion, ModuleCriterion):
            self._detach = criterion.attach(change)
        else:
            mode = criterion.mode(change)
            run.modes.append(mode)
            self._detach = partial(run.modes.remove, mode)
        run.listeners.append(self)

    @property
    def criterion(self) -> nn.Module | None:
        """The module; None when it is gone, and of a function."""
        return self._place.module

    @classmethod
    def at(
        cls,
        run: RunState,
        root: nn.Module,
        name: str | None,
        index_key: IndexKey = None,
        check_labels: bool = True,
    ) -> TargetPipeline:
        """The run's pipeline at a criterion, made now if there is none.

        Args:
            run: The run.
            root: The LightningModule.
            name: The criterion's name, see :func:`~lightning_noisy.targets.find_criterion`.
            index_key: Where a member reads the index; None goes with the others.
            check_labels: Whether labels are held to those of the samples; not if one member says so.

        Raises:
            NoisyLabelError: There is no such module, or another member reads the index elsewhere.
        """
        place = find_criterion(root, name)
        check_not_compiled(root, place.module, place.name)
        there = (member for member in run.listeners if isinstance(member, cls) and place.same(member._place))
        pipeline = next(there, None) or cls(run, place, root)
        if index_key is not None and pipeline.index_key not in (None, index_key):
            raise NoisyLabelError(
                f"Two callbacks at `{place.name}` read the index at {pipeline.index_key!r} and at {index_key!r}: give "
                "one `index_key`."
            )
        pipeline.index_key = pipeline.index_key if index_key is None else index_key
        pipeline.check_labels &= check_labels
        if isinstance(pipeline.index_key, (int, str)):
            run.index_keys.add(str(pipeline.index_key))
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
        """A training batch begins."""
        self._given = self._final = None
        self._batch = batch
        self._rows.enter_batch(batch, self.index_key)

    def leave_batch(self) -> None:
        """The training batch was given up."""
        self._batch = self._given = self._final = None
        self._rows.leave_batch()
        self._place.leave()

    def end_batch(self) -> None:
        """The training batch has ended; a step may leave the criterion out."""
        self.leave_batch()
        self._batches += 1
        if self._batches == 1 and self._calls == 0 and self._members:
            rank_zero_warn(
                f"The first training step has not called `{self.name}`{self._hint}: {self._members} wait until one "
                "does."
            )

    def finish(self) -> None:
        """Training has come to its end.

        Raises:
            NoisyLabelError: No training step has called the criterion.
        """
        if self._batches > 0 and self._calls == 0 and self._members:
            raise NoisyLabelError(
                f"No training step has called `{self.name}`{self._hint}, so {self._members} did nothing: name the "
                "criterion by `criterion`."
            )

    def detach(self) -> None:
        """Take the hook off the criterion."""
        self.leave_batch()
        self._detach()

    @property
    def _members(self) -> str:
        return ", ".join(type(member).__name__ for member in (*self._changers, *self._observers))

    @property
    def _hint(self) -> str:
        return "" if isinstance(self._place, ModuleCriterion) else " with logits that have a gradient"

    def _change(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        lacking = missing_context(self.criterion, kwargs)
        if not lacking and self._final is not None and not self._changers:
            return args, kwargs
        call = self._place.signature.bind(args, kwargs)
        if self._final is None:
            self._given, self._final = call.target, self._first(call)
        else:
            self._check_repeated(call.target)
        if not lacking and not self._changers:
            return args, kwargs
        return call.with_target(self._final, **self._context(lacking, len(call.logits)))

    def _first(self, call: BoundCall) -> Tensor:
        """The final target of the batch's first call."""
        assert self._batch is not None
        soft = next((changer for changer in self._changers if changer.makes_soft_targets), None)
        if self._calls == 0 and soft is not None:
            try_soft_targets(self.criterion, call, type(soft).__name__)
        self._calls += 1
        if not self._members:
            return call.target
        logits, given = call.logits.detach(), call.target
        index = self._rows.of_call(len(logits)).to(logits.device)
        self._check(self._batch, index, logits, given, self.check_labels)
        labels = given.long().clamp(0, logits.shape[1] - 1)
        seen = TargetCall(index, logits, labels, labels, self._batch.epoch, call.context)
        with torch.no_grad():
            seen, target = changed(seen, self._changers)
            self._place.enter(target)
            for observer in self._observers:
                observer.observe_target(seen)
        return seen.target

    def _context(self, names: Collection[str], rows: int) -> dict[str, Any]:
        """What a loss of ours requires and the project does not pass."""
        if not names:
            return {}
        batch, loss, root = self._batch, self.criterion, self._root()
        assert batch is not None
        assert root is not None
        offers: dict[str, Callable[[], Any]] = {
            "index": lambda: self._rows.of_call(rows),
            "epoch": lambda: batch.epoch,
            "total_epochs": lambda: self.run.total_epochs(type(loss).__name__, getattr(loss, "total_epochs", None)),
            "parameters": root.parameters,
        }
        return {name: offers[name]() for name in names}

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
