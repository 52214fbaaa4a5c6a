import importlib
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml

from lightning_noisy.cli import main
from lightning_noisy.losses import PAPER_SETTINGS
from tests._dummies import DummyCIFAR10, DummyCIFAR100, isolate, quiet

ROOT = Path(__file__).parents[1] / "configs"
CONFIGS = sorted(ROOT.rglob("*.yaml"))
PAPER_CONFIGS = [path for path in CONFIGS if path.parent != ROOT]


def base_of(config):
    """The file a config goes on top of, which its first line names."""
    named = re.search(r"on top of (\S+\.yaml)", config.read_text().splitlines()[0])
    return None if named is None else (config.parent / named[1]).resolve()


def name_of(config):
    return str(config.relative_to(ROOT).with_suffix(""))


WHOLE_CONFIGS = [path for path in CONFIGS if base_of(path) is None]
each_config = pytest.mark.parametrize("config", CONFIGS, ids=name_of)
each_whole_config = pytest.mark.parametrize("config", WHOLE_CONFIGS, ids=name_of)
each_paper_config = pytest.mark.parametrize("config", PAPER_CONFIGS, ids=name_of)

SYMMETRIC = {"SymmetricNoise": {"rate": 0.4, "include_true_class": True}}
COSINE = {"CosineAnnealingLR": {"T_max": 150}}
RESTARTS = {"CosineAnnealingWarmRestarts": {"T_0": 10, "eta_min": 1e-3}}
STEPS = {"MultiStepLR": {"milestones": [40, 80], "gamma": 0.1}}
CROSS_ENTROPY = {"CrossEntropyLoss": {}}


class Settings(NamedTuple):
    """A row of a paper's table of settings: class name -> arguments where something is a class."""

    epochs: int
    net: str
    batch: int
    lr: float
    wd: float
    schedule: dict
    loss: dict
    method: dict
    noise: dict = SYMMETRIC
    val: float = 0.0
    head: dict = {"LinearHead": {}}  # noqa: RUF012
    clip: float | None = None
    data: str = "CIFAR10DataModule"


SELC = {"SELC": {"momentum": 0.9, "warmup_epochs": 30}}
# NAL's code counts epochs from 1 and begins at es = 60.
NAL = {"SELC": {"momentum": 0.9, "warmup_epochs": 60 - 1, "every_n_epochs": 10, "floor": 1e-4}}
ELR = {"EarlyLearningRegularization": {"lam": 3.0, "momentum": 0.7}}
HUMAN = {"FileNoise": {"path": "data/cifar10n.npz", "key": "worse"}}

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


def named(entry):
    """{class name: arguments} of an entry with class_path and init_args."""
    return {entry["class_path"].rpartition(".")[2]: entry.get("init_args", {})}


def plain(loss):
    """A loss made of losses: theirs beside its own arguments."""
    ((name, arguments),) = loss.items()
    parts = [argument for argument in arguments.values() if isinstance(argument, dict)]
    numbers = {key: value for key, value in arguments.items() if not isinstance(value, dict)}
    return {name: {**numbers, **{key: value for part in parts for key, value in named(part).items()}}}


