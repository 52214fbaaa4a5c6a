"""Label noise: what turns the clean labels of a training set into the labels it is trained on.

Every draw is a function of (seed, position in the training set): it depends neither on the other samples nor on the
order, the process or the number of workers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import torch
from torch import Tensor

from lightning_noisy.data.array_file import ArrayFile
from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.functional.noise import (
    asymmetric_matrix,
    check_mapping,
    check_num_classes,
    check_rate,
    check_targets,
    pair_flip_matrix,
    symmetric_matrix,
)
from lightning_noisy.functional.random import hash_uniform, sample_categorical

_STREAM = 0x6E6F697365  # keeps these draws apart from other draws under the same seed
_CHUNK = 2**21  # weights held at once: 16 MiB of float64
_NAMED_MAPPINGS = {"cifar10": (10, {9: 1, 2: 0, 3: 5, 5: 3, 4: 7})}  # name -> number of classes, mapping


def _plain(value: object) -> object:
    """A value that JSON gives back unchanged."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


class LabelNoise(ABC):
    """Base of the noise models.

    A subclass keeps its arguments as public attributes of the same name, so that :meth:`describe` finds them.
    """

    rate: float | None = None
    """The requested noise rate, ``None`` where the model has none."""

    @abstractmethod
    def corrupt(self, targets: Tensor, num_classes: int, seed: int) -> Tensor:
        """Noisy labels for clean ones; a pure function of its arguments.

        Args:
            targets: Clean labels, int64 (N,), values in [0, K), in the order of the training set.
            num_classes: Number of classes K, at least 2.
            seed: Any integer.

        Returns:
            Noisy labels, a new int64 tensor (N,) with values in [0, K).

        Raises:
            NoisyLabelError: The labels are no classes, or do not fit the noise model.
        """

    def describe(self) -> dict[str, object]:
        """Class name and arguments as plain values, the same after a round trip through JSON."""
        arguments = {name: _plain(value) for name, value in vars(self).items() if not name.startswith("_")}
        return {"class": type(self).__name__, **arguments}

    def __repr__(self) -> str:
        name, *arguments = self.describe().items()
        return f"{name[1]}({', '.join(f'{key}={value!r}' for key, value in arguments)})"


