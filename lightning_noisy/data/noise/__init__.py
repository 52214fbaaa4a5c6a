"""Label noise: what turns the clean labels of a training set into the labels it is trained on.

Every draw is a function of (seed, position in the training set): it depends neither on the other samples nor on the
order, the process or the number of workers.
"""

from lightning_noisy.data.noise.asymmetric import AsymmetricNoise
from lightning_noisy.data.noise.base import Images, LabelNoise
from lightning_noisy.data.noise.file import FileNoise, read_labels
from lightning_noisy.data.noise.instance import InstanceDependentNoise
from lightning_noisy.data.noise.margin import PMDNoise
from lightning_noisy.data.noise.matrix import PairFlipNoise, SymmetricNoise, TransitionMatrixNoise, TransitionNoise
from lightning_noisy.data.noise.open_set import OpenSetNoise

__all__ = [
    "AsymmetricNoise",
    "FileNoise",
    "Images",
    "InstanceDependentNoise",
    "LabelNoise",
    "OpenSetNoise",
    "PMDNoise",
    "PairFlipNoise",
    "SymmetricNoise",
    "TransitionMatrixNoise",
    "TransitionNoise",
    "read_labels",
]
