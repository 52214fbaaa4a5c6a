"""Connection masking (DCM, arXiv 2508.09697): table 12 and the ablations."""

from tests.papers.settings import CROSS_ENTROPY, Settings

APL = {"NormalizedCrossEntropy": {}, "ReverseCrossEntropy": {}}
SHORT = {  # per data set of DCM: network, epochs, lr, wd; weights of APL and of ANL
    "cifar10": ("CNN8", 120, 0.01, 1e-4, (1, 1), (5, 5, 5e-5)),
    "cifar100": ("ResNet34", 200, 0.1, 1e-5, (10, 0.1), (10, 1, 5e-7)),
}
KAN = {"KANHead": {}}
MASK = {"ratio": 0.5}
DCM_VARIANTS = {
    "": ({"LinearHead": {}}, {}),
    "-dfc": ({"LinearHead": {}}, {"MaskRefresh": MASK, "MaskTracker": {}}),
    "-dkan": (KAN, {"MaskRefresh": MASK, "MaskTracker": {}}),
}
DCM_ABLATIONS = {
    "-by-weight": ({"LinearHead": {}}, {"MaskRefresh": {**MASK, "score": "signed"}, "MaskTracker": {}}),
    "-edge-wise": ({"LinearHead": {}}, {"MaskRefresh": {**MASK, "granularity": "edge"}, "MaskTracker": {}}),
    "-important": ({"LinearHead": {}}, {"MaskRefresh": {**MASK, "drop": "important"}, "MaskTracker": {}}),
    "-per-epoch": ({"LinearHead": {}}, {"MaskRefresh": {**MASK, "every_n_epochs": 1}, "MaskTracker": {}}),
    "-test-time": ({"LinearHead": {}}, {"MaskRefresh": {**MASK, "apply_in": "always"}, "MaskTracker": {}}),
    "-cdr": ({"LinearHead": {}}, {"CDR": {"noise_rate": 0.8}}),
    "-dropout": ({"DropoutHead": {"ratio": 0.5}}, {}),
    "-dropconnect": ({"DropConnectHead": {"ratio": 0.5}}, {}),
}


def dcm(dataset, loss, head, method):
    """DCM, table 12, with the losses and weights of the papers it builds on; ANL has L1 instead of weight decay."""
    net, epochs, lr, wd, apl, anl = SHORT[dataset]
    losses = {
        "ce": CROSS_ENTROPY,
        "apl": {"ActivePassiveLoss": {**APL, "alpha": apl[0], "beta": apl[1]}},
        "anl": {"ActiveNegativeLoss": dict(zip(("alpha", "beta", "delta"), anl, strict=True))},
    }
    return Settings(
        epochs,
        net,
        128,
        lr,
        0.0 if loss == "anl" else wd,
        {"CosineAnnealingLR": {"T_max": epochs}},
        losses[loss],
        method,
        noise={"SymmetricNoise": {"rate": 0.8}},
        head=head,
        clip=5.0,
        data=f"{dataset.upper()}DataModule",
    )


ROWS = {
    **{
        f"dcm/{dataset}/{loss}{variant}".removesuffix("/ce"): dcm(dataset, loss, *settings)
        for dataset in SHORT
        for loss in ("ce", "apl", "anl")
        for variant, settings in DCM_VARIANTS.items()
    },
    **{f"dcm/cifar10/anl{name}": dcm("cifar10", "anl", *settings) for name, settings in DCM_ABLATIONS.items()},
}
