import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.plugins import TorchCheckpointIO

import lightning_noisy
from lightning_noisy import NoisyLabelError, NoisyLabelModule, Storage
from lightning_noisy.checkpoints import AtomicCheckpointIO
from lightning_noisy.cli import command_line, main, run
from lightning_noisy.cli.overview import COMMANDS
from lightning_noisy.data import DigitsDataModule
from lightning_noisy.heads import LinearHead
from lightning_noisy.losses import GeneralizedCrossEntropy
from lightning_noisy.networks import SmallCNN
from lightning_noisy.optim import SAM
from lightning_noisy.state.row_format import LargestEntries
from tests._dummies import command_line_error, isolate, quiet, write_image

CONFIG = """
trainer:
  max_epochs: 1
  accelerator: cpu
  limit_train_batches: 3
  logger:
    class_path: lightning.pytorch.loggers.TensorBoardLogger
    init_args: {save_dir: runs, name: run}
  callbacks:
    - class_path: lightning_noisy.callbacks.StepSeed
    - class_path: lightning_noisy.callbacks.SELC
    - class_path: lightning_noisy.callbacks.ConfidenceTracker
model:
  class_path: lightning_noisy.NoisyLabelModule
  init_args:
    num_classes: 10
    backbone:
      class_path: lightning_noisy.networks.SmallCNN
      init_args: {width: 4, num_features: 16}
    head:
      class_path: lightning_noisy.heads.LinearHead
    loss:
      class_path: torch.nn.CrossEntropyLoss
    optimizer:
      class_path: torch.optim.SGD
      init_args: {lr: 0.05}
data:
  class_path: lightning_noisy.data.DigitsDataModule
  init_args:
    noise:
      class_path: lightning_noisy.data.SymmetricNoise
      init_args: {rate: 0.4}
"""
SAMPLES = 1437
NO_CALLBACKS = ["--trainer.callbacks", "null"]


