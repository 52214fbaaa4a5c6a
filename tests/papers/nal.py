"""NAL (NeurIPS 2022), RNAL, the ablations and what it compares with, ELR and SAT among them."""

from tests.papers import selc
from tests.papers.dcm import cross_entropy_then_dmi
from tests.papers.losses import PAPER_SETTINGS
from tests.papers.selc import ANIMAL10N, CROP227, labels
from tests.papers.settings import CROSS_ENTROPY, RESTARTS, Settings, named, plain

DATA = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}


def loss(paper, row, data):
    """The loss as it is published."""
    return plain(named(PAPER_SETTINGS[paper][row][data]))


def targets(es):
    """NAL's code counts epochs from 1, begins at es, and moves targets in epochs 10, 20, ... at the lowest rates."""
    return {"SELC": {"momentum": 0.9, "warmup_epochs": es - 1, "every_n_epochs": 10, "floor": 1e-4}}


def nal(dataset, row="NAL", method=None, batch=64, **noise):
    """Class-conditional noise; of PMD noise the batch size is known, and the network: PLC's post-activation one."""
    method = targets(60) if method is None else method
    published = loss("NAL", row, DATA[dataset])
    data = f"{dataset.upper()}DataModule"
    return Settings(500, "ResNet34", batch, 0.02, 1e-3, RESTARTS, published, method, data=data, **noise)


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


TEXT = {"SELC": {"momentum": 0.9}}
"""The text has neither a floor nor a gate: targets move in each epoch, from the first on."""


def as_in_the_text(settings, lam):
    """Without floors, gate and RNAL's term; es is in an appendix that is not at hand."""
    return settings._replace(loss={"NoiseAttentionLoss": {"lam": lam}}, method=TEXT)


def nlnl(negatives):
    """Three stages that hand on ten epochs of probabilities."""
    arguments = {"num_negatives": negatives, "window": 10}
    stages = {
        "NegativeLearning": arguments,
        "SelectiveNegativeLearning": arguments,
        "SelectivePositiveLearning": {"threshold": 0.5, "window": 10},
    }
    paths = [{"class_path": f"lightning_noisy.losses.{name}", "init_args": given} for name, given in stages.items()]
    return {"StagedLoss": {"stages": paths, "starts": [0, 720, 1440]}}


def baselines(dataset):
    """Of table 1, in the setting of NAL, with the arguments of their own papers."""
    negatives, sce = {"cifar10": (1, (0.1, 1.0)), "cifar100": (110, (6.0, 0.1))}[dataset]
    ce = nal(dataset, method={})._replace(loss=CROSS_ENTROPY)
    labels_of_joint = {"JointOptimizationLabels": {"warmup_epochs": 70, "window": 10}}
    return {
        "ce": ce,
        "forward": ce._replace(
            loss={"ForwardCorrection": {"transition": f"runs/nal/{dataset}/ce/version_0/transition.npy"}}
        ),
        "bootstrap": ce._replace(loss={"Bootstrapping": {"beta": 0.95}}),
        "gce": ce._replace(loss={"GeneralizedCrossEntropy": {"q": 0.7, "eps": 0.0}}),
        "joint": ce._replace(loss={"JointOptimization": {"alpha": 1.0, "beta": 0.5}}, method=labels_of_joint),
        "nlnl": ce._replace(loss=nlnl(negatives), epochs=2160),
        "sce-baseline": ce._replace(loss={"SymmetricCrossEntropy": dict(zip(("alpha", "beta"), sce, strict=True))}),
        "dac": ce._replace(loss={"DeepAbstainingClassifier": {"warmup_epochs": 20}}),
    }


CLOTHING1M = selc.ROWS["selc/clothing1m"]._replace(method={})
"""Baselines start from ImageNet, as in SELC by the same authors."""
ELR = {"EarlyLearningRegularization": {"lam": 3.0, "momentum": 0.7}}
"""Of ELR+ on Clothing1M and WebVision."""
SCE = {"SymmetricCrossEntropy": {"alpha": 10.0, "beta": 1.0}}

CODE = {
    **{f"nal/{name}": nal(name) for name in DATA},
    **{f"nal/{name}/confidence": nal(name, "NAL, confidence") for name in DATA},
    **{f"nal/{name}/no-targets": nal(name, method={}) for name in DATA},
    **{f"nal/{name}/pmd": nal(name, batch=128, noise=labels(f"data/pmd/{name}-1-0.35.npy")) for name in DATA},
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
WEBVISION = CODE["nal/webvision"]._replace(loss=CROSS_ENTROPY, method={})
ROWS = {
    **CODE,
    **{f"nal/{name}/{row}": settings for name in DATA for row, settings in baselines(name).items()},
    **{
        f"nal/{name}/text": as_in_the_text(CODE[f"nal/{name}"], lam)._replace(noise={"SymmetricNoise": {"rate": 0.4}})
        for name, lam in (("cifar10", 0.5), ("cifar100", 10.0))
    },
    **{f"nal/{name}/text": as_in_the_text(CODE[f"nal/{name}"], 50.0) for name in ("clothing1m", "webvision")},
    "nal/animal10n/ce": CODE["nal/animal10n"]._replace(loss=CROSS_ENTROPY, method={}),
    "nal/clothing1m/ce": CLOTHING1M,
    "nal/clothing1m/sce": CLOTHING1M._replace(loss=SCE),
    "nal/clothing1m/elr": CLOTHING1M._replace(loss=ELR),
    "nal/clothing1m/dmi": cross_entropy_then_dmi(CLOTHING1M, 10),
    "nal/webvision/ce": WEBVISION,
    "nal/webvision/sce": WEBVISION._replace(loss=SCE),
    "nal/webvision/elr": WEBVISION._replace(loss=ELR),
}
