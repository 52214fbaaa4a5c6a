"""Who changes the target at a criterion, and who looks at it."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.targets.call import TargetCall, TargetChanger, TargetMixer, TargetObserver
from lightning_noisy.targets.criterion import check_soft_targets


class TargetMembers:
    """The changers and observers at one criterion, in their order.

    Args:
        name: The criterion's name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.changers: list[TargetChanger] = []
        """They change the target one after another."""
        self.observers: list[TargetObserver] = []
        """They see what has come of it."""
        self.intervals: list[int] = []
        """Each observer looks at every so many batches of an epoch."""
        self.mixes = False
        """Whether somebody mixes samples."""

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.changers or self.observers)

    def __str__(self) -> str:
        """Their names."""
        return ", ".join(type(member).__name__ for member in (*self.changers, *self.observers))

    def add_changer(self, changer: TargetChanger, criterion: nn.Module | None) -> None:
        """Append a changer.

        Args:
            changer: The changer; one that is there already stays where it is.
            criterion: The criterion, None of a function.

        Raises:
            NoisyLabelError: A second one that replaces the target, or the criterion cannot take soft targets.
        """
        if any(changer is other for other in self.changers):
            return
        rival = next((other for other in self.changers if other.replaces_target), None)
        if changer.replaces_target and rival is not None:
            raise NoisyLabelError(
                f"{type(rival).__name__} and {type(changer).__name__} both replace the target of `{self.name}`: "
                "keep one."
            )
        if changer.makes_soft_targets:
            check_soft_targets(criterion, type(changer).__name__)
        self.changers.append(changer)
        self.mixes |= isinstance(changer, TargetMixer)

    def add_observer(self, observer: TargetObserver) -> None:
        """Append an observer; one that is there already stays where it is."""
        if not any(observer is other for other in self.observers):
            self.observers.append(observer)
            self.intervals.append(getattr(observer, "every_n_steps", 1))

    def mix(self, values: Tensor) -> Tensor:
        """Values of the batch's samples (B, ...), mixed as their targets are."""
        for changer in self.changers:
            values = changer.mix(values) if isinstance(changer, TargetMixer) else values
        return values

    @property
    def soft(self) -> list[str]:
        """Names of the changers that make soft targets."""
        return [type(changer).__name__ for changer in self.changers if changer.makes_soft_targets]


def no_target(changer: TargetChanger, changed: object, call: TargetCall) -> NoisyLabelError:
    """The error where a changer returns no target, or has written into the one before."""
    came = f"{changed.dtype} {tuple(changed.shape)}" if isinstance(changed, Tensor) else type(changed).__name__
    rows, classes = call.logits.shape
    return NoisyLabelError(
        f"{type(changer).__name__}.change_target has to return a new target, labels int64 ({rows},) or floating-point "
        f"rows ({rows}, {classes}), and to leave `call.target` as it is, but returned {came}."
    )
