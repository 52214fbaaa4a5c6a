"""Label noise, data sets that carry their index, resumable loaders and data modules."""

from lightning_noisy.data.cifar import CIFAR10DataModule
from lightning_noisy.data.digits import DigitsDataModule
from lightning_noisy.data.indexed import IndexedDataset
from lightning_noisy.data.loader import EpochSampler, ResumableLoader
from lightning_noisy.data.module import LabelledImages, NoisyDataModule
from lightning_noisy.data.noise import AsymmetricNoise, FileNoise, LabelNoise, PairFlipNoise, SymmetricNoise

__all__ = [
    "AsymmetricNoise",
    "CIFAR10DataModule",
    "DigitsDataModule",
    "EpochSampler",
    "FileNoise",
    "IndexedDataset",
    "LabelNoise",
    "LabelledImages",
    "NoisyDataModule",
    "PairFlipNoise",
    "ResumableLoader",
    "SymmetricNoise",
]
