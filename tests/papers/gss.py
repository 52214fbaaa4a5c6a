"""GSS (CVPR 2023): gradient switching, and the baselines in its setting."""

from tests.papers.losses import PAPER_SETTINGS
from tests.papers.settings import COSINE, CROSS_ENTROPY, Settings, named

METHOD = {"GradientSwitching": {}}
RESNET50 = {"TorchvisionBackbone": {"name": "resnet50", "weights": "IMAGENET1K_V1"}}
OTHERS = {"SymmetricNoise": {"rate": 0.4}}
"""The share of wrong labels is the rate."""


def cifar(data):
    """CIFAR-10 and CIFAR-100 alike, from a pre-trained network."""
    net = {"ResNet18": {"weights": "IMAGENET1K_V1"}}
    return Settings(150, net, 128, 0.01, 5e-4, COSINE, CROSS_ENTROPY, {}, noise=OTHERS, data=data)


def pretrained(data, **images):
    """The paper's rate; the epochs of DivideMix, with which the paper goes on."""
    schedule = {"CosineAnnealingLR": {"T_max": 80}}
    return Settings(80, RESNET50, 128, 0.001, 5e-4, schedule, CROSS_ENTROPY, {}, noise={}, data=data, images=images)


SETTINGS = {
    "cifar10": cifar("CIFAR10DataModule"),
    "cifar100": cifar("CIFAR100DataModule"),
    "clothing1m": pretrained("Clothing1MDataModule", batches_per_epoch=1000),
    "webvision": pretrained("WebVisionMiniDataModule", image_size=224, resize=256),
}
LOSSES = {
    "gce": dict.fromkeys(SETTINGS, named(PAPER_SETTINGS["GCE"]["GCE"]["CIFAR-10"])),
    "sl": {
        "cifar10": named(PAPER_SETTINGS["SCE"]["SCE"]["CIFAR-10"]),
        "cifar100": named(PAPER_SETTINGS["SCE"]["SCE"]["CIFAR-100"]),
        **dict.fromkeys(("clothing1m", "webvision"), named(PAPER_SETTINGS["ANL"]["SCE"]["WebVision"])),
    },
}
ROWS = {
    **{f"gss/{name}/ce": setting for name, setting in SETTINGS.items()},
    **{f"gss/{name}": setting._replace(method=METHOD) for name, setting in SETTINGS.items()},
    **{
        f"gss/{name}/from-scratch": SETTINGS[name]._replace(method=METHOD, net="ResNet18")
        for name in ("cifar10", "cifar100")
    },
    **{
        f"gss/{name}/{row}": SETTINGS[name]._replace(loss=loss)
        for row, losses in LOSSES.items()
        for name, loss in losses.items()
    },
}
