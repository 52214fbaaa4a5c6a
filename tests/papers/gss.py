"""GSS (CVPR 2023): gradient switching, and the baselines in its setting."""

from tests.papers.losses import PAPER_SETTINGS
from tests.papers.settings import COSINE, CROSS_ENTROPY, Settings, named
from tests.papers.strategies import divide_mix, elr_plus, strategy

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
POOLS = {"GSSDual": {"lam_prediction": 2.0, "lam_random": 1.0}}
FORGET = {"cifar10": 0.4, "cifar100": 0.4, "clothing1m": 0.4, "webvision": 0.2}
AGREEMENT = {"cifar10": 0.9, "cifar100": 0.85, "clothing1m": 0.9, "webvision": 0.9}
PER_EPOCH = {"samples_per_epoch": 128_000}
"""A thousand batches, as beside a single network."""
ELR_PLUS = {
    "cifar10": elr_plus(0.7, 3.0),
    "cifar100": elr_plus(0.9, 7.0, steps=40000, weigh=True),
    "clothing1m": elr_plus(0.7, 3.0, decay=0.9999, ramp=None, **PER_EPOCH),
    "webvision": elr_plus(0.7, 3.0, alpha=1.5, ramp=None),
}
DIVIDE_MIX = {
    "cifar10": divide_mix("divide_mix", 10, 25.0),
    "cifar100": divide_mix("divide_mix", 30, 150.0),
    "clothing1m": divide_mix("divide_mix", 1, None, 0.5, 1.0, **PER_EPOCH),
    "webvision": divide_mix("divide_mix", 1, None, 0.5),
}


def switched(divided):
    """GSS-SSL with DivideMix's arguments."""
    weights = {"lam_labeled": (0.1, 0.0), "lam_unlabeled": (0.2, 0.5)}
    return {"GSSDivideMix": {**divided["DivideMix"], **weights}}


def strategies(name):
    """What a table compares with, and the two forms on two networks: strategy and views."""
    setting = SETTINGS[name]
    whole = {"batches_per_epoch": None} if "batches_per_epoch" in setting.images else {}
    weak = {"views": ["weak", "weak"]}
    return {
        "co_teaching": (strategy("co_teaching", forget_rate=FORGET[name]), {}),
        "jocor": (strategy("jocor", forget_rate=FORGET[name], agreement=AGREEMENT[name]), {}),
        "elr_plus": (ELR_PLUS[name], whole),
        "divide_mix": (DIVIDE_MIX[name], whole | weak),
        "ssl": (switched(DIVIDE_MIX[name]), whole | weak),
        "dual": (POOLS, {}),
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
    **{
        f"gss/{name}/{row}": setting._replace(strategy=of, images=setting.images | images)
        for name, setting in SETTINGS.items()
        for row, (of, images) in strategies(name).items()
    },
}
