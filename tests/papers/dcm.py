"""Connection masking (DCM, arXiv 2508.09697): table 12, the baselines and the ablations."""

from tests.papers import gjs, strategies
from tests.papers.settings import CROSS_ENTROPY, Settings
from tests.papers.strategies import disc, divide_mix, sed, strategy

NCE_RCE = {"NormalizedCrossEntropy": {}, "ReverseCrossEntropy": {}}
SHORT = {"cifar10": ("CNN8", 120, 0.01, 1e-4), "cifar100": ("ResNet34", 200, 0.1, 1e-5)}
"""Network, epochs, lr, wd."""
LOSSES = {  # ANL, APL, GCE and SCE as in the code of ANL and APL, NLNL as in that of APL, SR as in that of SR
    "cifar10": {
        "ce": CROSS_ENTROPY,
        "apl": {"ActivePassiveLoss": {**NCE_RCE, "alpha": 1, "beta": 1}},
        "anl": {"ActiveNegativeLoss": {"alpha": 5, "beta": 5, "delta": 5e-5}},
        "gce": {"GeneralizedCrossEntropy": {"q": 0.7}},
        "sce": {"SymmetricCrossEntropy": {"alpha": 0.1, "beta": 1}},
        "nlnl": {"NegativeLearning": {"num_negatives": 1}},
        "sr": {"SparseRegularization": {"CrossEntropyLoss": {}, "tau": 0.5, "lam": 1.2, "p": 0.1, "rho": 1.03}},
    },
    "cifar100": {
        "ce": CROSS_ENTROPY,
        "apl": {"ActivePassiveLoss": {**NCE_RCE, "alpha": 10, "beta": 0.1}},
        "anl": {"ActiveNegativeLoss": {"alpha": 10, "beta": 1, "delta": 5e-7}},
        "gce": {"GeneralizedCrossEntropy": {"q": 0.7}},
        "sce": {"SymmetricCrossEntropy": {"alpha": 6, "beta": 0.1}},
        "nlnl": {"NegativeLearning": {"num_negatives": 110}},
        "sr": {"SparseRegularization": {"CrossEntropyLoss": {}, "tau": 0.5, "lam": 4, "p": 0.01, "rho": 1.02}},
    },
}
LINEAR, KAN = {"LinearHead": {}}, {"KANHead": {}}


def masked(head, **arguments):
    """At the ratio that everything has."""
    return head, {"MaskRefresh": arguments, "MaskTracker": {}}


VARIANTS = {"": (LINEAR, {}), "-dfc": masked(LINEAR), "-dkan": masked(KAN)}
EDGE, IMPORTANT, ALWAYS = {"granularity": "edge"}, {"drop": "important"}, {"apply_in": "always"}
CIFAR10_ABLATIONS = {
    "ce-kan": (KAN, {}),
    "ce-per-epoch": masked(LINEAR, every_n_epochs=1),
    "ce-dfc-test-time": masked(LINEAR, **ALWAYS),
    "ce-dkan-test-time": masked(KAN, **ALWAYS),
    "anl-kan": (KAN, {}),
    "anl-by-weight": masked(LINEAR, score="signed"),
    "anl-by-cdr": masked(LINEAR, score="gradient"),
    "anl-edge-wise": masked(LINEAR, **EDGE),
    "anl-important": masked(LINEAR, **IMPORTANT),
    "anl-per-epoch": masked(LINEAR, every_n_epochs=1),
    "anl-dkan-edge-wise": masked(KAN, **EDGE),
    "anl-dkan-important": masked(KAN, **IMPORTANT),
    # SEM; for each input "activation" would be the mask of DFC on a linear head.
    "anl-obd": masked(LINEAR, score="obd"),
    "anl-dkan-obd": masked(KAN, score="obd"),
    "anl-activation": masked(LINEAR, score="activation", **EDGE),
    "anl-dkan-activation": masked(KAN, score="activation"),
}
CIFAR100_ABLATIONS = {  # table 3
    "anl-dropout": ({"DropoutHead": {"ratio": 0.5}}, {}),
    "anl-dropconnect": ({"DropConnectHead": {"ratio": 0.5}}, {}),
    "anl-cdr": (LINEAR, {"CDR": {"noise_rate": 0.8}}),
}


