"""GJS and JS (NeurIPS 2021): the files of settings in its code."""

from tests.papers.losses import PAPER_SETTINGS
from tests.papers.settings import SYMMETRIC, Settings, named

NET = {"PreActResNet": {"blocks": [5, 5, 5], "widths": [32, 64, 128], "stem_width": 32, "variant": "he"}}
"""What its code calls PreActResNet-34."""
STRONG = {"policy": "rand", "num_ops": 1, "magnitude": 3, "cutout": 16 / 32}
DROPS = {"MultiStepLR": {"milestones": [200, 300], "gamma": 0.1}}
NESTEROV = {"momentum": 0.9, "nesterov": True}
JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.2}


def augmented(row, strong, **sizes):
    """As many strong views as the loss compares."""
    return {**sizes, "views": ["strong"] * {"GJS": 2, "JS": 1}[row], "strong": strong}


def cifar(row, data, lr, wd):
    """40 % symmetric noise."""
    loss = named(PAPER_SETTINGS["GJS"][row][f"{data}, symmetric 0.4"])
    views = augmented(row, {"class_path": "lightning_noisy.data.StrongAugment", "init_args": STRONG})
    module = data.replace("-", "") + "DataModule"
    return Settings(400, NET, 128, lr, wd, DROPS, loss, {}, SYMMETRIC, data=module, images=views, sgd=NESTEROV)


def webvision(row, lr, batch):
    """Weak views; their color jitter comes after crop and flip, and so is what is strong about ours."""
    loss = named(PAPER_SETTINGS["GJS"][row]["WebVision"])
    jitter = {"class_path": "torchvision.transforms.v2.ColorJitter", "init_args": JITTER}
    return Settings(
        300,
        {"TorchvisionBackbone": {"name": "resnet50"}},
        batch,
        lr,
        1e-4,
        {"StepLR": {"step_size": 1, "gamma": 0.97}},
        loss,
        {},
        noise={},
        data="WebVisionMiniDataModule",
        images=augmented(row, jitter, image_size=224, resize=None),
        sgd=NESTEROV,
    )


ROWS = {
    "gjs/cifar10": cifar("GJS", "CIFAR-10", 0.1, 5e-4),
    "gjs/cifar10/js": cifar("JS", "CIFAR-10", 0.01, 5e-4),
    "gjs/cifar100": cifar("GJS", "CIFAR-100", 0.2, 5e-5),
    "gjs/cifar100/js": cifar("JS", "CIFAR-100", 0.2, 1e-4),
    "gjs/webvision": webvision("GJS", 0.1, 32),
    "gjs/webvision/js": webvision("JS", 0.2, 64),
}
