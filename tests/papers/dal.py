"""DAL (arXiv 2303.11562): one recipe for each data set, and a loss for each row."""

from tests.papers import gjs, nal
from tests.papers import strategies as others
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
}
JITTER = {"class_path": "torchvision.transforms.v2.ColorJitter"}
JITTER["init_args"] = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.2}

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
    # The text leaves max-pooling out for CIFAR alone; the network of the code has it, and stride 1 before.
    "ANIMAL-10N": (
        "animal10n",
        CIFAR | {"data": "Animal10NDataModule", "noise": {}, "net": {"ResNet18": {"max_pool": True}}},
    ),
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
SETTINGS = PAPER_SETTINGS["DAL"]


def parts(setting):
    """Loss and method."""
    method = {key: value for callback in setting.get("callbacks", []) for key, value in named(callback).items()}
    return {"loss": plain(named(setting)), "method": method}


def dal(data, setting):
    """Path without its method, and settings."""
    dataset, recipe = RECIPES[data]
    return dataset, Settings(**recipe, **parts(setting))


def with_others(row):
    """On the settings of ELR's and GJS's own code; of GJS it says 200 epochs."""
    elr = nal.elr("cifar100", "CIFAR-100", nal.steps(80, 120))
    drops = {"MultiStepLR": {"milestones": [100, 150], "gamma": 0.1}}
    own = {"ELR": elr, "GJS": gjs.cifar("GJS", "CIFAR-100", 0.2, 5e-5)._replace(epochs=200, schedule=drops)}
    return own[row[:3]]._replace(**parts(SETTINGS[row]["CIFAR-100"]))


FORGET = {"forget_rate": 0.4}


def warmed(**arguments):
    """From cross entropy to absolute error, for each network alike."""
    schedules = [{"q_start": 0.0, "q_end": 1.0, "target": f"losses.{network}"} | arguments for network in (0, 1)]
    return {"loss": {"DynamicsAwareLoss": {"q": 0.0}}, "method": {"DALSchedule": schedules}}


def on_two_networks():
    """Co-teaching, JoCoR and DivideMix as in their codes, alone and with DAL; DivideMix has 200 epochs."""
    rows = {name: others.ROWS[f"{name}/cifar100"]._replace(noise=SYMMETRIC) for name in ("co_teaching", "jocor")}
    for name, row in rows.items():
        rows[name] = row._replace(strategy={kind: own | FORGET for kind, own in row.strategy.items()})
    rows["divide_mix"] = others.ROWS["divide_mix/cifar100"]._replace(noise=SYMMETRIC, epochs=200)
    agreed = {"DivideMix": rows["divide_mix"].strategy["DivideMix"] | {"agreement_epochs": 10}}
    further = {"divide_mix": {"strategy": agreed, **warmed(total_epochs=30)}}
    return {
        **{f"{name}_dal/cifar100-{name}": row for name, row in rows.items()},
        **{f"{name}_dal/cifar100": row._replace(**further.get(name, warmed())) for name, row in rows.items()},
    }


TRIGGERS = {"local": "LocalTrigger", "global": "GlobalTrigger"}


def backdoors(data, trigger):
    """The three losses of table 6, without other noise; what the trigger is, is ours."""
    dataset, recipe = RECIPES[data]
    backdoor = {"class_path": f"lightning_noisy.data.{TRIGGERS[trigger]}", "init_args": {"rate": 0.01}}
    attacked, path = {"noise": {}, "images": {"backdoor": backdoor}}, f"backdoor/{dataset}-{trigger}"
    return {
        path: dal(data, SETTINGS["DAL"][data])[1]._replace(**attacked),
        f"{path}-gce": dal(data, SETTINGS["GCE"][data])[1]._replace(**attacked),
        f"{path}-ce": Settings(**recipe | attacked, loss=CROSS_ENTROPY, method={}),
    }


ROWS = {
    **{f"ce/{dataset}": Settings(**recipe, loss=CROSS_ENTROPY, method={}) for dataset, recipe in RECIPES.values()},
    **{
        f"{name}/{dataset}": settings
        for row, name in DAL_ROWS.items()
        for dataset, settings in (dal(data, setting) for data, setting in SETTINGS[row].items())
    },
    "elr_dal/cifar100": with_others("ELR+DAL"),
    "elr_dal/cifar100-elr": with_others("ELR"),
    "gjs_dal/cifar100": with_others("GJS+DAL"),
    "gjs_dal/cifar100-gjs": with_others("GJS"),
    **on_two_networks(),
    **{
        path: settings
        for data in ("CIFAR-10", "CIFAR-100")
        for trigger in TRIGGERS
        for path, settings in backdoors(data, trigger).items()
    },
}
