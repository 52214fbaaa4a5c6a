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

from lightning_noisy.checks import check_not_compiled
from lightning_noisy.data.batch import Batch, IndexKey
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses.class_weights import SoftClassWeights
from lightning_noisy.state import RunState
from lightning_noisy.targets.batch_check import BatchCheck
from lightning_noisy.targets.call import TargetCall, TargetChanger, TargetObserver, changed
from lightning_noisy.targets.called_rows import CalledRows
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
        self.check_labels = True
        """Whether the labels at the criterion are held to those of the samples that the index names."""
        self._signature = CriterionSignature(criterion, name)
        self._criterion = ref(criterion)
        self._changers: list[TargetChanger] = []
        self._observers: list[TargetObserver] = []
        self._batch: Batch | None = None
        self._rows = CalledRows(run, name)
        self._check = BatchCheck(run, name)
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
            name: Dotted name of the criterion; None takes the first of ``loss``, ``criterion`` that exists.
            index_key: Where a member reads the index; None goes with the others.
            check_labels: Whether labels are held to those of the samples; not if one member says so.

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
        """A training batch begins.

        Raises:
            NoisyLabelError: It has no index, or one that lies outside [0, N).
        """
        self._given = self._final = None
        self._batch = batch
        self._rows.enter_batch(batch, self.index_key)

    def leave_batch(self) -> None:
        """The training batch was given up."""
        self._batch = self._given = self._final = None
        self._rows.leave_batch()
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
        self._seen = True
        index = self._rows.of_call(len(logits)).to(logits.device)
        self._check(self._batch, index, logits, given, self.check_labels)
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