class TransitionMatrixNoise(LabelNoise):
    r"""Class-conditional noise: each label is drawn on its own from the row of its class.

    .. math:: \tilde y_n \sim T_{y_n \cdot}, \qquad T_{ij} = P(\tilde y = j \mid y = i)

    The draw of sample n depends on the seed, n and its clean label alone. The number of wrong labels is therefore
    random: with flip probability r its standard deviation is :math:`\sqrt{N r (1 - r)}` (110 of 20,000 at N = 50,000,
    r = 0.4).
    """

    @abstractmethod
    def transition_matrix(self, num_classes: int) -> Tensor:
        """Non-negative floating-point matrix (K, K) whose rows, one per clean class, sum to 1."""

    def corrupt(self, targets: Tensor, num_classes: int, seed: int) -> Tensor:
        """Noisy labels for clean ones, see :meth:`LabelNoise.corrupt`."""
        check_num_classes(num_classes)
        check_targets(targets, num_classes)
        matrix = self.transition_matrix(num_classes).to(targets.device)
        _check_matrix(matrix, num_classes, type(self).__name__)
        uniform = hash_uniform(seed, _STREAM, torch.arange(len(targets), device=targets.device))
        noisy = torch.empty_like(targets)
        rows = max(1, _CHUNK // num_classes)  # T[targets] at once would be 8 GB for ImageNet
        for start in range(0, len(targets), rows):
            chunk = slice(start, start + rows)
            noisy[chunk] = sample_categorical(matrix[targets[chunk]], uniform[chunk])
        return noisy


def _check_matrix(matrix: Tensor, num_classes: int, name: str) -> None:
    square = matrix.shape == (num_classes, num_classes)
    if not square or not bool((matrix >= 0).all()) or not bool(((matrix.sum(dim=1) - 1).abs() < 1e-4).all()):
        came = "a negative entry, a NaN or a row with another sum" if square else f"shape {tuple(matrix.shape)}"
        raise NoisyLabelError(
            f"Expected `{name}.transition_matrix({num_classes})` to be non-negative of shape "
            f"({num_classes}, {num_classes}) with rows that sum to 1, but got {came}."
        )


class SymmetricNoise(TransitionMatrixNoise):
    r"""Symmetric (uniform) noise: with probability ``rate`` the label is redrawn uniformly.

    The literature has two conventions, and its numbers are not comparable across them:

    - ``include_true_class=False``: redrawn from the K - 1 other classes, the true fraction of wrong labels is
      ``rate``. In the published code of APL, ANL, AGCE / AUL / AEL, sparse regularisation, Co-teaching, CDR and SED.
    - ``include_true_class=True``: redrawn from all K classes, the true fraction of wrong labels is
      ``rate * (K - 1) / K`` (0.36 for 0.4 and ten classes). In the published code of SELC, NAL, ELR, GJS, Joint
      Optimisation, DISC and the DivideMix family, and in the label files of DAL. The papers of DCM and NAL speak of
      the other classes.

    Co-teaching, CDR and SED draw each label on its own, as here; APL, sparse regularisation, ANL, SELC, NAL, ELR, GJS
    and Joint Optimisation choose a fixed number of samples.

    Args:
        rate: Noise rate in [0, 1].
        include_true_class: Whether a redrawn label may be the true one.

    Raises:
        NoisyLabelError: ``rate`` outside [0, 1].

    References:
        van Rooyen et al., Learning with Symmetric Label Noise: The Importance of Being Unhinged, NeurIPS 2015.
    """

    def __init__(self, rate: float, include_true_class: bool = False) -> None:
        check_rate(rate)
        self.rate: float = float(rate)
        self.include_true_class = include_true_class

    def transition_matrix(self, num_classes: int) -> Tensor:
        """See :func:`lightning_noisy.functional.noise.symmetric_matrix`."""
        return symmetric_matrix(num_classes, self.rate, self.include_true_class)


class AsymmetricNoise(TransitionMatrixNoise):
    r"""Asymmetric noise: with probability ``rate`` a label of a mapped class becomes the class it is taken for.

    Labels of other classes stay. The fraction of wrong labels is ``rate`` times the share of the mapped classes:
    ``0.5 * rate`` on CIFAR-10, whose mapping names five of ten balanced classes (truck -> automobile, bird -> airplane,
    cat <-> dog, deer -> horse).

    All classes flip simultaneously, as in the published code of ANL, ELR and GJS. The code of APL, AGCE / AUL / AEL and
    sparse regularisation flips one class after the other, so that cats which have just become dogs may be drawn again
    for dog -> cat: at ``rate=0.4`` 18.3 % of its labels are wrong instead of 20 %.

    On CIFAR-100 "asymmetric" has three meanings, whose numbers are not comparable: the next class inside the true
    super-class (DAL, GJS), inside blocks of five consecutive classes (APL, ANL, AGCE / AUL / AEL, sparse
    regularisation, SELC, NAL, ELR), or over all classes (SED, Jo-SRC: :class:`PairFlipNoise`).

    Args:
        rate: Probability in [0, 1] that a label of a mapped class flips.
        mapping: Clean class -> the class it is taken for, none to itself; or ``"cifar10"``, which is
            ``{9: 1, 2: 0, 3: 5, 5: 3, 4: 7}``.

    Raises:
        NoisyLabelError: ``rate`` outside [0, 1], or a ``mapping`` that is neither; at :meth:`corrupt`, a mapping with
            classes outside [0, K) or a named mapping for another K.

    References:
        Patrini et al., Making Deep Neural Networks Robust to Label Noise: A Loss Correction Approach, CVPR 2017.
    """

    def __init__(self, rate: float, mapping: dict[int, int] | str) -> None:
        check_rate(rate)
        names = ", ".join(repr(name) for name in _NAMED_MAPPINGS)
        usable = mapping in _NAMED_MAPPINGS if isinstance(mapping, str) else isinstance(mapping, dict)
        check_argument(usable, "mapping", f"a dict from class to class or one of {names}", mapping)
        if isinstance(mapping, dict):
            check_mapping(mapping)
        self.rate: float = float(rate)
        self.mapping = mapping

    def transition_matrix(self, num_classes: int) -> Tensor:
        """See :func:`lightning_noisy.functional.noise.asymmetric_matrix`."""
        if isinstance(self.mapping, dict):
            return asymmetric_matrix(num_classes, self.rate, self.mapping)
        wanted, mapping = _NAMED_MAPPINGS[self.mapping]
        if num_classes != wanted:
            raise NoisyLabelError(
                f"Expected {wanted} classes for `mapping={self.mapping!r}`, but got {num_classes}: "
                "give the mapping as a dict from class to class."
            )
        return asymmetric_matrix(num_classes, self.rate, mapping)


class PairFlipNoise(TransitionMatrixNoise):
    """Pair flipping: with probability ``rate`` class i becomes class i + 1, the last one class 0.

    The fraction of wrong labels is ``rate``; from 0.5 on the true class is no longer the most frequent label of its
    samples. The noise of Co-teaching; the published code of SED and Jo-SRC calls it "asymmetric".

    Args:
        rate: Noise rate in [0, 1].

    Raises:
        NoisyLabelError: ``rate`` outside [0, 1].

    References:
        Han et al., Co-teaching: Robust Training of Deep Neural Networks with Extremely Noisy Labels, NeurIPS 2018.
    """

    def __init__(self, rate: float) -> None:
        check_rate(rate)
        self.rate: float = float(rate)

    def transition_matrix(self, num_classes: int) -> Tensor:
        """See :func:`lightning_noisy.functional.noise.pair_flip_matrix`."""
        return pair_flip_matrix(num_classes, self.rate)


class FileNoise(LabelNoise):
    """Labels from a file: human annotations such as CIFAR-10N, published noise, the labels of an earlier run.

    The seed plays no part. The file is opened when the labels are needed, so a data module can be made on a machine
    without it. Pickled files are refused: they can run any code.

    Args:
        path: A ``.npy`` or ``.npz`` file with one integer label per training sample, shape (N,), values in [0, K), in
            the order of the training set.
        key: Name of the array inside a ``.npz`` file; may be left out where there is only one.

    Raises:
        NoisyLabelError: Another suffix; at :meth:`corrupt`, a file that is missing, cannot be read, or holds anything
            but such labels.

    References:
        Wei et al., Learning with Noisy Labels Revisited: A Study Using Real-World Human Annotations, ICLR 2022.
    """

    def __init__(self, path: str | Path, key: str | None = None) -> None:
        suffix = Path(path).suffix.lower()
        check_argument(suffix in (".npy", ".npz"), "path", "a .npy or .npz file", str(path))
        self.path = str(path)
        self.key = key

    def corrupt(self, targets: Tensor, num_classes: int, seed: int) -> Tensor:
        """The labels of the file, see :meth:`LabelNoise.corrupt`. ``targets`` give their number and device alone."""
        check_num_classes(num_classes)
        return _labels_of(self.path, self.key, len(targets), num_classes).to(targets.device)


def read_labels(path: str | Path, key: str | None, num_samples: int) -> Tensor:
    """int64 (N,) labels of a file, checked as :class:`FileNoise` does, but for the number of classes."""
    noise = FileNoise(path, key)
    return _labels_of(noise.path, noise.key, num_samples, None)


def _labels_of(path: str, key: str | None, num_samples: int, num_classes: int | None) -> Tensor:
    file = ArrayFile(path)
    return file.labels(file.pick(key), num_samples, num_classes)
