"""Losses made of losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.errors import check_argument
from lightning_noisy.losses._store import Store
from lightning_noisy.losses.base import NoisyLabelLoss
from lightning_noisy.losses.sample_losses import check_criterion, losses_of_samples
from lightning_noisy.storage import Storage


class CompositeLoss(NoisyLabelLoss):
    """Base of the losses that contain losses: its parts are the attributes that are modules.

    A part is a loss of this package, with parameters and memory of its own, or a torch criterion, of any reduction:
    what counts is that of the whole. What parts require, the whole requires; their stores are its own, under
    ``"<part>.<store>"``. A part whose mean is weighted keeps it.
    """

    own_requires: ClassVar[tuple[str, ...]] = ()
    """Keywords that the loss requires beside those of its parts: those in the signature of :meth:`losses`."""

    _left_to_parts = True

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.own_requires = tuple(cls._optional)

    @property
    def requires(self) -> tuple[str, ...]:  # type: ignore[override]
        """The keywords of the loss itself and of its parts, each once."""
        of_parts = (name for loss in self.parts().values() for name in getattr(loss, "requires", ()))
        return tuple(dict.fromkeys((*self.own_requires, *of_parts)))

    @property
    def soft_targets(self) -> bool:  # type: ignore[override]
        """Whether all parts take soft targets; a torch criterion is taken to."""
        return all(getattr(loss, "soft_targets", True) for loss in self.parts().values())

    @property
    def sample_values(self) -> bool:  # type: ignore[override]
        """Whether all parts have values of samples."""
        return all(getattr(loss, "sample_values", True) for loss in self.parts().values())

    def parts(self) -> dict[str, nn.Module]:
        """The losses in the loss, by name; those in a list by its name and their number."""
        parts: dict[str, nn.Module] = {}
        for name, child in self.named_children():
            if isinstance(child, nn.ModuleList):
                parts |= {f"{name}.{number}": loss for number, loss in enumerate(child)}
            else:
                parts[name] = child
        return parts

    @override
    def bind(self, num_features: int, num_classes: int) -> None:
        """Make what depends on the network's size in all parts.

        Args:
            num_features: Width D of the network's features.
            num_classes: K.
        """
        for loss in self.parts().values():
            if isinstance(loss, NoisyLabelLoss):
                loss.bind(num_features, num_classes)

    @override
    def store_shapes(self, num_classes: int) -> dict[str, tuple[int, ...]]:
        """The stores of all parts.

        Args:
            num_classes: K.

        Returns:
            Their shapes, the names prefixed with that of the part and a dot.
        """
        return {
            f"{part}.{name}": shape
            for part, loss in self.parts().items()
            if isinstance(loss, NoisyLabelLoss)
            for name, shape in loss.store_shapes(num_classes).items()
        }

    @override
    def storage_of(self, name: str) -> Storage:
        """How a store keeps its rows: as its part says.

        Args:
            name: Of the store, as in :meth:`store_shapes`.
        """
        for part, loss in self.parts().items():
            if isinstance(loss, NoisyLabelLoss) and name.startswith(f"{part}."):
                return loss.storage_of(name.removeprefix(f"{part}."))
        return self.storage

    def check_parts(self) -> None:
        """Refuse parts that cannot stand in the whole. To be called once they are set.

        Raises:
            NoisyLabelError: A part is a class, has no losses of samples, or needs outputs of its own.
        """
        classes = {name: value for name, value in vars(self).items() if isinstance(value, type)}
        for name, loss in (classes | self.parts()).items():
            check_part(name, loss)
        self.check_sample_values()

    def evaluate(self, part: str, logits: Tensor, target: Tensor, context: Mapping[str, Any]) -> Tensor:
        """What a part says of a batch, given its stores and the keywords it requires.

        Args:
            part: Its name.
            logits: Floating-point tensor (B, K).
            target: int64 labels (B,), or floating-point targets (B, K).
            context: At least the keywords that the part requires.

        Returns:
            Losses (B,) whose mean is that of the part.
        """
        loss = self.parts()[part]
        if isinstance(loss, NoisyLabelLoss):
            loss.stores |= self._tables_of(part)
        own = {name: context[name] for name in getattr(loss, "requires", ()) if name in context}
        return losses_of_samples(loss, logits, target, own).balanced()

    def _tables_of(self, part: str) -> dict[str, Store]:
        prefix = f"{part}."
        return {name.removeprefix(prefix): store for name, store in self.stores.items() if name.startswith(prefix)}


def check_part(name: str, loss: object) -> None:
    """Refuse what cannot stand in another loss.

    Args:
        name: The argument it came from.
        loss: What came.

    Raises:
        NoisyLabelError: A class, a loss without losses of samples, or one that needs outputs of its own.
    """
    check_criterion(loss, name)
    extra = getattr(loss, "extra_outputs", 0)
    check_argument(extra == 0, name, "a loss of K outputs", f"{type(loss).__name__} with {extra} more")
