"""NAL (NeurIPS 2022), RNAL and the ablations; ELR and SAT, which it compares with."""

from tests.papers.losses import PAPER_SETTINGS
from tests.papers.selc import ANIMAL10N, CROP227, labels
from tests.papers.settings import RESTARTS, Settings, named, plain

DATA = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}


def loss(paper, row, data):
    """The loss as it is published."""
    return plain(named(PAPER_SETTINGS[paper][row][data]))


def targets(es):
    """NAL's code counts epochs from 1, begins at es, and moves targets in epochs 10, 20, ... at the lowest rates."""
    return {"SELC": {"momentum": 0.9, "warmup_epochs": es - 1, "every_n_epochs": 10, "floor": 1e-4}}


def nal(dataset, row="NAL", method=None, net="ResNet34", batch=64, **noise):
    """Class-conditional noise; of PMD noise the network and the batch size are known."""
    method = targets(60) if method is None else method
    published = loss("NAL", row, DATA[dataset])
    data = f"{dataset.upper()}DataModule"
    return Settings(500, net, batch, 0.02, 1e-3, RESTARTS, published, method, data=data, **noise)


def elr(dataset, row, schedule, epochs=150, **noise):
    """ELR, with a tenth of the noisy labels to validate on."""
    data, published = f"{dataset.upper()}DataModule", loss("ELR", "ELR", row)
    return Settings(epochs, "ResNet34", 128, 0.02, 1e-3, schedule, published, {}, val=0.1, data=data, **noise)


def steps(*milestones):
    """ELR divides its rate by a hundred."""
    return {"MultiStepLR": {"milestones": [*milestones], "gamma": 0.01}}


def sat(dataset):
    """SAT has one recipe for both."""
    schedule, published = {"CosineAnnealingLR": {"T_max": 200}}, loss("SAT", "SAT", DATA[dataset])
    return Settings(200, "ResNet34", 256, 0.1, 5e-4, schedule, published, {}, data=f"{dataset.upper()}DataModule")


ROWS = {
    **{f"nal/{name}": nal(name) for name in DATA},
    **{f"nal/{name}/confidence": nal(name, "NAL, confidence") for name in DATA},
    **{f"nal/{name}/no-targets": nal(name, method={}) for name in DATA},
    **{
        f"nal/{name}/pmd": nal(name, net="PreActResNet18", batch=128, noise=labels(f"data/pmd/{name}-1-0.35.npy"))
        for name in DATA
    },
    **{f"nal/{name}/sce": nal(name, "SCE+NAL") for name in DATA},
    **{f"rnal/{name}": nal(name, "RNAL") for name in DATA},
    # The script for ANIMAL-10N counts epochs from 0, moves targets in each, and has no momentum.
    "nal/animal10n": Settings(
        100,
        "VGG19BN",
        128,
        0.1,
        1e-3,
        ANIMAL10N,
        loss("NAL", "NAL", "ANIMAL-10N"),
        {"SELC": {"momentum": 0.9, "warmup_epochs": 40, "floor": 1e-4}},
        noise={},
        data="Animal10NDataModule",
        images={"crop": "center"},
        sgd={},
    ),
    "nal/clothing1m": Settings(
        400,
        {"TorchvisionBackbone": {"name": "resnet50"}},
        64,
        0.02,
        1e-3,
        {"CosineAnnealingWarmRestarts": {"T_0": 10, "eta_min": 1e-4}},
        loss("NAL", "NAL", "Clothing1M"),
        targets(60),
        noise={},
        data="Clothing1MDataModule",
        images={"batches_per_epoch": 2000},
    ),
    "nal/webvision": Settings(
        500,
        {"TimmBackbone": {"name": "inception_resnet_v2"}},
        32,
        0.02,
        5e-4,
        RESTARTS,
        loss("NAL", "NAL", "WebVision"),
        targets(200),
        noise={},
        data="WebVisionMiniDataModule",
        images=CROP227,
    ),
    "elr/cifar10": elr("cifar10", "CIFAR-10, symmetric", RESTARTS),
    "elr/cifar10/asymmetric": elr(
        "cifar10",
        "CIFAR-10, asymmetric",
        steps(40, 80),
        120,
        noise={"AsymmetricNoise": {"rate": 0.4, "mapping": "cifar10"}},
    ),
    "elr/cifar100": elr("cifar100", "CIFAR-100", steps(80, 120)),
    **{f"sat/{name}": sat(name) for name in DATA},
}
