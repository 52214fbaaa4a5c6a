"""Backbones: modules from images (B, C, H, W), or features, to features (B, D), with D as ``num_features``."""

from lightning_noisy.networks.batch_norm import LoneSampleBatchNorm1d
from lightning_noisy.networks.cnn8 import CNN8
from lightning_noisy.networks.mlp import MLP
from lightning_noisy.networks.resnet import CIFARResNet, ResNet18, ResNet34
from lightning_noisy.networks.small_cnn import SmallCNN
from lightning_noisy.networks.torchvision_backbone import TorchvisionBackbone

__all__ = [
    "CNN8",
    "MLP",
    "CIFARResNet",
    "LoneSampleBatchNorm1d",
    "ResNet18",
    "ResNet34",
    "SmallCNN",
    "TorchvisionBackbone",
]
