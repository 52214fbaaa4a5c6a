"""What noise models have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from lightning_noisy.data.described import Described
from lightning_noisy.data.labeled_images import LabeledImages

NOISE_STREAM = 0x6E6F697365  # keeps these draws apart from other draws under the same seed

Images = Callable[[int], Any]
"""``images(index)`` gives one image of the training set, before any transform."""


class LabelNoise(Described, ABC):
    """Base of the noise models.

    A subclass keeps its arguments as public attributes of the same name, so that ``describe()`` finds them.
    """

    rate: float | None = None
    """The requested noise rate, ``None`` where the model has none."""

    @abstractmethod
    def corrupt(self, targets: Tensor, num_classes: int, seed: int, images: Images | None = None) -> Tensor:
        """Noisy labels for clean ones; a pure function of its arguments.

        Args:
            targets: Clean labels, int64 (N,), values in [0, K), in the order of the training set.
            num_classes: Number of classes K, at least 2.
            seed: Any integer.
            images: The images that the labels belong to, for models that look at them; data modules pass theirs.

        Returns:
            Noisy labels, a new int64 tensor (N,) with values in [0, K).

        Raises:
            NoisyLabelError: The labels are no classes, or do not fit the noise model, which may need images.
        """

    def corrects(self, images: LabeledImages, targets: Tensor, class_names: Sequence[str] | None = None) -> bool:
        """Whether it replaces labels that are wrong themselves, so that nobody knows right ones; False by default.

        Args:
            images: The training set.
            targets: Its labels, int64 (N,).
            class_names: What the classes are called, None where nobody knows it.
        """
        return False

    def corrupt_images(
        self,
        images: LabeledImages,
        targets: Tensor,
        num_classes: int,
        seed: int,
        class_names: Sequence[str] | None = None,
    ) -> Tensor:
        """The same for a training set that tells where its samples come from, which noise out of a file asks.

        Args:
            images: The training set.
            targets: Its clean labels, see :meth:`corrupt`.
            num_classes: K.
            seed: Any integer.
            class_names: Names of the classes, None where nobody knows them.
        """
        return self.corrupt(targets, num_classes, seed, images.image)