@pytest.fixture(autouse=True)
def config(monkeypatch, tmp_path):
    """A folder of its own with ``config.yaml``."""
    isolate(monkeypatch, tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The checkpoint of a run of ``CONFIG``, made once."""
    folder = tmp_path_factory.mktemp("trained")
    path = folder / "input.yaml"
    path.write_text(CONFIG)
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch, folder)
        return Path(quiet("fit", path).trainer.checkpoint_callback.best_model_path).resolve()


def left_behind():
    """Names of the files of the run that has just failed, without the numbers of the TensorBoard log."""
    return sorted(re.sub(r"tfevents.*", "tfevents", str(path)) for path in Path("runs/run/version_0").glob("**/*.*"))


def printed_config(capsys, *arguments):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["fit", *map(str, arguments), "--print_config"])
    assert stop.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


def callback_names(printed):
    return [callback["class_path"].rpartition(".")[2] for callback in printed["trainer"]["callbacks"]]


class TestSubcommands:
    def test_run_folder_of_fit(self, checkpoint):
        folder = checkpoint.parents[1]
        assert json.loads((folder / "noise.json").read_text())["requested_rate"] == 0.4
        assert yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]["num_classes"] == 10

    def test_validate_and_test_of_another_seed(self, config, checkpoint):
        expected = evaluate(checkpoint)
        for subcommand in ("validate", "test"):
            cli = quiet(subcommand, config, "--ckpt_path", checkpoint, "--seed_everything", 1)
            metrics = {name: value.item() for name, value in cli.trainer.callback_metrics.items()}
            assert metrics["test/acc"] == pytest.approx(expected)

    def test_predict(self, config, checkpoint):
        cli = quiet("predict", config, "--ckpt_path", checkpoint)
        probabilities = torch.cat(cli.trainer.predict_loop.predictions)
        assert probabilities.shape == (360, 10)
        assert torch.allclose(probabilities.sum(dim=1), torch.ones(360))

    def test_checkpoints_are_written_beside_their_target(self, config):
        dry = ["--trainer.fast_dev_run", "true"]
        assert type(quiet("fit", config, *dry).trainer.strategy.checkpoint_io) is AtomicCheckpointIO
        own = ["--trainer.plugins", "lightning.pytorch.plugins.TorchCheckpointIO"]
        assert type(quiet("fit", config, *dry, *own).trainer.strategy.checkpoint_io) is TorchCheckpointIO

    def test_resume(self, config, checkpoint):
        cli = quiet("fit", config, "--ckpt_path", checkpoint, "--trainer.max_epochs", 2)
        assert cli.trainer.current_epoch == 2
        assert cli.trainer.global_step == 6

    def test_the_command_line_counts_and_not_the_checkpoint(self, config, checkpoint):
        cli = quiet("fit", config, "--ckpt_path", checkpoint, "--model.loss", "GeneralizedCrossEntropy")
        assert isinstance(cli.model.loss, GeneralizedCrossEntropy)

    def test_checkpoint_loads_from_python(self, checkpoint):
        content = torch.load(checkpoint, weights_only=True)
        assert content["hyper_parameters"] == {"num_classes": 10}
        backbone = SmallCNN(width=4, num_features=16)
        modules = {"backbone": backbone, "head": LinearHead, "loss": torch.nn.CrossEntropyLoss()}
        module = NoisyLabelModule.load_from_checkpoint(checkpoint, **modules)
        assert torch.equal(module.network.head.weight.cpu(), content["state_dict"]["network.head.weight"])
        with pytest.raises(NoisyLabelError, match=r"NoisyLabelModule needs `head` and `loss` as well: give them by"):
            NoisyLabelModule.load_from_checkpoint(checkpoint, backbone=backbone)

    @pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
    @pytest.mark.parametrize("checkpoint_is", [[], ["--ckpt_path", "last"]], ids=["none", "last"])
    def test_random_weights_are_refused(self, config, capsys, subcommand, checkpoint_is):
        message = command_line_error(capsys, config, *checkpoint_is, subcommand=subcommand)
        assert message.startswith(f"`{subcommand}` without a checkpoint would use random weights: give `--ckpt_path`")
        assert not Path("runs").exists()

    def test_random_weights_that_are_asked_for(self, config):
        assert "test/acc" in quiet("test", config, "--untrained", "true").trainer.callback_metrics

    @pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"]], ids=" ".join)
    def test_help(self, capsys, arguments):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0
        assert "usage: lightning-noisy" in capsys.readouterr().out

    def test_alone_it_lists_its_commands(self, monkeypatch, capsys):
        source = Path(command_line.__file__).read_text()
        names = {*re.findall(r'^        "(\w+)": ', source, flags=re.M), "fit", "validate", "test", "predict"}
        monkeypatch.setattr(sys, "argv", ["lightning-noisy"])
        run()
        assert set(re.findall(r"^  (\w+)  ", capsys.readouterr().out, flags=re.M)) == names
        monkeypatch.setattr(sys, "argv", ["lightning-noisy", "--version"])
        run()
        said = capsys.readouterr().out
        assert said.startswith(f"lightning-noisy {lightning_noisy.__version__}, ")
        assert f"torch {torch.__version__.split('+')[0]}" in said

    def test_python_m(self, monkeypatch, capsys):
        monkeypatch.setattr(sys, "argv", ["lightning_noisy", "--help"])
        runpy.run_module("lightning_noisy", run_name="__main__", alter_sys=True)
        said = capsys.readouterr().out
        assert all(f"\n  {command} " in said for command in COMMANDS)

    def test_a_command_that_is_none(self, monkeypatch, capsys):
        monkeypatch.setattr(sys, "argv", ["lightning-noisy", "adit", "x"])
        with pytest.raises(SystemExit):
            run()
        assert capsys.readouterr().err.strip().endswith("error: 'adit' is no command: did you mean `audit`?")

    def test_debug_of_every_command(self, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["lightning-noisy", "report", "nowhere", "--debug"])
        with pytest.raises(NoisyLabelError, match="nowhere"):
            run()


def evaluate(checkpoint):
    """Accuracy on the digits' test set, computed by hand."""
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    module = NoisyLabelModule(
        SmallCNN(width=4, num_features=16), LinearHead, torch.nn.CrossEntropyLoss(), num_classes=10
    ).eval()
    module.load_state_dict(state)
    data = DigitsDataModule()
    test = data.test_images()
    images = torch.stack([test.image(i) for i in range(len(test.labels))])
    return (module(images).argmax(dim=1) == test.labels).float().mean().item()


class TestConfiguration:
    def test_short_names(self, config):
        arguments = ["--model.optimizer", "Adam", "--model.optimizer.lr", "0.01", "--model.head", "LinearHead"]
        # Torch has a class of the same name, without a monitor.
        plateau = ["--model.lr_scheduler", "lightning.pytorch.cli.ReduceLROnPlateau"]
        plateau += ["--model.lr_scheduler.monitor", "test/acc"]
        cli = quiet("fit", config, *arguments, *plateau, "--data.noise", "PairFlipNoise", "--data.noise.rate", "0.2")
        assert isinstance(cli.trainer.optimizers[0], torch.optim.Adam)
        assert cli.trainer.lr_scheduler_configs[0].monitor == "test/acc"
        assert cli.datamodule.noise.rate == 0.2

    def test_sam_goes_around_the_optimizer_that_is_there(self, config):
        arguments = ["--model.optimizer", "SAM", "--model.optimizer.rho", "0.1"]
        cli = quiet("fit", config, *arguments, "--model.optimizer.base.momentum", "0.5")
        (optimizer,) = cli.trainer.optimizers
        assert (type(optimizer), type(optimizer.base)) == (SAM, torch.optim.SGD)
        (group,) = optimizer.param_groups
        assert [group[name] for name in ("rho", "lr", "momentum")] == [0.1, 0.05, 0.5]

    def test_sam_of_another_base_keeps_what_it_takes(self, config, capsys):
        arguments = ["--model.optimizer", "SAM", "--model.optimizer.base", "Adam"]
        base = printed_config(capsys, "--config", config, *arguments)["model"]["init_args"]["optimizer"]["init_args"][
            "base"
        ]
        assert base["class_path"] == "torch.optim.Adam"
        assert base["init_args"]["lr"] == 0.05

    def test_sam_without_a_learning_rate_is_refused(self, config, capsys):
        Path("second.yaml").write_text("model: {init_args: {optimizer: {class_path: lightning_noisy.optim.SAM}}}")
        message = command_line_error(capsys, config, "--config", "second.yaml")
        assert "SAM steps by another optimizer, whose learning rate nobody has told" in message

    def test_second_config_replaces_callbacks(self, config, capsys):
        Path("second.yaml").write_text("trainer: {callbacks: [{class_path: lightning_noisy.callbacks.StepSeed}]}")
        printed = printed_config(capsys, "--config", config, "--config", "second.yaml")
        assert callback_names(printed) == ["StepSeed"]

    def test_second_config_appends_callbacks(self, config, capsys):
        Path("second.yaml").write_text("trainer: {callbacks+: [{class_path: lightning_noisy.callbacks.MaskRefresh}]}")
        printed = printed_config(capsys, "--config", config, "--config", "second.yaml")
        assert callback_names(printed) == ["StepSeed", "SELC", "ConfidenceTracker", "MaskRefresh"]

    def test_command_line_appends_callbacks(self, config, capsys):
        masked = ["--trainer.callbacks+=MaskRefresh", "--trainer.callbacks.ratio", "0.3"]
        printed = printed_config(capsys, "--config", config, *masked, "--trainer.callbacks+=RunSummary")
        assert callback_names(printed) == ["StepSeed", "SELC", "ConfidenceTracker", "MaskRefresh", "RunSummary"]
        assert printed["trainer"]["callbacks"][3]["init_args"]["ratio"] == 0.3

    def test_command_line_replaces_callbacks(self, config):
        cli = quiet("fit", config, "--trainer.callbacks", "MaskRefresh", "--trainer.fast_dev_run", "true")
        names = {type(callback).__name__ for callback in cli.trainer.callbacks}
        assert "MaskRefresh" in names
        assert not names & {"SELC", "StepSeed"}

    def test_callbacks_and_losses_take_the_same_storage(self, config, capsys):
        kept = "callbacks.SELC\n      init_args: {storage: {dtype: float16, top_k: 3}}\n"
        config.write_text(CONFIG.replace("callbacks.SELC\n", kept))
        dry = ["--trainer.fast_dev_run", "true", "--data.sharded", "true"]
        cli = quiet("fit", config, *dry)
        assert cli.trainer.callbacks[2].section.stores["target"].format == LargestEntries(10, 3, torch.float16)
        loss = ["--model.loss", "SelfAdaptiveTraining", "--model.loss.storage.dtype", "float16"]
        assert quiet("fit", config, *NO_CALLBACKS, *dry, *loss).model.loss.storage == Storage("float16")
        line = "`dtype` to be one of 'float32', 'float16', but got 'half'"
        assert line in command_line_error(capsys, config, *loss[:-1], "half")

    def test_print_config_touches_no_data(self, config, capsys, monkeypatch):
        def refuse(*args, **kwargs):
            raise AssertionError("instantiated")

        monkeypatch.setattr("lightning.pytorch.cli.LightningCLI.instantiate_classes", refuse)
        monkeypatch.setattr("lightning_noisy.data.digits.load_digits", refuse)
        printed = printed_config(capsys, "--config", config)
        expected = {"include_true_class": False, "exact": False, "rate": 0.4}
        assert printed["data"]["init_args"]["noise"]["init_args"] == expected

    @pytest.mark.parametrize(
        ("later", "noise"),
        [
            (["--data", "FeaturesDataModule"], None),
            (["--data", "FeaturesDataModule", "--data.noise", "PairFlipNoise", "--data.noise.rate", "0.1"], 0.1),
            (["--data", "{class_path: FeaturesDataModule, init_args: {noise: {rate: 0.4}}}"], 0.4),
            (["--data.class_path", "lightning_noisy.data.FeaturesDataModule"], None),
            (["--config", "data: {class_path: FeaturesDataModule}"], None),
            (
                [
                    "--config",
                    "data: {class_path: lightning_noisy.data.FeaturesDataModule, init_args: {noise: {rate: 0.4}}}",
                ],
                0.4,
            ),
            (["--config", "based.yaml"], 0.4),
            (["--data", "DigitsDataModule"], 0.4),
            (["--config", "data: {init_args: {batch_size: 7}}"], 0.4),
        ],
        ids=[
            "class",
            "noise after",
            "noise within",
            "class_path",
            "config",
            "config with noise",
            "base",
            "same",
            "other",
        ],
    )
    def test_noise_goes_with_its_data(self, config, capsys, later, noise):
        Path("based.yaml").write_text("base: config.yaml\ndata: {class_path: lightning_noisy.data.FeaturesDataModule}")
        printed = printed_config(capsys, "--config", config, *later)["data"]["init_args"]
        assert (printed["noise"] and printed["noise"]["init_args"]["rate"]) == noise

    def test_noise_that_goes_says_so(self, config, capsys):
        with pytest.warns(UserWarning, match="SymmetricNoise was given for DigitsDataModule, and is dropped for Feat"):
            printed_config(capsys, "--config", config, "--data", "FeaturesDataModule")

    def test_config_in_the_working_directory_is_left_alone(self, config):
        quiet("fit", config, "--trainer.logger", "false", "--trainer.limit_train_batches", 1)
        assert config.read_text() == CONFIG

    def test_saved_config_takes_the_place_of_an_earlier_one(self, config):
        for rate in (0.4, 0.2):
            quiet("fit", config, "--trainer.logger.version", 0, "--data.noise.rate", rate)
        saved = yaml.safe_load(Path("runs/run/version_0/config.yaml").read_text())
        assert saved["data"]["init_args"]["noise"]["init_args"]["rate"] == 0.2


class TestRefusedBeforeTheStart:
    """Constructor arguments: nothing is written."""

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["--trainer.callbacks+=MaskRefresh", "--trainer.callbacks.ratio", "1.5"], "`ratio` .* but got 1.5"),
            (
                ["--trainer.callbacks", "MaskRefresh", "--trainer.callbacks.ratio", "1.5"],
                "`ratio` to be .*, but got 1.5",
            ),
            (["--data.noise.rate", "1.2"], "`rate` to be a float in .* but got 1.2"),
            (["--model.num_classes", "1"], "`num_classes` to be an integer of at least 2, but got 1"),
            (["--model.backbone.width", "0"], "`width` to be an int of at least 1, but got 0"),
            (["--data.val_fraction", "1.0"], "`val_fraction` to be a float in .* but got 1.0"),
            (["--data.noise", "FileNoise", "--data.noise.path", "labels.txt"], "`path` to be a .npy or .npz file"),
            (["--ckpt_path", "nowhere.ckpt"], "`ckpt_path` to be a checkpoint, but got 'nowhere.ckpt': no such file"),
        ],
        ids=lambda value: value[-2].lstrip("-") if isinstance(value, list) else "",
    )
    def test_argument(self, config, capsys, arguments, expected):
        assert re.search(expected, command_line_error(capsys, config, *arguments))
        assert not Path("runs").exists()

    def test_argument_of_the_trainer(self, config, capsys):
        assert "max_epochs" in command_line_error(capsys, config, "--trainer.max_epochs", "-5")
        assert not Path("runs").exists()

    def test_a_callback_appended_twice(self, config, capsys):
        message = command_line_error(capsys, config, "--trainer.callbacks+=SELC")
        assert "Two SELC would keep the same state" in message
        assert not Path("runs").exists()

    def test_scheduler_without_monitor(self, config, capsys):
        plateau = ["--model.lr_scheduler", "torch.optim.lr_scheduler.ReduceLROnPlateau"]
        assert "monitor" in command_line_error(capsys, config, *plateau)

    @pytest.mark.parametrize(
        ("key", "expected"),
        [
            ("model.num_clases", "model: Option 'num_clases' is not accepted: did you mean `num_classes`?"),
            (
                "trainer.max_epocs",
                "unrecognized arguments: --trainer.max_epocs 10: did you mean `max_epochs` or `max_steps`?",
            ),
            ("data.batch_sise", "data: Option 'batch_sise' is not accepted: did you mean `batch_size`?"),
            ("data.noise.rat", "data.noise: Option 'rat' is not accepted: did you mean `rate`?"),
            ("optimizer", "unrecognized arguments: --optimizer 10"),
            ("modle.num_classes", "unrecognized arguments: --modle.num_classes 10: did you mean `model`?"),
            ("trainer.callbacks.momentun", "trainer.callbacks: Option 'momentun' is not accepted"),
        ],
    )
    def test_misspelled_key(self, config, capsys, key, expected):
        assert command_line_error(capsys, config, f"--{key}", "10") == expected
        assert not Path("runs").exists()

    @pytest.mark.parametrize(
        ("key", "value", "expected"),
        [
            ("data.batch_size", "many", "data.batch_size: Expected a <class 'int'>. Got value: many"),
            ("data.noise.rate", "high", "data.noise.rate: Expected a <class 'float'>. Got value: high"),
            ("model.backbone.width", "1.5", "model.backbone.width: Expected a <class 'int'>. Got value: 1.5"),
            (
                "trainer.max_epochs",
                "all",
                "trainer.max_epochs: Expected a <class 'int'>; Expected a <class 'NoneType'>; Got value: all",
            ),
            (
                "model.loss",
                "Nothing",
                "model.loss: Expected a path but Nothing either not accessible or invalid; Expected a dot import path "
                "string: Nothing",
            ),
            (
                "model.optimizer",
                "torch.optim.SDG",
                r"model\.optimizer: .* has no attribute 'SDG'.*: did you mean `SGD`\?",
            ),
            (
                "config",
                "nowhere.yaml",
                r"Expected argument `config` to be a file or a recipe .* but got 'nowhere\.yaml'.*",
            ),
        ],
    )
    def test_value_of_another_type(self, config, capsys, key, value, expected):
        found = command_line_error(capsys, config, f"--{key}", value)
        assert found == expected or re.fullmatch(expected, found)
        assert not Path("runs").exists()

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (CONFIG.replace("num_classes", "num_clases"), "model: Option 'num_clases' is not accepted"),
            (CONFIG.replace("max_epochs", "max_epocs"), "Option 'trainer.max_epocs' is not accepted: did you mean"),
            (CONFIG + "modle: {}", "Option 'modle' is not accepted: did you mean `model`?"),
            (
                CONFIG.replace("SmallCNN", "SmalCNN"),
                "model.backbone: module 'lightning_noisy.networks' has no attribute 'SmalCNN': did you mean `SmallCNN`",
            ),
            (
                CONFIG.replace("rate: 0.4", "rate: [0.4]"),
                "data.noise.rate: Expected a <class 'float'>. Got value: [0.4] (in '{config}')",
            ),
            ("data: 5", "data: Not a valid subclass of LightningDataModule; Got value: 5 (in '{config}')"),
            ("trainer: [", "Expected '{config}' to be YAML, but while parsing a flow node"),
        ],
    )
    def test_yaml_that_cannot_be_used(self, config, capsys, text, expected):
        config.write_text(text)
        assert command_line_error(capsys, config).startswith(expected.replace("{config}", str(config)))

    def test_a_command_alone_says_where_its_arguments_may_come_from(self, config, capsys):
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main(["fit"])
        assert "`--config` names a file or a recipe that has them" in capsys.readouterr().err

    def test_unknown_subcommand(self, config, capsys):
        assert "invalid choice: 'fat'" in command_line_error(capsys, config, subcommand="fat")

    def test_a_name_before_the_subcommand_that_is_none(self, config, capsys):
        """What stands there and is no subcommand would count for nothing."""
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main(["--config", str(config), "fit", "--config", str(config)])
        assert (
            "Option 'trainer' is not accepted: expected one of fit, predict, test, validate" in capsys.readouterr().err
        )


