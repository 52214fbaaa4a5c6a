import importlib
import json
import re
from copy import deepcopy
from functools import reduce
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from torchvision.models import get_model

from lightning_noisy.callbacks import MaskRefresh
from lightning_noisy.cli import main, run
from lightning_noisy.recipes import config_values, on_top, recipe_names
from tests import papers
from tests._dummies import (
    DummyCIFAR10,
    DummyCIFAR100,
    isolate,
    quiet,
    write_animal10n,
    write_clothing1m,
    write_imagenet,
    write_webvision,
)
from tests.catalog import layers_of, settings_of
from tests.papers.settings import Settings, acting, brief, named, plain, stepper, together

ROOT = Path(__file__).parents[1] / "configs"
CONFIGS = sorted(ROOT.rglob("*.yaml"))
OWN_CONFIGS = sorted((ROOT / "own").iterdir())
"""They are for people's own data; `tests/test_own_recipes.py` runs them."""
PAPER_CONFIGS = [path for path in CONFIGS if path.parent != ROOT and path not in OWN_CONFIGS]
FOLDERS = {"Animal10NDataModule": 10, "WebVisionMiniDataModule": 50, "Clothing1MDataModule": 14}
CLASSES = {"CIFAR10DataModule": 10, "CIFAR100DataModule": 100, "CIFAR80NODataModule": 80, **FOLDERS}
CHANGED = {"backbone", "batch_size", "num_workers", "image_size", "resize", "batches_per_epoch", "max_epochs"}
CHANGED |= {"accelerator", "devices", "strategy", "sync_batchnorm"}
LABEL_FILES = (
    "data/cifar10n.npz",
    "data/idn/cifar10-0.4.npy",
    "data/pmd/cifar10-1-0.35.npy",
    "data/pmd/cifar100-1-0.35.npy",
    "runs/selc/cifar10/version_0/labels.npz",
    "runs/selc/cifar100/version_0/labels.npz",
)
MATRICES = {
    f"runs/nal/{name}/ce/version_0/transition.npy": count for name, count in (("cifar10", 10), ("cifar100", 100))
}


def name_of(config):
    return str(config.relative_to(ROOT).with_suffix(""))


each_config = pytest.mark.parametrize("config", CONFIGS, ids=name_of)
SIBLINGS = (
    r"dcm/cifar100-cnn7/(?!co_teaching$|disc$|sed$|sed-dkan$).+",
    r"dcm/cifar80no/(?!asymmetric|pair-flip).+",
    r"dcm/(webvision|clothing1m)/(decoupling|elr_plus|disc.*|sure|jocor)",
    r"gss/(cifar100|webvision|clothing1m)/(elr_plus|co_teaching|jocor|divide_mix|dual)",
    r"gss/(cifar100|webvision)/ssl",
    r"(co_teaching|jocor|divide_mix)_dal/cifar100-.+",
    r"(co_teaching|co_teaching_plus|jocor|unicon|sprl|disc|divide_mix|elr_plus)/cifar100",
    r"(co_ldl/cifar80no|sure/clothing1m|(unicon|divide_mix|disc)/webvision)",
    r".+/(animal10n|webvision|clothing1m)(/.+)?",
    r"(?!ce|dal|selc|nal|gss|dcm|sed)[^/]+/cifar100(/.+)?",
    r"(dcm|nal|gss)/cifar100/.+",
    r"dcm/cifar10/(?!anl-dfc|anl-dkan$|apl).+",
    r"nal/cifar10/.+",
    r"backdoor/(?!cifar10-local$).+",
    r"dcm/cifar10/apl.*|dcm/cifar80no/.+|dcm/cifar100-cnn7/(co_teaching|sed-dkan)",
    r"gss/cifar10/(?!dual|ssl|from-scratch).+|gss/cifar100",
    r"(selc|selc_plus|nal|ce)/cifar100(-pmd)?|selc/cifar10-(idn|pmd)",
    r"(btl|nce_rce|nce_agce|poly1|tce|js)/cifar10",
)
"""Recipes that differ from others by head, loss, noise, data set or number of classes."""
one_of_each = pytest.mark.parametrize(
    "config",
    [
        pytest.param(config, marks=pytest.mark.slow) if re.fullmatch("|".join(SIBLINGS), name_of(config)) else config
        for config in CONFIGS
        if config not in OWN_CONFIGS
    ],
    ids=name_of,
)
each_paper_config = pytest.mark.parametrize("config", PAPER_CONFIGS, ids=name_of)