DAL_ROWS = {
    "DAL": "dal",
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


def dal(dataset, setting):
    """DAL, table 1 and section 5: one recipe for all losses."""
    loss = {setting["class_path"].rpartition(".")[2]: setting["init_args"]}
    method = {key: value for callback in setting.get("callbacks", []) for key, value in named(callback).items()}
    data = f"{dataset.upper()}DataModule"
    return Settings(150, "ResNet18", 128, 0.01, 1e-4, COSINE, plain(loss), method, data=data)


def dgce(q):
    """DAL without bootstrapping, a row of its table."""
    schedule = {"class_path": "DALSchedule", "init_args": {"q_start": q, "q_end": 1.5, "lam_end": 0.0}}
    return {"class_path": "DynamicsAwareLoss", "init_args": {"q": q}, "callbacks": [schedule]}


PAPERS = {
    "ce/cifar10": Settings(150, "ResNet18", 128, 0.01, 1e-4, COSINE, CROSS_ENTROPY, {}),
    "ce/cifar100": dal("cifar100", {"class_path": "CrossEntropyLoss", "init_args": {}}),
    "dgce/cifar10": dal("cifar10", dgce(0.8)),
    "dgce/cifar100": dal("cifar100", dgce(0.6)),
    **{
        f"{name}/{dataset}": dal(dataset, PAPER_SETTINGS["DAL"][row][data])
        for row, name in DAL_ROWS.items()
        for dataset, data in (("cifar10", "CIFAR-10"), ("cifar100", "CIFAR-100"))
        if data in PAPER_SETTINGS["DAL"][row]
    },
    "selc/cifar10": Settings(200, "ResNet34", 128, 0.02, 1e-3, STEPS, CROSS_ENTROPY, SELC),
    "selc/cifar10n": Settings(200, "ResNet34", 128, 0.02, 1e-3, STEPS, CROSS_ENTROPY, SELC, noise=HUMAN),
    "nal/cifar10": Settings(500, "ResNet34", 64, 0.02, 1e-3, RESTARTS, {"NoiseAttentionLoss": {"lam": 0.5}}, NAL),
    "gss/cifar10": Settings(150, "ResNet18", 128, 0.01, 5e-4, COSINE, CROSS_ENTROPY, {"GradientSwitching": {}}),
    "elr/cifar10": Settings(150, "ResNet34", 128, 0.02, 1e-3, RESTARTS, ELR, {}, val=0.1),
    **{
        f"dcm/{dataset}/{loss}{variant}".removesuffix("/ce"): dcm(dataset, loss, *settings)
        for dataset in SHORT
        for loss in ("ce", "apl", "anl")
        for variant, settings in DCM_VARIANTS.items()
    },
    **{f"dcm/cifar10/anl{name}": dcm("cifar10", "anl", *settings) for name, settings in DCM_ABLATIONS.items()},
}


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch, tmp_path):
    """A folder of its own, small CIFAR-10 and CIFAR-100, and human labels of the first."""
    isolate(monkeypatch, tmp_path)
    monkeypatch.setattr("lightning_noisy.data.cifar.CIFAR10", DummyCIFAR10)
    monkeypatch.setattr("lightning_noisy.data.cifar.CIFAR100", DummyCIFAR100)
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "cifar10n.npz", worse=np.arange(40, dtype=np.uint8) % 7)


def read(config):
    """A config as it is with what it goes on top of."""
    own = yaml.safe_load(config.read_text())
    base = base_of(config)
    return own if base is None else merged(read(base), own)


def merged(lower, upper):
    """What the command line makes of two files: another class takes none of the old arguments, ``key+`` appends."""
    if "class_path" in upper and upper["class_path"] != lower.get("class_path"):
        return upper
    result = dict(lower)
    for key, value in upper.items():
        if key.endswith("+"):
            result[key[:-1]] = lower[key[:-1]] + value
        else:
            result[key] = merged(lower[key], value) if isinstance(value, dict) and key in lower else value
    return result


def files(config):
    """Arguments that name a config, after the one that it goes on top of."""
    base = base_of(config)
    return [config] if base is None else [base, "--config", config]


def small(config):
    """Arguments that make a run of the config small: network, batches, epochs."""
    channels = 3 if "CIFAR" in read(config)["data"]["class_path"] else 1
    backbone = ["--model.backbone", "lightning_noisy.networks.SmallCNN", "--model.backbone.in_channels", str(channels)]
    sizes = ["--model.backbone.width", "4", "--model.backbone.num_features", "16", "--data.num_workers", "0"]
    batches = ["--data.batch_size", "16", "--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "1"]
    return [*backbone, *sizes, *batches, "--trainer.accelerator", "cpu", "--trainer.max_epochs", "2"]


def printed_config(capsys, *arguments):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["fit", *map(str, arguments), "--print_config"])
    assert stop.value.code == 0
    return capsys.readouterr().out


def class_paths(node):
    if isinstance(node, dict):
        yield from ([node["class_path"]] if "class_path" in node else [])
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from class_paths(child)


@each_config
class TestEveryConfig:
    def test_runs(self, config):
        cli = quiet("fit", *files(config), *small(config))
        assert cli.trainer.current_epoch == 2
        folder = Path("runs", read(config)["trainer"]["logger"]["init_args"]["name"], "version_0")
        written = {path.name for path in folder.iterdir()}
        assert {"config.yaml", "noise.json", "noisy_labels.npz", "summary.json", "checkpoints"} <= written
        assert (folder / "checkpoints" / "last.ckpt").exists() == (config in PAPER_CONFIGS)

    def test_full_class_paths(self, config):
        paths = list(class_paths(read(config)))
        assert len(paths) >= 8
        assert all("." in path for path in paths)
        for path in paths:
            module, _, name = path.rpartition(".")
            assert isinstance(getattr(importlib.import_module(module), name), type)

    def test_evidence(self, config):
        trainer = read(config)["trainer"]
        assert {"StepSeed", "ConfidenceTracker", "RunSummary"} <= {
            name for c in trainer["callbacks"] for name in named(c)
        }
        logger = trainer["logger"]["init_args"]
        assert (logger["save_dir"], logger["name"]) == ("runs", name_of(config))

    @pytest.mark.slow
    def test_runs_with_its_own_network(self, config):
        run_with_own_network(config)