class TestImagesThatCannotBeRead:
    @pytest.mark.parametrize("num_workers", [0, 2])
    @pytest.mark.parametrize("split", ["train", "test"])
    def test_the_image_is_named_in_one_line(self, config, capsys, num_workers, split):
        for folder in ("train/a", "train/b", "test/a", "test/b"):
            for i in range(3):
                write_image(Path("photos", folder, f"{i}.png"))
        broken = Path("photos", split, "b", "1.png")
        broken.write_bytes(broken.read_bytes()[:40])
        images = ["--data", "ImageFolderDataModule", "--data.root", "photos", "--data.image_size", 8]
        images += ["--data.num_workers", num_workers, "--data.batch_size", 2, "--data.noise", "null"]
        network = ["--model.num_classes", 2, "--model.backbone.in_channels", 3]
        message = command_line_error(capsys, config, *images, *network, "--trainer.num_sanity_val_steps", 0)
        assert re.fullmatch(rf"Cannot read image '{broken}': .*; mend or drop it, .* `on_error='skip'`\.", message)


class TestRefusedAtTheStart:
    """What shows only with the data, when the run's folder is there: it goes again."""

    @pytest.mark.parametrize(
        ("labels", "expected"),
        [
            (np.zeros(SAMPLES - 1, dtype=np.int64), rf"shape \({SAMPLES},\), but got shape \({SAMPLES - 1},\)"),
            (np.zeros(SAMPLES), "integer labels, but got dtype float64"),
            (np.full(SAMPLES, 10), r"labels in \[0, 10\), but got 10 at position 0"),
            (None, "labels, but got no such file"),
        ],
        ids=["length", "dtype", "range", "missing"],
    )
    def test_label_file(self, config, capsys, labels, expected):
        if labels is not None:
            np.save("labels.npy", labels)
        message = command_line_error(capsys, config, "--data.noise", "FileNoise", "--data.noise.path", "labels.npy")
        assert "'labels.npy'" in message
        assert re.search(expected, message)
        assert not Path("runs").exists()

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (
                ["--trainer.callbacks+=MaskRefresh", "--trainer.callbacks.head", "hed"],
                "no layer `hed` to mask: ",
            ),
            (["--model.loss", "torch.nn.NLLLoss"], "SELC makes soft targets, but NLLLoss cannot take them"),
            (
                ["--trainer.callbacks+=GradientSwitching"],
                "SELC and GradientSwitching both replace the target of `loss`",
            ),
        ],
        ids=["head", "criterion", "rivals"],
    )
    def test_what_does_not_fit_together(self, config, capsys, arguments, expected):
        assert re.search(expected, command_line_error(capsys, config, *arguments))
        assert not Path("runs").exists()

    @pytest.mark.parametrize("there", ["runs", "runs/run", "runs/run/version_0"])
    def test_what_was_there_stays(self, config, capsys, there):
        Path(there).mkdir(parents=True)
        command_line_error(capsys, config, "--model.loss", "torch.nn.NLLLoss", "--trainer.logger.version", 0)
        assert Path(there).is_dir()
        assert there == "runs/run/version_0" or not list(Path(there).iterdir())

    def test_without_a_logger(self, config, capsys):
        for name in (".", "elsewhere"):
            options = ["--trainer.logger", "false", "--trainer.default_root_dir", name]
            command_line_error(capsys, config, "--model.loss", "torch.nn.NLLLoss", *options)
        assert [path.name for path in Path().iterdir()] == ["config.yaml"]
        assert config.read_text() == CONFIG

    def test_schedule_without_end(self, config, capsys):
        loss = ["--model.loss", "DynamicsAwareLoss", "--model.loss.q", "0.8"]
        schedule = ["--trainer.callbacks", "[{class_path: DALSchedule, init_args: {q_start: 0.8, q_end: 1.5}}]"]
        message = command_line_error(capsys, config, *loss, *schedule, "--trainer.max_epochs", "-1")
        assert re.search("DALSchedule needs the number of epochs, but .* is -1", message)
        assert not Path("runs").exists()

    def test_checkpoint_of_other_labels(self, config, capsys, checkpoint):
        resume = ["--ckpt_path", checkpoint, "--trainer.max_epochs", 2]
        message = command_line_error(capsys, config, *resume, "--seed_everything", 1)
        assert re.search("checkpoint's per-sample state belongs to other given labels", message)
        assert not Path("runs").exists()


class TestRefusedInTraining:
    def test_loss_that_is_not_finite(self, config, capsys):
        message = command_line_error(capsys, config, *NO_CALLBACKS, "--model.optimizer.lr", "1e30")
        assert re.search(r"loss is not finite in epoch 0, batch [12], samples \[\d+, .*\]: lower", message)
        assert not [name for name in left_behind() if name.endswith(".ckpt")]

    def test_logits_that_are_not_finite(self, config, capsys):
        message = command_line_error(capsys, config, "--model.optimizer.lr", "1e30")
        assert re.search(r"not finite in epoch 0, .*samples \[\d+, .*\]: lower", message)
