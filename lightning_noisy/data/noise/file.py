"""Labels that somebody else has made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from lightning_noisy.data.array_file import Array, ArrayFile
from lightning_noisy.data.labeled_images import LabeledImages
from lightning_noisy.data.noise.base import Images, LabelNoise
from lightning_noisy.data.noise.labels_of_samples import LabelsOfSamples
from lightning_noisy.data.origins import checked_sources
from lightning_noisy.errors import check_argument
from lightning_noisy.functional.noise import MOST_CLASSES, check_num_classes

_GIVEN = "given"  # the labels before a correction


class FileNoise(LabelNoise):
    """Labels from a file: human annotations such as CIFAR-10N, published noise, the labels of an earlier run.

    The seed plays no part. The file is opened when the labels are needed, so a data module can be made on a machine
    without it. Pickled files are refused: they can run any code.

    A ``.npz`` that a run has written says in ``path`` or ``row`` (N,) which sample of the user's own data each label
    belongs to, and in ``class_names`` (K,) what the classes are called. Then each sample gets its own label, and each
    label the class of its name, whatever the order of either; the file may hold further samples. Other files have one
    label for each training sample, in the order of the training set.

    Where such a file says what the labels were before a correction (``given``, as ``suggested_labels.npz`` of a report
    does), and the data still have these, nobody knows which are right: ``clean_targets`` of the data module is None.

    Args:
        path: A ``.npy`` or ``.npz`` file with integer labels, shape (N,), values in [0, K).
        key: Name of the array inside a ``.npz`` file; may be left out where there is only one, or one ``labels``,
            beside ``path``, ``row`` and ``class_names``.

    Raises:
        NoisyLabelError: Another suffix; at :meth:`corrupt`, a file that is missing, cannot be read, or holds anything
            but such labels; in a data module also a sample without a label, with two, or of a class of another name.

    References:
        Wei et al., Learning with Noisy Labels Revisited: A Study Using Real-World Human Annotations, ICLR 2022.
    """

    def __init__(self, path: str | Path, key: str | None = None) -> None:
        suffix = Path(path).suffix.lower()
        check_argument(suffix in (".npy", ".npz"), "path", "a .npy or .npz file", str(path))
        self.path = str(path)
        self.key = key

    def corrupt(self, targets: Tensor, num_classes: int, seed: int, images: Images | None = None) -> Tensor:
        """The labels of the file, see :meth:`LabelNoise.corrupt`. ``targets`` give their number and device alone."""
        check_num_classes(num_classes)
        return _labels_of(self.path, self.key, len(targets), num_classes).to(targets.device)

    def corrupt_images(
        self,
        images: LabeledImages,
        targets: Tensor,
        num_classes: int,
        seed: int,
        class_names: Sequence[str] | None = None,
    ) -> Tensor:
        """The labels of these samples, see :meth:`LabelNoise.corrupt_images`."""
        check_num_classes(num_classes)
        known = LabelsOfSamples.read(ArrayFile(self.path), self.key)
        if known is None:
            return self.corrupt(targets, num_classes, seed)
        return known.of(_sources(images, targets), num_classes, class_names).to(targets.device)

    def corrects(self, images: LabeledImages, targets: Tensor, class_names: Sequence[str] | None = None) -> bool:
        """Whether the labels of the data are those that the file says were ``given`` before a correction."""
        file = ArrayFile(self.path)
        if not file.has(_GIVEN):
            return False
        known = LabelsOfSamples.read(file, _GIVEN)
        if known is None:
            return False
        given = known.of(_sources(images, targets), MOST_CLASSES, class_names)
        return bool((given == targets.cpu()).all())


def _sources(images: LabeledImages, targets: Tensor) -> Array:
    """Paths or rows of the samples."""
    told = np.arange(len(targets)) if images.sources is None else images.sources
    return checked_sources(told, len(targets))


def read_labels(path: str | Path, key: str | None, num_samples: int) -> Tensor:
    """int64 (N,) labels of a file, checked as :class:`FileNoise` does, but for the number of classes."""
    noise = FileNoise(path, key)
    return _labels_of(noise.path, noise.key, num_samples, None)


def _labels_of(path: str, key: str | None, num_samples: int, num_classes: int | None) -> Tensor:
    file = ArrayFile(path)
    return file.labels(file.pick(key), num_samples, num_classes)