@each_whole_config
class TestEveryWholeConfig:
    def test_printed_config_runs_and_prints_itself(self, config, capsys):
        text = printed_config(capsys, "--config", config)
        Path("printed.yaml").write_text(text)
        assert printed_config(capsys, "--config", "printed.yaml") == text
        quiet("fit", "printed.yaml", *small(config), "--trainer.fast_dev_run", "true")

    def test_saved_config_is_what_was_asked_for_and_runs_again(self, config, capsys):
        arguments = [*small(config), "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1"]
        folder = quiet("fit", config, *arguments).trainer.log_dir
        again = quiet("fit", Path(folder, "config.yaml"))
        first, second = (Path(run, "config.yaml").read_text() for run in (folder, again.trainer.log_dir))
        assert first == second
        assert folder != again.trainer.log_dir
        assert yaml.safe_load(first)["data"]["init_args"]["batch_size"] == 16


def run_with_own_network(config):
    tiny = ["--data.batch_size", "8", "--data.num_workers", "0", "--trainer.accelerator", "cpu"]
    quiet("fit", *files(config), *tiny, "--trainer.fast_dev_run", "true")


def test_one_config_runs_with_its_own_network():
    run_with_own_network(ROOT / "dal" / "cifar10.yaml")


def test_every_paper_config_is_in_the_table():
    assert set(map(name_of, PAPER_CONFIGS)) == set(PAPERS)


@pytest.mark.parametrize("name", PAPERS)
def test_settings_are_those_of_the_paper(name):
    config = read(ROOT / f"{name}.yaml")
    trainer, model, data = config["trainer"], config["model"]["init_args"], config["data"]["init_args"]
    shared = {"StepSeed", "ConfidenceTracker", "MemorizationTracker", "RunSummary", "ModelCheckpoint"}
    methods = [named(callback) for callback in trainer["callbacks"]]
    assert PAPERS[name] == Settings(
        epochs=trainer["max_epochs"],
        net=next(iter(named(model["backbone"]))),
        batch=data["batch_size"],
        lr=model["optimizer"]["init_args"]["lr"],
        wd=model["optimizer"]["init_args"]["weight_decay"],
        schedule=named(model["lr_scheduler"]),
        loss=plain(named(model["loss"])),
        method={key: value for entry in methods for key, value in entry.items() if key not in shared},
        noise=named(data["noise"]),
        val=data.get("val_fraction", 0.0),
        head=named(model["head"]),
        clip=trainer.get("gradient_clip_val"),
        data=next(iter(named(config["data"]))),
    )
    assert list(named(model["optimizer"])) == ["SGD"]
    assert model["optimizer"]["init_args"]["momentum"] == 0.9
    assert model["num_classes"] == (100 if "100" in config["data"]["class_path"] else 10)
    assert config["seed_everything"] == 0
    assert "lightning.pytorch.callbacks.ModelCheckpoint" in class_paths(trainer["callbacks"])


@each_paper_config
def test_first_line_says_where_it_comes_from(config):
    first, second = config.read_text().splitlines()[:2]
    assert first.startswith("# ")
    assert "Unknown: " in first
    assert not second.startswith("#")


def test_quickstart_ce_is_the_quickstart_without_its_robust_parts():
    robust, plain = read(ROOT / "quickstart.yaml"), read(ROOT / "quickstart_ce.yaml")
    parts = {"lightning_noisy.callbacks.MaskRefresh", "lightning_noisy.callbacks.SELC"}
    callbacks = robust["trainer"]["callbacks"]
    robust["trainer"]["callbacks"] = [callback for callback in callbacks if callback["class_path"] not in parts]
    robust["trainer"]["logger"]["init_args"]["name"] = "quickstart_ce"
    robust["model"]["init_args"]["loss"] = {"class_path": "torch.nn.CrossEntropyLoss"}
    assert plain == robust
