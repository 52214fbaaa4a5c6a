"""Label noise, data sets that carry their index, resumable loaders and data modules."""

from lightning_noisy.data.animal10n import Animal10NDataModule
from lightning_noisy.data.backdoor import BackdoorTrigger, GlobalTrigger, LocalTrigger
from lightning_noisy.data.balanced import BalancedSampler
from lightning_noisy.data.cifar import CIFAR10DataModule, CIFAR100DataModule
from lightning_noisy.data.cifar80n import CIFAR80NODataModule
from lightning_noisy.data.clothing1m import Clothing1MDataModule
from lightning_noisy.data.csv_images import CSVDataModule
from lightning_noisy.data.digits import DigitsDataModule
from lightning_noisy.data.epoch_length import announce_length
from lightning_noisy.data.features import FeaturesDataModule
from lightning_noisy.data.image_folder import ImageFolderDataModule
from lightning_noisy.data.image_list import ImageList
from lightning_noisy.data.image_module import ImageListDataModule
from lightning_noisy.data.indexed import IndexedDataset
from lightning_noisy.data.labeled_images import LabeledImages
from lightning_noisy.data.loader import ResumableLoader
from lightning_noisy.data.mnist import FashionMNISTDataModule, MNISTDataModule
from lightning_noisy.data.module import NoisyDataModule
from lightning_noisy.data.noise import (
    AsymmetricNoise,
    FileNoise,
    InstanceDependentNoise,
    LabelNoise,
    OpenSetNoise,
    PairFlipNoise,
    PMDNoise,
    SymmetricNoise,
    TransitionNoise,
)
from lightning_noisy.data.origins import known_class_names, sources_of
from lightning_noisy.data.samplers import EpochSampler
from lightning_noisy.data.sharded import ShardedSampler
from lightning_noisy.data.torchvision_module import TorchvisionDataModule
from lightning_noisy.data.unlabeled_images import UnlabeledImages
from lightning_noisy.data.views import MultiView, StrongAugment
from lightning_noisy.data.webvision import WebVisionMiniDataModule
from lightning_noisy.data.weighted import WeightedEpochSampler

__all__ = [
    "Animal10NDataModule",
    "AsymmetricNoise",
    "BackdoorTrigger",
    "BalancedSampler",
    "CIFAR10DataModule",
    "CIFAR80NODataModule",
    "CIFAR100DataModule",
    "CSVDataModule",
    "Clothing1MDataModule",
    "DigitsDataModule",
    "EpochSampler",
    "FashionMNISTDataModule",
    "FeaturesDataModule",
    "FileNoise",
    "GlobalTrigger",
    "ImageFolderDataModule",
    "ImageList",
    "ImageListDataModule",
    "IndexedDataset",
    "InstanceDependentNoise",
    "LabelNoise",
    "LabeledImages",
    "LocalTrigger",
    "MNISTDataModule",
    "MultiView",
    "NoisyDataModule",
    "OpenSetNoise",
    "PMDNoise",
    "PairFlipNoise",
    "ResumableLoader",
    "ShardedSampler",
    "StrongAugment",
    "SymmetricNoise",
    "TorchvisionDataModule",
    "TransitionNoise",
    "UnlabeledImages",
    "WebVisionMiniDataModule",
    "WeightedEpochSampler",
    "announce_length",
    "known_class_names",
    "sources_of",
]
