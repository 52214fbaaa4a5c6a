"""The pipeline at a criterion: given target -> changers -> final target, with observers.

One mechanism for our module and for foreign ones: a forward pre-hook on the criterion, so that nothing else of a
project has to change.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from lightning_noisy.checks import DeferredChecks, check_labels, check_not_compiled
from lightning_noisy.errors import NoisyLabelError

CRITERION_NAMES = ("loss", "criterion")
_TWO_LINES = (
    "make it a submodule, `self.criterion = nn.CrossEntropyLoss()` in __init__ and "
    "`loss = self.criterion(logits, target)` in training_step, or give its dotted name as `criterion`"
)


@dataclass(frozen=True)
class TargetCall:
    """What stands at the criterion in one training batch."""

    index: Tensor
    """Dataset indices, int64 (B,)."""

    logits: Tensor
    """Detached logits (B, K), as the criterion gets them."""

    given: Tensor
    """The target that the project passed: int64 (B,)."""

    target: Tensor
    """The target so far; for observers the final one: int64 (B,) or soft (B, K)."""

    epoch: int
    """Epoch number, from 0."""

    context: Mapping[str, Any] = field(default_factory=dict)
    """What else the criterion was called with, by the names of its arguments: ``features`` and the like."""

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return self.logits.shape[1]

    @property
    def probabilities(self) -> Tensor:
        """softmax(logits), float32 (float64 of float64 logits), shape (B, K)."""
        wide = self.logits if self.logits.dtype == torch.float64 else self.logits.float()
        return wide.softmax(dim=1)


@runtime_checkable
class AttentiveCriterion(Protocol):
    """A criterion that pays more attention to one sample than to another."""

    def sample_attention(self, logits: Tensor, **context: Any) -> Tensor:
        """The attention (B,), in [0, 1], for logits (B, K) and what else the criterion is called with."""
        ...


class TargetChanger(Protocol):
    """Changes the target of a batch, once, before the criterion sees it."""

    replaces_target: bool
    """The given target does not enter the result as such; two of these on one criterion are an error."""

    makes_soft_targets: bool
    """The result may be soft (B, K)."""

    def change_target(self, call: TargetCall) -> Tensor:
        """The new target; may write rows of per-sample state."""
        ...


class TargetObserver(Protocol):
    """Sees given and final target of every batch, and changes nothing."""

    def observe_target(self, call: TargetCall) -> None:
        """Look; may write rows of per-sample state."""
        ...


class TargetPipeline:
    """Changers and observers at one criterion.

    Active between :meth:`open` and :meth:`close`, that is inside a training batch. The first call of the criterion in a
    batch counts; further calls of the same batch (a second optimizer pass, a second view) get the same target and write
    nothing.

    Args:
        criterion: The module whose first two arguments are logits and target.
        name: Its name, for messages.
    """

    def __init__(self, criterion: nn.Module, name: str) -> None:
        self.name = name
        self.checks = DeferredChecks()
        self._signature = inspect.signature(criterion.forward)
        self._criterion = ref(criterion)
        self._changers: list[TargetChanger] = []
        self._observers: list[TargetObserver] = []
        self._index: Tensor | None = None
        self._epoch = self._batch_idx = 0
        self._given: Tensor | None = None
        self._final: Tensor | None = None
        self._labels: Tensor | None = None
        self._seen = False

        # A closure over a weak reference: deep copies of the criterion carry it along, and it passes them by.
        pipeline = ref(self)

        def change(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            alive = pipeline()
            active = alive is not None and alive._index is not None and module is alive._criterion()
            return alive._change(args, kwargs) if alive is not None and active else None

        self._handle = criterion.register_forward_pre_hook(change, with_kwargs=True)

    @property
    def criterion(self) -> nn.Module | None:
        """The module, None when it is gone."""
        return self._criterion()

    @classmethod
    def of(cls, root: nn.Module, name: str | None) -> TargetPipeline:
        """The pipeline at a criterion, made now if there is none.

        Args:
            root: The LightningModule.
            name: Dotted name of the criterion; None takes the first of ``loss``, ``criterion`` that exists.

        Raises:
            NoisyLabelError: There is no such module.
        """
        names = CRITERION_NAMES if name is None else (name,)
        submodules = dict(root.named_modules(remove_duplicate=False))
        found = next((candidate for candidate in names if candidate in submodules), None)
        if found is None:
            wanted = " or ".join(f"`{candidate}`" for candidate in names)
            raise NoisyLabelError(f"{type(root).__name__} has no criterion module {wanted}: {_TWO_LINES}.")
        criterion = submodules[found]
        check_not_compiled(root, criterion, found)
        if criterion not in _PIPELINES:
            _PIPELINES[criterion] = cls(criterion, found)
        return _PIPELINES[criterion]

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
            self._check_soft(type(changer).__name__)
        self._changers.append(changer)

    def add_observer(self, observer: TargetObserver) -> None:
        """Append an observer."""
        if not any(observer is other for other in self._observers):
            self._observers.append(observer)

    def remove(self, member: object) -> None:
        """Take a changer or observer out; the last one takes the hook with it."""
        self._changers = [other for other in self._changers if other is not member]
        self._observers = [other for other in self._observers if other is not member]
        criterion = self.criterion
        if not self._changers and not self._observers and criterion is not None:
            self.close()
            self._handle.remove()
            _PIPELINES.pop(criterion, None)

    def open(self, index: Tensor, epoch: int, batch_idx: int, num_samples: int, labels: Tensor | None = None) -> None:
        """Begin a training batch. Several members may call it; the first counts.

        Args:
            index: int64 (B,).
            epoch: Epoch number, from 0.
            batch_idx: Batch number in the epoch, from 0.
            num_samples: Size N of the training set.
            labels: The training set's labels (N,), where they are known, to check them against the logits' width.

        Raises:
            NoisyLabelError: An index lies outside [0, N).
        """
        if self._index is not None and (epoch, batch_idx) == (self._epoch, self._batch_idx):
            same = self._index.shape == index.shape and (self._index == index.to(self._index.device)).all()
            self.checks.require(
                torch.as_tensor(same),
                lambda: f"Two callbacks at `{self.name}` read different indices: give one `index_key`.",
            )
            return
        self._epoch, self._batch_idx, self._labels = epoch, batch_idx, labels
        self._given = self._final = None
        self._index = index.clamp(0, num_samples - 1)
        self.checks.require(
            (self._index == index).all(),
            lambda: (
                f"Expected indices in [0, {num_samples}), but the batch has {int(index.min())} to {int(index.max())}: "
                "wrap the training set that the loader reads in `IndexedDataset`, not the set inside a Subset."
            ),
        )

    def close(self) -> None:
        """End the training batch."""
        self._index = self._given = self._final = self._labels = None

    def check_called(self) -> None:
        """Refuse a training step that does not use the criterion.

        Raises:
            NoisyLabelError: No training batch has called it so far.
        """
        if not self._seen:
            raise NoisyLabelError(f"The training step did not call `{self.name}`, so its target cannot be changed.")

    def _change(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        bound, logits_name, target_name = self._bind(args, kwargs)
        logits, given = bound.arguments[logits_name], bound.arguments[target_name]
        if self._final is None:
            self._check_rows(logits, given)
            others = {name: bound.arguments[name] for name in self._names() if name in bound.arguments} | bound.kwargs
            context = {name: value for name, value in others.items() if name not in (logits_name, target_name)}
            self._given, self._final = given, self._run(logits.detach(), given, context)
        elif self._changers:
            self._check_repeated(logits, given)
        if not self._changers:
            return args, kwargs
        bound.arguments[target_name] = self._final
        return bound.args, bound.kwargs

    def _run(self, logits: Tensor, given: Tensor, context: Mapping[str, Any]) -> Tensor:
        assert self._index is not None
        index = self._index.to(logits.device)
        self._check_values(index, logits, given)
        labels = given.long().clamp(0, logits.shape[1] - 1)
        call = TargetCall(index, logits, labels, labels, self._epoch, context)
        with torch.no_grad():
            for changer in self._changers:
                call = replace(call, target=changer.change_target(call))
            for observer in self._observers:
                observer.observe_target(call)
        return call.target

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[inspect.BoundArguments, str, str]:
        bound = self._signature.bind(*args, **kwargs)
        names = self._names()
        if len(names) < 2 or names[0] not in bound.arguments or names[1] not in bound.arguments:
            raise NoisyLabelError(
                f"Expected `{self.name}` to be called as criterion(logits, target), but its forward is "
                f"{self._signature}."
            )
        return bound, names[0], names[1]

    def _names(self) -> list[str]:
        """Names of the criterion's arguments."""
        variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return [name for name, parameter in self._signature.parameters.items() if parameter.kind not in variadic]

    def _check_rows(self, logits: Tensor, given: Tensor) -> None:
        assert self._index is not None
        if logits.ndim != 2 or logits.shape[1] < 2:
            raise NoisyLabelError(
                f"Expected `{self.name}` to get logits (B, K) with K >= 2 classes, but got {tuple(logits.shape)}."
            )
        if len(logits) != len(self._index):
            raise NoisyLabelError(
                f"`{self.name}` was called with {len(logits)} rows of logits, but the batch has {len(self._index)} "
                "indices: call it once per view or with the whole batch."
            )
        if given.ndim != 1 or given.is_floating_point():
            raise NoisyLabelError(
                f"Expected `{self.name}` to get labels (B,) of integers, but got {given.dtype} {tuple(given.shape)}."
            )

    def _check_repeated(self, logits: Tensor, given: Tensor) -> None:
        """A later call of a batch must be about the same labels, since it gets the same target."""
        self._check_rows(logits, given)
        assert self._given is not None
        self.checks.require(
            (given == self._given).all(),
            lambda: (
                f"`{self.name}` was called twice in a batch with different labels (mixup? a second head?): its target "
                "is changed once a batch; give the other use a criterion of its own."
            ),
        )

    def _check_values(self, index: Tensor, logits: Tensor, given: Tensor) -> None:
        epoch, batch_idx, num_classes, name = self._epoch, self._batch_idx, logits.shape[1], self.name
        if not self._seen and self._labels is not None:
            check_labels(self._labels, num_classes, "the training labels")
        self._seen = True
        self.checks.require(
            ((given >= 0) & (given < num_classes)).all(),
            lambda: (
                f"Expected labels in [0, {num_classes}) at `{name}`, but the batch has {int(given.min())} to "
                f"{int(given.max())}."
            ),
        )
        finite = logits.isfinite().all(dim=1)
        self.checks.require(
            finite.all(),
            lambda: (
                f"The logits are not finite in epoch {epoch}, batch {batch_idx}, samples "
                f"{index[~finite].tolist()[:8]}: lower the learning rate or look at these inputs."
            ),
        )

    def _check_soft(self, changer: str) -> None:
        criterion = self.criterion
        hard_only = isinstance(criterion, (nn.NLLLoss, nn.MultiMarginLoss)) or not getattr(
            criterion, "soft_targets", True
        )
        ignores = getattr(criterion, "ignore_index", -100) >= 0
        if hard_only or ignores:
            why = "its `ignore_index` has no meaning for them" if ignores else "it takes class indices only"
            raise NoisyLabelError(
                f"{changer} makes soft targets, but {type(criterion).__name__} cannot take them: {why}; "
                "use `nn.CrossEntropyLoss()` or a loss with `soft_targets`."
            )


_PIPELINES: WeakKeyDictionary[nn.Module, TargetPipeline] = WeakKeyDictionary()
