"""SELC and SELC+ (IJCAI 2022): the settings of its code, and NAL's table."""

from tests.papers.settings import CROSS_ENTROPY, STEPS, Settings

FIFTHS = {"MultiStepLR": {"milestones": [60, 120], "gamma": 0.2}}
ANIMAL10N = {"MultiStepLR": {"milestones": [50, 75], "gamma": 0.2}}
MIXUP = {"MixUp": {"alpha": 0.9}}
CROP227 = {"image_size": 227, "resize": 0, "crop": "random"}
"""Of images of WebVision's small release, as they are."""
CIFAR = ("cifar10", "cifar100")


def selc(es, momentum=0.9):
    """SELC counts epochs from 1 and warms up while e <= es."""
    return {"SELC": {"momentum": momentum, "warmup_epochs": es}}


def labels(path, **key):
    """Labels of a file."""
    return {"FileNoise": {"path": path, **key}}


def cifar(dataset, method, **noise):
    """Class-conditional noise."""
    data = f"{dataset.upper()}DataModule"
    return Settings(200, "ResNet34", 128, 0.02, 1e-3, STEPS, CROSS_ENTROPY, method, data=data, **noise)


def feature_dependent(dataset, noise, epochs=150, net="PreActResNet18"):
    """PMD and instance-dependent noise. The "PreActResNet-34" of the code has the blocks of an 18."""
    data = f"{dataset.upper()}DataModule"
    return Settings(epochs, net, 128, 0.1, 5e-4, FIFTHS, CROSS_ENTROPY, selc(40), labels(noise), data=data)


ROWS = {
    "selc/cifar10": cifar("cifar10", selc(30)),
    "selc/cifar10n": cifar("cifar10", selc(30), noise=labels("data/cifar10n.npz", key="worse")),
    "selc/cifar100": cifar("cifar100", selc(20)),
    **{f"selc/{name}-pmd": feature_dependent(name, f"data/pmd/{name}-1-0.35.npy") for name in CIFAR},
    "selc/cifar10-idn": feature_dependent("cifar10", "data/idn/cifar10-0.4.npy", 200, "WideResNet"),
    **{
        f"selc_plus/{name}": cifar(name, MIXUP, noise=labels(f"runs/selc/{name}/version_0/labels.npz"))
        for name in CIFAR
    },
    # The script for ANIMAL-10N counts epochs from 0 and has no momentum.
    "selc/animal10n": Settings(
        100,
        "VGG19BN",
        128,
        0.1,
        1e-3,
        ANIMAL10N,
        CROSS_ENTROPY,
        selc(40 + 1),
        noise={},
        data="Animal10NDataModule",
        images={"crop": "center"},
        sgd={},
    ),
    "selc/clothing1m": Settings(
        40,
        {"TorchvisionBackbone": {"name": "resnet50", "weights": "IMAGENET1K_V1"}},
        64,
        0.01,
        1e-3,
        {"MultiStepLR": {"milestones": [10, 20], "gamma": 0.1}},
        CROSS_ENTROPY,
        selc(5, momentum=0.8),
        noise={},
        data="Clothing1MDataModule",
        images={"batches_per_epoch": 2000},
    ),
    "selc/webvision": Settings(
        100,
        {"TimmBackbone": {"name": "inception_resnet_v2"}},
        32,
        0.01,
        5e-4,
        STEPS,
        CROSS_ENTROPY,
        selc(40),
        noise={},
        data="WebVisionMiniDataModule",
        images=CROP227,
    ),
}