def dcm(dataset, loss, head=LINEAR, method=None):
    """DCM, table 12, with the losses and weights of the papers it builds on; ANL has L1 instead of weight decay."""
    net, epochs, lr, wd = SHORT[dataset]
    return Settings(
        epochs,
        net,
        128,
        lr,
        0.0 if loss == "anl" else wd,
        {"CosineAnnealingLR": {"T_max": epochs}},
        LOSSES[dataset][loss],
        method or {},
        noise={"SymmetricNoise": {"rate": 0.8}},
        head=head,
        clip=5.0,
        data=f"{dataset.upper()}DataModule",
    )


def selection(**data):
    """The setting of DISC and SED; the hidden layer is that of SED's code."""
    net, cosine = {"CNN7": {"hidden": 512}}, {"CosineAnnealingLR": {"T_max": 100}}
    return Settings(100, net, 128, 0.05, 5e-4, cosine, CROSS_ENTROPY, {}, **data)


def open_set(noise, **arguments):
    """CIFAR80N-O: the rate is that of the 80 classes."""
    closed = {"class_path": f"lightning_noisy.data.{noise}", "init_args": arguments}
    return selection(noise={"OpenSetNoise": {"closed": closed}}, data="CIFAR80NODataModule")


def drops(*milestones):
    """By ten."""
    return {"MultiStepLR": {"milestones": [*milestones], "gamma": 0.1}}


WEBVISION = Settings(
    100,
    {"TimmBackbone": {"name": "inception_resnet_v2"}},
    32,
    0.1,
    5e-4,
    drops(60, 80),
    CROSS_ENTROPY,
    {},
    noise={},
    data="WebVisionMiniDataModule",
    images={"image_size": 224, "resize": 256, "crop": "random"},
    sgd={},  # DISC's has no momentum
)
CLOTHING1M = Settings(
    100,
    {"TorchvisionBackbone": {"name": "resnet50", "weights": "IMAGENET1K_V1"}},
    32,
    0.01,
    5e-4,
    drops(50, 80),
    CROSS_ENTROPY,
    {},
    noise={},
    data="Clothing1MDataModule",
    images={"batches_per_epoch": 1000},
    sgd={},
)
GJS = {"GeneralizedJensenShannonLoss": {"pi": 0.1, "scaled": False}}
JITTERED = {"class_path": "torchvision.transforms.v2.ColorJitter", "init_args": gjs.JITTER}


def with_gjs(setting):
    """The arguments of GJS's code for WebVision."""
    return setting._replace(loss=GJS, images=gjs.augmented("GJS", JITTERED, **setting.images))


def cross_entropy_then_dmi(setting, start):
    """L_DMI goes on from cross entropy, and needs large batches."""
    stages = [{"class_path": "torch.nn.CrossEntropyLoss"}]
    stages += [{"class_path": "lightning_noisy.losses.DeterminantMutualInformation"}]
    return setting._replace(loss={"StagedLoss": {"stages": stages, "starts": [0, start]}}, batch=256)


MASKS, CDR = {"MaskRefresh": {}, "MaskTracker": {}}, {"CDR": {"noise_rate": 0.8}}
TWO_VIEWS = {"views": ["weak", "weak"]}
OURS = {  # table 12 tells the setting of DISC and SED alone; their momentum is that of their codes
    "co_teaching": {"strategy": strategy("co_teaching", forget_rate=0.8)},
    "co_teaching_plus": {"strategy": strategy("co_teaching_plus", forget_rate=0.8, warmup_epochs=5)},
    "jocor": {"strategy": strategy("jocor", forget_rate=0.8, agreement=0.85)},
    "jo_src": {
        "strategy": strategy("jo_src", warmup_epochs=10, smoothing=0.6, threshold=0.75, consistency=0.5),
        "images": TWO_VIEWS,
    },
    "co_ldl": {"strategy": strategy("co_ldl"), "images": TWO_VIEWS},
    "unicon": {
        "strategy": divide_mix("unicon", 30, 30.0),
        "images": {"views": ["weak", "weak", "strong", "strong"]},
    },
    "sprl": {"strategy": strategy("sprl", warmup_epochs=40, resistance=5.0, ramp_epochs=100)},
    "disc": {"strategy": disc(20, 0.95, 0.2), "images": strategies.strong(10), "sgd": {}},
    "sed": {"strategy": sed(0.999, 0.99, 0.95), "images": {"views": ["weak", "strong"]}, "sgd": strategies.NESTEROV},
}
SED_80 = OURS["sed"] | {"strategy": sed(0.95, 0.85, 0.99)}
"""Of CIFAR80N-O."""
HEADS = {
    "dfc": {"method": MASKS},
    "dkan": {"method": MASKS, "head": KAN},
    "kan": {"head": KAN},
    "dropout": {"head": {"DropoutHead": {"ratio": 0.5}}},
    "dropconnect": {"head": {"DropConnectHead": {"ratio": 0.5}}},
    "cdr": {"method": CDR},
}
MASKED = {"disc": ("dfc", "dkan"), "sed": ("dfc", "dkan", "kan")}


