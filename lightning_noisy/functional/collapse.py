"""Classes that a network has given up."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from lightning_noisy.errors import printable

LEAST_SHARE = 0.1
"""A class that is predicted for fewer than this share of its labels counts as given up."""
LEAST_LABELS = 5
"""A class of fewer labels is not judged."""


@runtime_checkable
class SeesLostClasses(Protocol):
    """A module that knows which classes its last evaluation has given up; one of any project can."""

    def lost_classes_line(self) -> str | None:
        """What a user is told of them, see :func:`collapse_message`; None where there is nothing to say."""
        ...


def collapsed_classes(predicted: Tensor, given: Tensor) -> list[int]:
    """Classes that have labels and are never, or almost never, predicted.

    A class counts where it is predicted fewer times than a tenth of its number of labels. Noise alone moves the counts
    much less: with 40 % of the labels moved to other classes, predictions of the right class are still more than half.
    Rare classes, of fewer than 5 labels or than a tenth of the mean class, are not judged: of a long tail some are
    never predicted by any network.

    Args:
        predicted: How often each class was predicted, (K,), over the samples of ``given``.
        given: How often each class is given, (K,).
    """
    present = given[given > 0].double()
    least = max(LEAST_LABELS, LEAST_SHARE * present.mean().item()) if len(present) else 1
    lost = (given >= least) & (predicted.double() < LEAST_SHARE * given.double())
    return [int(label) for label in lost.nonzero().squeeze(1)]


def collapse_message(lost: list[int], share: float, names: list[str] | None = None) -> str:
    """What a user is told of such classes.

    Args:
        lost: The classes.
        share: Of all labels that are theirs, in [0, 1].
        names: What all classes are called; None: numbers.
    """
    called = [str(label) if names is None else printable(names[label]) for label in lost]
    shown = ", ".join(called[:10]) + (f" and {len(called) - 10} more" if len(called) > 10 else "")
    classes = "class is" if len(lost) == 1 else "classes are"
    return (
        f"{len(lost)} {classes} (almost) never predicted, though {share:.0%} of the labels are theirs: {shown}. "
        "Do not trust what this run says of their labels; try early-learning regularization, a lower learning rate, or "
        "a longer warm-up."
    )
