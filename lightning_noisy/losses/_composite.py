"""Losses made of losses."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.losses.base import NoisyLabelLoss


class CompositeLoss(NoisyLabelLoss):
    """Base of the losses that contain losses: its parts are the attributes that are modules.

    A part is a loss of this package, with parameters and memory of its own, or a torch criterion. What parts require,
    the whole requires; their tables are its own, under ``"<part>.<table>"``.
    """

    own_requires: ClassVar[tuple[str, ...]] = ()
    """Keywords that the loss requires beside those of its parts."""

    @property
    def requires(self) -> tuple[str, ...]:  # type: ignore[override]
        """The keywords of the loss itself and of its parts, each once."""
        of_parts = (name for loss in self.children() for name in getattr(loss, "requires", ()))
        return tuple(dict.fromkeys((*self.own_requires, *of_parts)))

    @property
    def soft_targets(self) -> bool:  # type: ignore[override]
        """Whether all parts take soft targets; a torch criterion is taken to."""
        return all(getattr(loss, "soft_targets", True) for loss in self.children())

    def bind(self, num_features: int, num_classes: int) -> None:
        """Make what depends on the network's size in all parts.

        Args:
            num_features: Width D of the network's features.
            num_classes: K.
        """
        for loss in self.children():
            if isinstance(loss, NoisyLabelLoss):
                loss.bind(num_features, num_classes)

    def memory_shapes(self, num_classes: int) -> dict[str, tuple[int, ...]]:
        """The tables of all parts.

        Args:
            num_classes: K.

        Returns:
            Their shapes, the names prefixed with that of the part and a dot.
        """
        return {
            f"{part}.{name}": shape
            for part, loss in self.named_children()
            if isinstance(loss, NoisyLabelLoss)
            for name, shape in loss.memory_shapes(num_classes).items()
        }

    def check_parts(self) -> None:
        """Refuse parts that cannot stand in the whole. To be called once they are set.

        Raises:
            NoisyLabelError: A part is a class, has another reduction than the whole, or none, or needs outputs of its
                own.
        """
        for part, made in vars(self).items():
            if isinstance(made, type):
                name = made.__name__
                raise NoisyLabelError(
                    f"Expected argument `{part}` to be a loss, but got the class {name}: make one, `{name}()`."
                )
        for part, loss in self.named_children():
            own = getattr(loss, "reduction", None)
            if own != self.reduction:
                raise NoisyLabelError(
                    f"Expected argument `{part}` to be a loss with reduction={self.reduction!r}, that of "
                    f"{type(self).__name__}, but got {type(loss).__name__} with reduction={own!r}: give both the same."
                )
            extra = getattr(loss, "extra_outputs", 0)
            check_argument(extra == 0, part, "a loss of K outputs", f"{type(loss).__name__} with {extra} more")

    def check_context(self, context: dict[str, Any]) -> None:
        """Refuse keywords that nobody requires.

        Raises:
            NoisyLabelError: There is one.
        """
        check_argument(set(context) <= set(self.requires), "context", f"keywords out of {self.requires}", [*context])

    def evaluate(self, part: str, logits: Tensor, target: Tensor, context: dict[str, Any]) -> Tensor:
        """What a part says of a batch, given its tables and the keywords it requires.

        Args:
            part: Name of the attribute.
            logits: Floating-point tensor (B, K).
            target: int64 labels (B,), or floating-point targets (B, K).
            context: At least the keywords that the part requires.

        Returns:
            Scalar, or (B,) without reduction.
        """
        loss = getattr(self, part)
        if isinstance(loss, NoisyLabelLoss):
            prefix = f"{part}."
            loss.memory |= {k.removeprefix(prefix): v for k, v in self.memory.items() if k.startswith(prefix)}
        value: Tensor = loss(
            logits, target, **{name: context[name] for name in getattr(loss, "requires", ()) if name in context}
        )
        return value
