import importlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml

from lightning_noisy.cli import main
from tests._dummies import DummyCIFAR10, isolate, quiet

ROOT = Path(__file__).parents[1] / "configs"
CONFIGS = sorted(ROOT.rglob("*.yaml"))
PAPER_CONFIGS = [path for path in CONFIGS if path.parent != ROOT]
each_config = pytest.mark.parametrize("config", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))

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


DAL = {"DALSchedule": {"q_start": 0.8, "q_end": 1.5, "lam_end": 1.0}}
SELC = {"SELC": {"momentum": 0.9, "warmup_epochs": 30}}
# NAL's code counts epochs from 1 and begins at es = 60.
NAL = {"SELC": {"momentum": 0.9, "warmup_epochs": 60 - 1, "every_n_epochs": 10, "floor": 1e-4}}
ELR = {"EarlyLearningRegularization": {"lam": 3.0, "momentum": 0.7}}
HUMAN = {"FileNoise": {"path": "data/cifar10n.npz", "key": "worse"}}
PAPERS = {
    "ce/cifar10": Settings(150, "ResNet18", 128, 0.01, 1e-4, COSINE, CROSS_ENTROPY, {}),
    "dal/cifar10": Settings(150, "ResNet18", 128, 0.01, 1e-4, COSINE, {"DynamicsAwareLoss": {"q": 0.8}}, DAL),
    "selc/cifar10": Settings(200, "ResNet34", 128, 0.02, 1e-3, STEPS, CROSS_ENTROPY, SELC),
    "selc/cifar10n": Settings(200, "ResNet34", 128, 0.02, 1e-3, STEPS, CROSS_ENTROPY, SELC, noise=HUMAN),
    "nal/cifar10": Settings(500, "ResNet34", 64, 0.02, 1e-3, RESTARTS, {"NoiseAttentionLoss": {"lam": 0.5}}, NAL),
    "gss/cifar10": Settings(150, "ResNet18", 128, 0.01, 5e-4, COSINE, CROSS_ENTROPY, {"GradientSwitching": {}}),
    "elr/cifar10": Settings(150, "ResNet34", 128, 0.02, 1e-3, RESTARTS, ELR, {}, val=0.1),
}


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch, tmp_path):
    """A folder of its own, CIFAR-10 of 40 images, and their human labels."""
    isolate(monkeypatch, tmp_path)
    monkeypatch.setattr("lightning_noisy.data.cifar.CIFAR10", DummyCIFAR10)
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "cifar10n.npz", worse=np.arange(40, dtype=np.uint8) % 7)


def read(config):
    return yaml.safe_load(config.read_text())


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


def named(entry):
    """{class name: arguments} of an entry with class_path and init_args."""
    return {entry["class_path"].rpartition(".")[2]: entry.get("init_args", {})}


@each_config
class TestEveryConfig:
    def test_runs(self, config):
        cli = quiet("fit", config, *small(config))
        assert cli.trainer.current_epoch == 2
        folder = Path("runs", read(config)["trainer"]["logger"]["init_args"]["name"], "version_0")
        written = {path.name for path in folder.iterdir()}
        assert {"config.yaml", "noise.json", "noisy_labels.npz", "summary.json", "checkpoints"} <= written
        assert (folder / "checkpoints" / "last.ckpt").exists() == (config in PAPER_CONFIGS)

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

    def test_full_class_paths(self, config):
        paths = list(class_paths(read(config)))
        assert len(paths) >= 8
        for path in paths:
            module, _, name = path.rpartition(".")
            assert isinstance(getattr(importlib.import_module(module), name), type)

    def test_evidence(self, config):
        trainer = read(config)["trainer"]
        assert {"StepSeed", "ConfidenceTracker", "RunSummary"} <= {
            name for c in trainer["callbacks"] for name in named(c)
        }
        logger = trainer["logger"]["init_args"]
        assert (logger["save_dir"], logger["name"]) == ("runs", str(config.relative_to(ROOT).with_suffix("")))

    @pytest.mark.slow
    def test_runs_with_its_own_network(self, config):
        run_with_own_network(config)


def run_with_own_network(config):
    tiny = ["--data.batch_size", "8", "--data.num_workers", "0", "--trainer.accelerator", "cpu"]
    quiet("fit", config, *tiny, "--trainer.fast_dev_run", "true")


def test_one_config_runs_with_its_own_network():
    run_with_own_network(ROOT / "dal" / "cifar10.yaml")


def test_every_paper_config_is_in_the_table():
    assert {str(path.relative_to(ROOT).with_suffix("")) for path in PAPER_CONFIGS} == set(PAPERS)


@pytest.mark.parametrize("name", PAPERS)
def test_settings_are_those_of_the_paper(name):
    config = read(ROOT / f"{name}.yaml")
    trainer, model, data = config["trainer"], config["model"]["init_args"], config["data"]["init_args"]
    shared = {"StepSeed", "ConfidenceTracker", "RunSummary", "ModelCheckpoint"}
    methods = [named(callback) for callback in trainer["callbacks"]]
    assert PAPERS[name] == Settings(
        epochs=trainer["max_epochs"],
        net=next(iter(named(model["backbone"]))),
        batch=data["batch_size"],
        lr=model["optimizer"]["init_args"]["lr"],
        wd=model["optimizer"]["init_args"]["weight_decay"],
        schedule=named(model["lr_scheduler"]),
        loss=named(model["loss"]),
        method={key: value for entry in methods for key, value in entry.items() if key not in shared},
        noise=named(data["noise"]),
        val=data.get("val_fraction", 0.0),
    )
    assert list(named(model["optimizer"])) == ["SGD"]
    assert model["optimizer"]["init_args"]["momentum"] == 0.9
    assert model["num_classes"] == 10
    assert config["seed_everything"] == 0
    assert "lightning.pytorch.callbacks.ModelCheckpoint" in class_paths(trainer["callbacks"])


@pytest.mark.parametrize("config", PAPER_CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
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