def chosen(folder, setting, methods, heads=MASKED):
    """The strategies in a setting, and two of them with other heads."""
    rows = {f"{folder}/{name}": setting._replace(**own) for name, own in methods.items()}
    for name, others in heads.items():
        rows |= {f"{folder}/{name}-{head}": rows[f"{folder}/{name}"]._replace(**HEADS[head]) for head in others}
    return rows


CNN7 = selection(noise={"SymmetricNoise": {"rate": 0.8}}, data="CIFAR100DataModule")
QUOTED = {  # their own recipes
    "webvision": ("elr_plus", "disc"),
    "clothing1m": ("elr_plus", "disc", "sure"),
}
OWN = {f"dcm/{data}/{name}": strategies.ROWS[f"{name}/{data}"] for data, names in QUOTED.items() for name in names}
SELECTION = {
    **chosen("dcm/cifar100-cnn7", CNN7, OURS, {**MASKED, "sed": tuple(HEADS)}),
    **chosen("dcm/cifar80no", open_set("SymmetricNoise", rate=0.8), OURS | {"sed": SED_80}),
    **OWN,
    **{
        f"{path}-{head}": OWN[path]._replace(**HEADS[head]) for path in OWN if "disc" in path for head in MASKED["disc"]
    },
    "dcm/clothing1m/sure-dfc": OWN["dcm/clothing1m/sure"]._replace(method=OWN["dcm/clothing1m/sure"].method | MASKS),
    "dcm/webvision/decoupling": WEBVISION._replace(strategy={"Decoupling": {"warmup_epochs": 0}}),
    "dcm/webvision/co_teaching": WEBVISION._replace(strategy=strategy("co_teaching", forget_rate=0.2)),
    "dcm/clothing1m/co_teaching": CLOTHING1M._replace(strategy=strategy("co_teaching", forget_rate=0.4)),
    "dcm/clothing1m/jocor": CLOTHING1M._replace(strategy=strategy("jocor", forget_rate=0.4, agreement=0.9)),
}

ROWS = {
    **{f"dcm/{dataset}": dcm(dataset, "ce") for dataset in SHORT},
    "dcm/cifar10/ce": dcm("cifar10", "ce"),
    **{f"dcm/{dataset}/{loss}": dcm(dataset, loss) for dataset in SHORT for loss in LOSSES[dataset] if loss != "ce"},
    **{
        f"dcm/{dataset}/{loss}{variant}": dcm(dataset, loss, *settings)
        for dataset in SHORT
        for loss in ("ce", "apl", "anl")
        for variant, settings in VARIANTS.items()
        if variant
    },
    **{f"dcm/cifar10/{name}": dcm("cifar10", name[: name.index("-")], *s) for name, s in CIFAR10_ABLATIONS.items()},
    **{f"dcm/cifar100/{name}": dcm("cifar100", "anl", *settings) for name, settings in CIFAR100_ABLATIONS.items()},
    **{f"dcm/{name}/anl-weight-decay": dcm(name, "anl")._replace(wd=wd) for name, (*_, wd) in SHORT.items()},
    "dcm/cifar100-cnn7": CNN7,
    "dcm/cifar80no": open_set("SymmetricNoise", rate=0.8),
    "dcm/cifar80no/asymmetric": open_set("AsymmetricNoise", rate=0.4, mapping="cifar80-superclass"),
    "dcm/cifar80no/pair-flip": open_set("PairFlipNoise", rate=0.4),
    "dcm/webvision": WEBVISION,
    "dcm/webvision/gjs": with_gjs(WEBVISION),
    "dcm/clothing1m": CLOTHING1M,
    "dcm/clothing1m/gjs": with_gjs(CLOTHING1M),
    "dcm/clothing1m/dmi": cross_entropy_then_dmi(CLOTHING1M, 50),
    **SELECTION,
}