@pytest.fixture(scope="session")
def image_sets(tmp_path_factory):
    """Small ANIMAL-10N, WebVision with ILSVRC12, and Clothing1M, as they are published: 40 or more training images."""
    root = tmp_path_factory.mktemp("image_sets")
    write_animal10n(root / "animal10n", {"training": [7 * i % 10 for i in range(40)], "testing": [*range(10)] * 2})
    write_webvision(root / "webvision", [*range(0, 100, 2)] * 2, [*range(20)])
    write_imagenet(root / "imagenet")
    clean = {part: [*range(14)] for part in ("clean_train", "clean_val", "clean_test")}
    write_clothing1m(root / "clothing1m", {"noisy_train": [*range(14)] * 3, **clean})
    return root


def random_weights(url, *_, **__):
    """Of the network that an address of torchvision names."""
    return get_model(url.rpartition("/")[2].partition("-")[0]).state_dict()


@pytest.fixture(autouse=True)
def stand_ins(request, monkeypatch, tmp_path, image_sets):
    """A folder of its own, small CIFAR-10 and CIFAR-100, files with labels of them, and small sets of image files.

    No weights are downloaded: those of ResNets are random.
    """
    isolate(monkeypatch, tmp_path, drawn=request.cls is TestWhatIsPrintedAndSaved)
    monkeypatch.setattr("lightning_noisy.data.cifar.CIFAR10", DummyCIFAR10)
    monkeypatch.setattr("lightning_noisy.data.cifar.CIFAR100", DummyCIFAR100)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", random_weights)
    labels = np.arange(40, dtype=np.uint8) % 7
    for name in LABEL_FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".npz"):
            np.savez(tmp_path / name, worse=labels)
        else:
            np.save(tmp_path / name, labels)
    for name, count in MATRICES.items():
        (tmp_path / name).parent.mkdir(parents=True)
        np.save(tmp_path / name, np.full((count, count), 1 / count))
    for folder in image_sets.iterdir():
        (tmp_path / "data" / folder.name).symlink_to(folder)


