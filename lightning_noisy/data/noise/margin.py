"""Noise near the decision boundary of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lightning_noisy.data.array_file import Array, ArrayFile
from lightning_noisy.data.noise.base import NOISE_STREAM, Images, LabelNoise
from lightning_noisy.errors import check_argument
from lightning_noisy.functional.instance_noise import margin_factor, margin_keep_probability
from lightning_noisy.functional.noise import as_targets, check_num_classes, check_rate
from lightning_noisy.functional.random import hash_uniform

_KEY = "probabilities"


class PMDNoise(LabelNoise):
    r"""Polynomial margin diminishing noise: labels are wrong where a model hesitates between two classes.

    With the two likeliest classes u and s of a sample and their margin :math:`d = \eta_u - \eta_s`, its label becomes
    u with probability :math:`\min(1, (1 - f(d)) / c)`, else s:

    .. math:: f_\mathrm{I} = \tfrac12 - \tfrac12 d^2, \qquad f_\mathrm{II} = 1 - d^3, \qquad
              f_\mathrm{III} = 1 - \tfrac13 (d^3 + d^2 + d)

    A label is always u or s, so the noise rate, measured against the labels of the data set, holds the model's errors
    too. In the paper f is the probability of flipping u to s; the authors' code divides the *keep* probability
    :math:`1 - f` by a factor c, 1.2 or what gives 35 % or 70 % of wrong labels, and is followed here.

    The probabilities :math:`\eta` are those of a classifier of the *training* images, in their order. The authors train
    a network on the clean labels of nine tenths of the images and record its outputs during the last epoch.
    ``configs/pmd`` is that recipe for all of the images, with a
    :class:`~lightning_noisy.callbacks.PosteriorWriter`, and docs/recipes.md the two commands. The probabilities of
    another model are as good, as :class:`~lightning_noisy.callbacks.PredictionWriter` writes them.

    Args:
        type: 1, 2 or 3: which f.
        rate: Expected noise rate in [0, 1], which the factor is tuned to; None with a ``factor``.
        posterior: Class probabilities (N, K), rows sum to 1: a ``.npy`` file, or a ``.npz`` file as the two callbacks
            write it.
        factor: c > 0; None tunes it to ``rate``.
        key: Name of the array inside a ``.npz`` file; None stands for "probabilities".

    Raises:
        NoisyLabelError: An argument outside its range, or not exactly one of ``rate`` and ``factor``; at
            :meth:`corrupt`, a file that is missing, cannot be read or holds anything but such probabilities of these
            samples, or a rate that no factor gives.

    References:
        Zhang et al., Learning with Feature-Dependent Label Noise: A Progressive Approach, ICLR 2021.
    """

    def __init__(
        self,
        type: Literal[1, 2, 3],
        rate: float | None,
        posterior: str | Path,
        factor: float | None = None,
        key: str | None = None,
    ) -> None:
        check_argument(type in (1, 2, 3), "type", "1, 2 or 3", type)
        check_argument((rate is None) != (factor is None), "rate", "given, or else `factor`, and not both", rate)
        if rate is not None:
            check_rate(rate)
        check_argument(factor is None or factor > 0, "factor", "a float above 0", factor)
        suffix = Path(posterior).suffix.lower()
        check_argument(suffix in (".npy", ".npz"), "posterior", "a .npy or .npz file", str(posterior))
        self.type: Literal[1, 2, 3] = type
        self.rate = None if rate is None else float(rate)
        self.posterior = str(posterior)
        self.factor = factor
        self.key = key

    def corrupt(self, targets: Tensor, num_classes: int, seed: int, images: Images | None = None) -> Tensor:
        """Noisy labels for clean ones, see :meth:`LabelNoise.corrupt`."""
        check_num_classes(num_classes)
        targets = as_targets(targets, num_classes)
        clean = targets.cpu()
        probabilities, classes = self._read(len(clean), num_classes).sort(dim=1, descending=True, stable=True)
        first, second = classes[:, 0], classes[:, 1]
        keep = margin_keep_probability(probabilities[:, 0] - probabilities[:, 1], self.type)
        factor = self.factor
        if factor is None:
            assert self.rate is not None
            factor = margin_factor(keep, first != clean, second != clean, self.rate) if len(clean) else 1.0
        uniform = hash_uniform(seed, NOISE_STREAM, torch.arange(len(clean)))
        return torch.where(uniform < keep / factor, first, second).to(targets.device)

    def _read(self, num_samples: int, num_classes: int) -> Tensor:
        """The probabilities, float64 (N, K)."""
        file = ArrayFile(self.posterior, "posterior")
        key = _KEY if self.key is None else self.key
        with file.open("class probabilities") as arrays:
            names = list(arrays)
            found = {name: arrays[name] for name in arrays if name in (None, key, "index")}
        array = found.get(None, found.get(key))
        if array is None:
            listed = ", ".join(repr(name) for name in names) or "no array"
            raise file.error(f"an array named {key!r}", listed, "set `key` to the name of the class probabilities")
        index = found.get("index")
        if index is not None and not np.array_equal(index, np.arange(num_samples)):
            raise file.error(
                f"the samples 0 to {num_samples - 1} of the training set", "others", "predict the whole training set"
            )
        return _checked(file, array, (num_samples, num_classes))


def _checked(file: ArrayFile, array: Array, shape: tuple[int, int]) -> Tensor:
    wanted = f"class probabilities of the training samples, shape {shape}"
    if array.shape != shape:
        raise file.error(wanted, f"shape {array.shape}", "predict the whole training set with a model of these classes")
    if array.dtype.kind not in "fiu":
        raise file.error(wanted, f"dtype {array.dtype}", "save them as floats")
    values = torch.from_numpy(array.astype(np.float64))
    wrong = ((values < 0).any(dim=1) | ~((values.sum(dim=1) - 1).abs() < 1e-2)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        came = f"row {row} with sum {float(values[row].sum()):g} and minimum {float(values[row].min()):g}"
        raise file.error(wanted, came, "save softmax outputs, not logits")
    return values
