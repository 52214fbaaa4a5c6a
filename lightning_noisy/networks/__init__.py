"""Backbones, from images (B, C, H, W) or features to features (B, D), with D as ``num_features``, and classifiers."""

from lightning_noisy.networks.batch_norm import LoneSampleBatchNorm1d
from lightning_noisy.networks.classifier import Classifier
from lightning_noisy.networks.cnn7 import CNN7
from lightning_noisy.networks.cnn8 import CNN8
from lightning_noisy.networks.cnn9 import CNN9
from lightning_noisy.networks.efficientnet_lite0 import EfficientNetLite0
from lightning_noisy.networks.hidden_layer import HiddenLayerBackbone
from lightning_noisy.networks.lenet import LeNet
from lightning_noisy.networks.mlp import MLP
from lightning_noisy.networks.preact_resnet import PreActResNet, PreActResNet18, PreActResNet34, WideResNet
from lightning_noisy.networks.pretrained import PretrainedBackbone
from lightning_noisy.networks.projected_backbone import ProjectedBackbone
from lightning_noisy.networks.resnet import CIFARResNet, ResNet18, ResNet34
from lightning_noisy.networks.small_cnn import SmallCNN
from lightning_noisy.networks.teacher import Teacher
from lightning_noisy.networks.timm_backbone import TimmBackbone
from lightning_noisy.networks.torchvision_backbone import TorchvisionBackbone
from lightning_noisy.networks.vgg import VGG19BN

__all__ = [
    "CNN7",
    "CNN8",
    "CNN9",
    "MLP",
    "VGG19BN",
    "CIFARResNet",
    "Classifier",
    "EfficientNetLite0",
    "HiddenLayerBackbone",
    "LeNet",
    "LoneSampleBatchNorm1d",
    "PreActResNet",
    "PreActResNet18",
    "PreActResNet34",
    "PretrainedBackbone",
    "ProjectedBackbone",
    "ResNet18",
    "ResNet34",
    "SmallCNN",
    "Teacher",
    "TimmBackbone",
    "TorchvisionBackbone",
    "WideResNet",
]
