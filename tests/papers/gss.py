"""GSS (CVPR 2023): gradient switching."""

from tests.papers.settings import COSINE, CROSS_ENTROPY, Settings

METHOD = {"GradientSwitching": {}}
RESNET50 = {"TorchvisionBackbone": {"name": "resnet50", "weights": "IMAGENET1K_V1"}}


def cifar(data):
    """CIFAR-10 and CIFAR-100 alike."""
    return Settings(150, "ResNet18", 128, 0.01, 5e-4, COSINE, CROSS_ENTROPY, METHOD, data=data)


def pretrained(data, **images):
    """The paper's rate; the epochs of DivideMix, with which the paper goes on."""
    schedule = {"CosineAnnealingLR": {"T_max": 80}}
    return Settings(80, RESNET50, 128, 0.001, 5e-4, schedule, CROSS_ENTROPY, METHOD, noise={}, data=data, images=images)


ROWS = {
    "gss/cifar10": cifar("CIFAR10DataModule"),
    "gss/cifar100": cifar("CIFAR100DataModule"),
    "gss/clothing1m": pretrained("Clothing1MDataModule", batches_per_epoch=1000),
    "gss/webvision": pretrained("WebVisionMiniDataModule", image_size=224, resize=256),
}
