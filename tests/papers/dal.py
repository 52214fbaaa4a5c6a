"""DAL (arXiv 2303.11562): one recipe for each data set, and a loss for each row."""

from tests.papers.losses import PAPER_SETTINGS
from tests.papers.settings import COSINE, CROSS_ENTROPY, SYMMETRIC, Settings, named, plain

DAL_ROWS = {
    "DAL": "dal",
    "DGCE": "dgce",
    "GCE": "gce",
    "SCE": "sce",
    "NLNL": "nlnl",
    "BTL": "btl",
    "NCE+RCE": "nce_rce",
    "TCE": "tce",
    "NCE+AGCE": "nce_agce",
    "CE+SR": "sr",
    "JS": "js",
    "Poly-1": "poly1",
    "dynamic TCE": "dynamic_tce",
    "dynamic JS": "dynamic_js",
    "ELR+DAL": "elr_dal",
}
JITTER = {"class_path": "torchvision.transforms.v2.ColorJitter"}
JITTER["init_args"] = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.2}
RANDAUGMENT = {"class_path": "lightning_noisy.data.StrongAugment"}
RANDAUGMENT["init_args"] = {"policy": "rand", "num_ops": 1, "magnitude": 3, "cutout": 0.5}

CIFAR = {
    "epochs": 150,
    "net": "ResNet18",
    "batch": 128,
    "lr": 0.01,
    "wd": 1e-4,
    "schedule": COSINE,
    "noise": SYMMETRIC,
}
RECIPES = {
    "CIFAR-10": ("cifar10", CIFAR | {"data": "CIFAR10DataModule"}),
    "CIFAR-100": ("cifar100", CIFAR | {"data": "CIFAR100DataModule"}),
    "ANIMAL-10N": ("animal10n", CIFAR | {"data": "Animal10NDataModule", "noise": {}}),
    "WebVision": (
        "webvision",
        {
            "epochs": 250,
            "net": {"TorchvisionBackbone": {"name": "resnet50"}},
            "batch": 128,  # on each of 4 GPUs
            "lr": 0.4,
            "wd": 3e-5,
            "schedule": {"StepLR": {"step_size": 1, "gamma": 0.97}},
            "noise": {},
            "clip": 5.0,
            "data": "WebVisionMiniDataModule",
            "images": {"image_size": 224, "resize": None, "views": ["strong"], "strong": JITTER},
            "sgd": {"momentum": 0.9, "nesterov": True},
            "machine": {"accelerator": "gpu", "devices": 4, "strategy": "ddp", "sync_batchnorm": True},
        },
    ),
}
GJS = {
    "epochs": 200,
    "schedule": {"CosineAnnealingLR": {"T_max": 200}},
    "images": {"views": ["strong", "strong"], "strong": RANDAUGMENT},
}


def dal(data, setting, **others):
    """Path without its method, and settings."""
    dataset, recipe = RECIPES[data]
    loss = {setting["class_path"].rpartition(".")[2]: setting["init_args"]}
    method = {key: value for callback in setting.get("callbacks", []) for key, value in named(callback).items()}
    return dataset, Settings(**recipe | others, loss=plain(loss), method=method)


SETTINGS = PAPER_SETTINGS["DAL"]
ROWS = {
    **{f"ce/{dataset}": Settings(**recipe, loss=CROSS_ENTROPY, method={}) for dataset, recipe in RECIPES.values()},
    **{
        f"{name}/{dataset}": settings
        for row, name in DAL_ROWS.items()
        for dataset, settings in (dal(data, setting) for data, setting in SETTINGS[row].items())
    },
    "elr_dal/cifar100-elr": dal("CIFAR-100", SETTINGS["ELR"]["CIFAR-100"])[1],
    "gjs_dal/cifar100": dal("CIFAR-100", SETTINGS["GJS+DAL"]["CIFAR-100"], **GJS)[1],
    "gjs_dal/cifar100-gjs": dal("CIFAR-100", SETTINGS["GJS"]["CIFAR-100"], **GJS)[1],
}
