import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from lightning_noisy.cli import main
from tests import papers
from tests._dummies import DummyCIFAR10, DummyCIFAR100, isolate, quiet
from tests.papers.settings import Settings, named, plain

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
    assert set(map(name_of, PAPER_CONFIGS)) == set(papers.ROWS)


@pytest.mark.parametrize("name", papers.ROWS)
def test_settings_are_those_of_the_paper(name):
    config = read(ROOT / f"{name}.yaml")
    trainer, model, data = config["trainer"], config["model"]["init_args"], config["data"]["init_args"]
    shared = {"StepSeed", "ConfidenceTracker", "MemorizationTracker", "RunSummary", "ModelCheckpoint"}
    methods = [named(callback) for callback in trainer["callbacks"]]
    assert papers.ROWS[name] == Settings(
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