def within(part, whole):
    """Whether the command line has read what ``read`` has, but for what ``small`` changes."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(within(part[key], whole.get(key)) for key in part.keys() - CHANGED)
    if isinstance(part, list):
        return isinstance(whole, list) and len(part) == len(whole) and all(map(within, part, whole))
    return part == whole


def here(config):
    """Arguments for a single process on a CPU, and a balanced epoch that the stand-in can fill."""
    machine = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.strategy", "auto"]
    balanced = settings_of(config)["data"]["init_args"].get("batches_per_epoch")
    data = ["--data.batches_per_epoch", "2"] if balanced else []
    return [*machine, "--trainer.sync_batchnorm", "false", "--data.num_workers", "0", *data]


def small(config):
    """Arguments that make a run of the config small: network, images, batches, epochs."""
    channels = 1 if data_of(config) == "DigitsDataModule" else 3
    backbone = ["--model.backbone", "lightning_noisy.networks.SmallCNN", "--model.backbone.in_channels", str(channels)]
    sizes = ["--model.backbone.width", "4", "--model.backbone.num_features", "16"]
    images = ["--data.image_size", "16", "--data.resize", "0"] if data_of(config) in FOLDERS else []
    batches = ["--data.batch_size", "16", "--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "1"]
    return [*backbone, *sizes, *images, *batches, *here(config), "--trainer.max_epochs", "2"]


def data_of(config):
    """Class name of the data module."""
    return next(iter(named(settings_of(config)["data"])))


def parsed(cli, file):
    """What the command line reads in a file, defaults included; not which files that were."""
    arguments = cli.parser.parse_args(["fit", "--config", str(file)])["fit"].as_dict()
    assert arguments.pop("config")
    return arguments


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


@one_of_each
class TestEveryConfig:
    def test_runs_alone(self, config):
        whole = settings_of(config)
        cli = quiet("fit", config, *small(config))
        assert cli.trainer.current_epoch == 2
        folder = Path(cli.trainer.log_dir)
        assert folder.parent == Path("runs", name_of(config))
        saved = yaml.safe_load((folder / "config.yaml").read_text())
        assert within(whole, saved)
        assert "base" not in saved
        written = {path.name for path in folder.iterdir()}
        assert {"config.yaml", "noise.json", "noisy_labels.npz", "summary.json", "checkpoints"} <= written
        assert (folder / "checkpoints" / "last.ckpt").exists() == (config in PAPER_CONFIGS)

        # `recipe_settings` and the command line put files on top of each other alike, to the last default.
        Path("whole.yaml").write_text(yaml.safe_dump(whole))
        chained, at_once = (parsed(cli, file) for file in (config, "whole.yaml"))
        assert chained == at_once

        paths = list(class_paths(whole))
        assert len(paths) >= 8
        for path in paths:
            module, _, name = path.rpartition(".")
            assert isinstance(getattr(importlib.import_module(module), name), type)
        evidence = {name for callback in whole["trainer"]["callbacks"] for name in named(callback)}
        assert {"StepSeed", "ConfidenceTracker", "RunSummary"} <= evidence

    @pytest.mark.slow
    def test_runs_with_its_own_network(self, config):
        run_with_own_network(config)


@pytest.mark.parametrize(
    "name", ["quickstart", "dal/cifar10", "dcm/cifar100/anl-dkan", "nal/webvision", "gjs/webvision"]
)
class TestWhatIsPrintedAndSaved:
    def test_printed_config_runs_and_prints_itself(self, name, capsys):
        config = ROOT / f"{name}.yaml"
        text = printed_config(capsys, "--config", config)
        Path("printed.yaml").write_text(text)
        assert printed_config(capsys, "--config", "printed.yaml") == text
        cli = quiet("fit", "printed.yaml", *small(config), "--trainer.limit_train_batches", "1")
        assert Path(cli.trainer.log_dir).parent == Path("runs", name)

    def test_saved_config_is_what_was_asked_for_and_runs_again(self, name):
        config = ROOT / f"{name}.yaml"
        arguments = [*small(config), "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1"]
        folder = quiet("fit", config, *arguments).trainer.log_dir
        again = quiet("fit", Path(folder, "config.yaml"))
        first, second = (Path(run, "config.yaml").read_text() for run in (folder, again.trainer.log_dir))
        assert first == second
        assert folder != again.trainer.log_dir
        assert yaml.safe_load(first)["data"]["init_args"]["batch_size"] == 16


@pytest.mark.parametrize("name", ["js/cifar100", "dcm/cifar10/anl-dfc", "selc/cifar10n"])
def test_clean_labels_are_no_noise(name):
    config = ROOT / f"{name}.yaml"
    cli = quiet("fit", config, *small(config), "--data.noise", "null", "--trainer.max_epochs", "1")
    assert cli.datamodule.realized_noise_rate == 0
    assert torch.equal(cli.datamodule.noisy_targets, 7 * torch.arange(40) % cli.datamodule.num_classes)
    noise = json.loads(Path(cli.trainer.log_dir, "noise.json").read_text())
    assert noise["realized_rate"] == 0


def run_with_own_network(config):
    if "TimmBackbone" in named(settings_of(config)["model"]["init_args"]["backbone"]):
        pytest.importorskip("timm")
    quiet("fit", config, *here(config), "--data.batch_size", "8", "--trainer.fast_dev_run", "true")


def test_one_config_runs_with_its_own_network():
    run_with_own_network(ROOT / "dal" / "cifar10.yaml")


def test_every_paper_config_is_in_the_table():
    assert set(map(name_of, PAPER_CONFIGS)) == set(papers.ROWS)


RESETS = {"noise": None, "lr_scheduler": None, "momentum": 0.0, "include_true_class": False, "weights": None}
RESETS |= {"normalization": "data_set", "strategy": "auto", "sync_batchnorm": False}


def without_resets(node):
    """A recipe without the defaults that it says because its base says something else."""
    if isinstance(node, list):
        return [without_resets(child) for child in node]
    if not isinstance(node, dict):
        return node
    return {key: without_resets(value) for key, value in node.items() if value != RESETS.get(key, ...)}


@pytest.mark.parametrize("name", papers.ROWS)
def test_settings_are_those_of_the_paper(name):
    config = without_resets(settings_of(ROOT / f"{name}.yaml"))
    trainer, model, data = config["trainer"], config["model"]["init_args"], config["data"]["init_args"]
    optimizer, arguments = stepper(model["optimizer"])
    shared = {"StepSeed", "ConfidenceTracker", "MemorizationTracker", "RunSummary", "ModelCheckpoint"}
    methods = together(trainer["callbacks"])
    read_elsewhere = {"max_epochs", "gradient_clip_val", "callbacks"}
    data_read_elsewhere = {"root", "imagenet_root", "batch_size", "noise", "val_fraction", "noisy_val"}
    assert papers.ROWS[name] == Settings(
        epochs=trainer["max_epochs"],
        net=brief(model["backbone"]),
        batch=data["batch_size"],
        lr=arguments.pop("lr"),
        wd=arguments.pop("weight_decay"),
        schedule=named(model["lr_scheduler"]) if "lr_scheduler" in model else {},
        loss=plain(named(model["loss"])),
        method={key: value for key, value in methods.items() if key not in shared},
        noise=named(data["noise"]) if "noise" in data else {},
        val=data.get("val_fraction", 0.0),
        head=named(model["head"]),
        clip=trainer.get("gradient_clip_val"),
        data=next(iter(named(config["data"]))),
        images={k: v for k, v in data.items() if k not in data_read_elsewhere},
        sgd=arguments,
        machine={key: value for key, value in trainer.items() if key not in read_elsewhere},
        strategy=acting(config["model"], papers.ROWS[name].strategy),
        optimizer=optimizer,
    )
    assert model["num_classes"] == CLASSES[next(iter(named(config["data"])))]
    assert data.get("noisy_val", True)
    assert config["seed_everything"] == 0
    assert "lightning.pytorch.callbacks.ModelCheckpoint" in class_paths(trainer["callbacks"])


RECIPES = (ROOT.parent / "docs" / "recipes.md").read_text()
SPANS = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", RECIPES, flags=re.DOTALL))
TUNE = (ROOT.parent / "docs" / "tune.md").read_text()
COMMANDS = [
    line.replace("\\\n", " ").split()
    for block in re.findall(r"```bash\n(.*?)```", RECIPES + TUNE, flags=re.DOTALL)
    for line in re.findall(r"^lightning-noisy (?:.*\\\n)*.*$", block, flags=re.MULTILINE)
]


def test_recipes_named_in_the_document_are_there():
    methods = "|".join({name_of(config).split("/")[0] for config in PAPER_CONFIGS})
    named = [span for span in SPANS if re.fullmatch(rf"({methods})/[\w/-]+", span)]
    assert len(named) > 40
    assert {*named, *chain(*map(config_values, COMMANDS))} <= set(recipe_names())


def without_training(monkeypatch, *arguments):
    """Everything that a command makes, by its own words."""
    monkeypatch.setattr(Trainer, "fit", lambda *args, **options: None)
    here = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.strategy", "auto"]
    return main([*arguments, *here])


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_of_the_document(monkeypatch, tmp_path, command):
    program, subcommand, *arguments = command
    assert program == "lightning-noisy"
    if subcommand == "tune":
        recorded = []

        def stop(arguments, attach):
            recorded.append(["fit", *arguments])
            raise KeyboardInterrupt

        monkeypatch.setattr("lightning_noisy.cli.command_line._fit", stop)
        monkeypatch.setattr("sys.argv", command)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(KeyboardInterrupt):
            run()
        (subcommand, *arguments), *_ = recorded
    assert subcommand == "fit"
    without_training(monkeypatch, "fit", *arguments)


@each_config
def test_first_lines_say_what_it_is_and_where_it_comes_from(config):
    first, second = config.read_text().splitlines()[:2]
    assert first.startswith("# ")
    assert first.endswith(".")
    assert len(first) <= 100
    assert second.startswith("# Unknown: ") == (config in PAPER_CONFIGS)
    quoted = re.search(r"\d\.\d\d %|(accurac|number).* at hand|accurac.* lost", first + second)
    assert quoted is None, "what papers print stands in docs/published.yaml"


@each_config
def test_a_recipe_says_only_what_differs(config):
    """Whatever of it is left out, it is another one."""
    *lower, own = layers_of(config)
    below = reduce(on_top, lower, {})
    whole = on_top(below, own)
    assert whole == settings_of(config)
    for number in range(len(list(leaves(own)))):
        fewer = deepcopy(own)
        node, key = list(leaves(fewer))[number]
        value = node.pop(key)
        assert on_top(below, fewer) != whole, f"{key}: {value}"


def leaves(node):
    """The mapping and the key of each value that is none. A class that is named is said whole."""
    for key, value in node.items():
        yield from leaves(value) if isinstance(value, dict) and "class_path" not in value else [(node, key)]


def test_all_masks_have_one_ratio():
    given = [named(entry) for config in CONFIGS for entry in settings_of(config)["trainer"]["callbacks"]]
    masks = [entry["MaskRefresh"] for entry in given if "MaskRefresh" in entry]
    assert len(masks) > 20
    assert {MaskRefresh(**arguments).ratio for arguments in masks} == {0.7}


def test_the_readme_counts_them():
    assert f"`recipes`: {len(PAPER_CONFIGS)} settings of papers" in (ROOT.parent / "README.md").read_text()


def test_recipes_are_short():
    assert sum(len(config.read_text().splitlines()) for config in CONFIGS) < 10 * len(CONFIGS)


def test_quickstart_ce_is_the_quickstart_without_its_robust_parts():
    robust, plain = settings_of(ROOT / "quickstart.yaml"), settings_of(ROOT / "quickstart_ce.yaml")
    parts = {"lightning_noisy.callbacks.MaskRefresh", "lightning_noisy.callbacks.SELC"}
    callbacks = robust["trainer"]["callbacks"]
    robust["trainer"]["callbacks"] = [callback for callback in callbacks if callback["class_path"] not in parts]
    robust["model"]["init_args"]["loss"] = {"class_path": "torch.nn.CrossEntropyLoss"}
    assert plain == robust
