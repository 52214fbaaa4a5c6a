"""What the package uses of others beyond their documented interface: a version without it fails here, by name."""

import argparse
import inspect
import os
import re
import sys
from contextlib import contextmanager
from datetime import timedelta

import pytest
import torch
from jsonargparse import ActionConfigFile, ArgumentParser
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.fabric.strategies.launchers.subprocess_script import _basic_subprocess_cmd
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins import AsyncCheckpointIO, TorchCheckpointIO
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities.compile import from_compiled
from torch import nn
from torch.utils.data import DataLoader

from lightning_noisy import private_api
from lightning_noisy.callbacks import MaskRefresh
from lightning_noisy.cli import private_api as private_cli
from lightning_noisy.cli.private_api import CALLBACK_TWICE, ConfigurationAloneCLI, refusal
from lightning_noisy.heads import LinearHead, MaskableHead
from lightning_noisy.modules import private_api as private_modules
from tests._dummies import needs_command_line
from tests.foreign import ForeignModule, make_loader, make_tensors, make_trainer
from tests.small import SmallDataModule

# The Trainer


def loader():
    x, noisy, _ = make_tensors()
    return make_loader(torch.utils.data.TensorDataset(x, noisy, torch.arange(24)))


def test_batches_begun_and_processed(tmp_path):
    seen = []

    class Look(Callback):
        def on_train_batch_start(self, trainer, *_):
            seen.append((private_api.batches_begun(trainer), private_api.batches_processed(trainer)))

    trainer = make_trainer(tmp_path, [Look()])
    assert private_api.batches_begun(trainer) == 0
    trainer.fit(ForeignModule(), loader())
    assert seen == [(1, 0), (2, 1), (3, 2), (4, 0), (5, 1), (6, 2)]


def test_saved_progress(tmp_path):
    seen = []

    class Asking(torch.utils.data.DataLoader):
        def state_dict(self):
            seen.append(private_api.saved_progress())
            return {}

        def load_state_dict(self, state):
            raise NotImplementedError

    class Saving(Callback):
        def on_train_batch_start(self, trainer, *_):
            trainer.save_checkpoint(tmp_path / "a.ckpt")

        def on_train_batch_end(self, trainer, *_):
            trainer.save_checkpoint(tmp_path / "a.ckpt")

    asking = Asking(loader().dataset, 8)
    asking.state_dict()
    make_trainer(tmp_path, [Saving()], max_epochs=1).fit(ForeignModule(), asking)
    assert seen == [None, *((ended, "max_size_cycle") for batch in range(3) for ended in (batch, batch + 1))]


def test_a_batch_is_taken_back_and_a_validation_begins_again(tmp_path):
    class Look(Callback):
        def on_train_start(self, trainer, pl_module):
            private_api.take_back_unfinished_batch(trainer)
            loop = trainer.fit_loop.epoch_loop
            total = loop.batch_progress.total
            seen.append((total.ready, total.started, total.processed, total.completed, loop._batches_that_stepped))
            private_api.validate_again(trainer)
            assert loop.val_loop.restarted_mid_evaluation

    class Saving(Callback):
        def on_train_batch_start(self, trainer, *_):
            trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    seen = []
    make_trainer(tmp_path, [Saving()]).fit(ForeignModule(), loader(), loader())
    make_trainer(tmp_path, [Look()]).fit(ForeignModule(), loader(), loader(), ckpt_path=tmp_path / "5.ckpt")
    assert seen == [(5, 5, 5, 5, 4)]  # Lightning adds the fifth when it goes on


def test_has_own_checkpoint_io(tmp_path):
    own = TorchCheckpointIO()
    given = (
        make_trainer(tmp_path, plugins=[own]),
        make_trainer(tmp_path, strategy=SingleDeviceStrategy(torch.device("cpu"), checkpoint_io=own)),
        make_trainer(tmp_path, plugins=[AsyncCheckpointIO()]),
    )
    assert all(private_api.has_own_checkpoint_io(trainer) for trainer in given)
    assert not private_api.has_own_checkpoint_io(make_trainer(tmp_path))


@pytest.mark.parametrize(
    ("strategy", "finds"), [("ddp", False), ("ddp_find_unused_parameters_true", True), ("auto", True)]
)
def test_finds_unused_parameters(strategy, finds):
    assert private_api.finds_unused_parameters(Trainer(accelerator="cpu", devices=1, strategy=strategy)) == finds


def test_last_saved(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    assert private_api.last_saved(checkpoint) == ""
    make_trainer(tmp_path, [checkpoint], enable_checkpointing=True).fit(ForeignModule(), loader())
    assert private_api.last_saved(checkpoint) == str(tmp_path / "step=6.ckpt")


def test_set_epoch_length(tmp_path):
    class Longer(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            trainer.train_dataloader.batch_sampler.batch_size = 6 if trainer.current_epoch else 12
            private_api.set_epoch_length(trainer, begun=False)
            assert trainer.num_training_batches == trainer.val_check_batch == (4 if trainer.current_epoch else 2)

    trainer = make_trainer(tmp_path, [Longer()])
    trainer.fit(ForeignModule(), loader(), loader())
    assert trainer.global_step == 2 + 4


@pytest.mark.parametrize(
    ("options", "interval"),
    [
        ({"every_n_train_steps": 3}, (3, None)),
        ({"every_n_epochs": 1}, (0, None)),
        ({"train_time_interval": timedelta(seconds=5)}, (0, timedelta(seconds=5))),
    ],
)
def test_checkpoint_interval(options, interval):
    assert private_api.checkpoint_interval(ModelCheckpoint(**options)) == interval


def test_is_compiled():
    in_place = nn.Linear(2, 2)
    in_place.compile()
    assert private_api.is_compiled(torch.compile(nn.Linear(2, 2)))
    assert private_api.is_compiled(in_place)
    assert private_api.is_compiled(from_compiled(torch.compile(ForeignModule())))
    assert not private_api.is_compiled(nn.Linear(2, 2))


def test_compiling():
    batch = torch.zeros(3)
    private_modules.may_differ_in_size(batch)
    with private_modules.graphs_that_stay():
        assert not getattr(torch._functorch.config, "donated_buffer", False)
    with pytest.raises(RuntimeError) as caught:
        torch.compile(torch.sin, backend=lambda *_: 1 / 0)(batch)
    assert private_modules.compiler_failure(caught.value) == "ZeroDivisionError: division by zero"
    assert private_modules.compiler_failure(RuntimeError("another")) is None


def test_calling_module(tmp_path):
    found = []

    class Asking(ForeignModule):
        def training_step(self, batch, batch_idx):
            found.append(self.ask())
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            found.append(self.ask())

        def ask(self):
            return private_api.calling_module()

    module = Asking()
    assert module.ask() is None
    make_trainer(tmp_path, max_epochs=1).fit(module, loader(), loader())
    assert found == [module] * 3 + [None] * 3
    assert module.ask() is None


def test_data_in_use(tmp_path):
    trainer, data = make_trainer(tmp_path, limit_train_batches=1), SmallDataModule()
    found = []

    class Asking(ForeignModule):
        def training_step(self, *args):
            found.append(private_api.data_in_use(trainer))

        def validation_step(self, *args):
            found.append(private_api.data_in_use(trainer))

    own = loader()
    trainer.fit(Asking(), datamodule=data)
    trainer.validate(Asking(), own, verbose=False)
    assert found == [data] * (len(found) - 3) + [own] * 3
    assert len(found) > 5


def test_epoch_length(tmp_path):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(torch.arange(4))

    lengths = []

    class Look(Callback):
        def on_train_start(self, trainer, pl_module):
            lengths.append(private_api.epoch_length(trainer))

    class Taken(ForeignModule):
        def training_step(self, *args):
            return None

    for loaders, limit in [(loader(), 1.0), (loader(), 2), (loader(), 0.4), (DataLoader(Stream()), 1.0)]:
        make_trainer(tmp_path, [Look()], 1, limit_train_batches=limit).fit(Taken(), loaders)
    assert lengths == [3, 2, 1, float("inf")]


def test_restricted_classmethod():
    class Asking(LightningModule):
        @private_api.restricted_classmethod
        def load_from_checkpoint(cls, path):  # noqa: N805
            return cls, path

    assert Asking.load_from_checkpoint("a") == (Asking, "a")
    with pytest.raises(TypeError, match="cannot be called on an instance"):
        Asking().load_from_checkpoint("a")


# The command line


@needs_command_line
def test_lightning_cli_parse_ckpt_path():
    assert list(inspect.signature(LightningCLI._parse_ckpt_path).parameters) == ["self"]
    assert "self._parse_ckpt_path()" in inspect.getsource(LightningCLI.__init__)
    assert ConfigurationAloneCLI._parse_ckpt_path is not LightningCLI._parse_ckpt_path


def test_lightning_cli_prepares_a_parser_for_each_subcommand():
    assert list(inspect.signature(LightningCLI._prepare_subcommand_parser).parameters)[:3] == [
        "self",
        "klass",
        "subcommand",
    ]
    assert "self._prepare_subcommand_parser(" in inspect.getsource(LightningCLI._add_subcommands)


def test_lightning_cli_init_parser_adds_the_option_config():
    """Public, and replaced whole: what it does has to be what ours does."""
    assert "action=ActionConfigFile" in inspect.getsource(LightningCLI.init_parser)
    theirs = LightningCLI.init_parser(argparse.Namespace(parser_class=LightningArgumentParser))
    options = {option for action in theirs._actions for option in action.option_strings}
    assert options == {"-h", "--help", "-c", "--config", "--print_config"}


def test_one_batch_is_no_share_of_all():
    parser = LightningArgumentParser(exit_on_error=False)
    cli = ConfigurationAloneCLI.__new__(ConfigurationAloneCLI)
    cli.trainer_class, cli.trainer_defaults, cli.datamodule_class = Trainer, {}, None
    cli._model_class, cli._datamodule_class = LightningModule, LightningDataModule
    cli.subclass_mode_model = cli.subclass_mode_data = True
    cli.add_core_arguments_to_parser(parser)
    names = ["limit_train_batches", "limit_val_batches", "overfit_batches", "val_check_interval"]
    read = parser.parse_args([f"--trainer.{name}=1" for name in names] + ["--model", "tests.foreign.ForeignModule"])
    assert [type(read.trainer[name]) for name in names] == [int] * 4
    assert parser.parse_args(["--trainer.limit_val_batches=0.5", "--model", "tests.foreign.ForeignModule"])


def test_jsonargparse_action_config_file_takes_text():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action=ActionConfigFile)
    parser.add_argument("--a", type=int)
    read = parser.parse_args(["--config", "# text\na: 3"])
    assert (read.a, read.config) == (3, [None])  # ours puts the file in the place of None
    parameters = list(inspect.signature(ActionConfigFile.__call__).parameters)
    assert parameters == ["self", "parser", "cfg", "values", "option_string"]


class Other(LightningModule):
    pass


def test_watch_option():
    seen = []

    @contextmanager
    def around(read, value):
        seen.append((read.get("module.class_path"), value))
        yield
        seen.append(read.module.class_path)

    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningModule, "module", fail_untyped=False, required=False)
    private_cli.watch_option(parser, "module", around)
    first, second = "tests.foreign.ForeignModule", "tests.test_private_api.Other"
    parser.parse_args(["--module", first, "--module", second])
    assert seen == [(None, first), first, (first, second), second]


def test_processes_of_a_run_are_started_by_its_own_arguments_and_those_of_the_next_anew(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["program", "tune"])
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with private_cli.as_command_line(["fit", "--x"]):
        assert _basic_subprocess_cmd()[-2:] == ["fit", "--x"]
        torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
        monkeypatch.setitem(os.environ, "LOCAL_RANK", "0")  # as Lightning does
        assert LightningEnvironment().creates_processes_externally
    assert sys.argv == ["program", "tune"]
    assert not LightningEnvironment().creates_processes_externally
    assert not torch.distributed.is_initialized()


def test_lightning_error_callback_twice():
    with pytest.raises(RuntimeError) as error:
        Trainer(callbacks=[MaskRefresh(), MaskRefresh()], logger=False, enable_checkpointing=False)
    assert str(error.value).startswith(CALLBACK_TWICE)


@needs_command_line
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--head", "Nothing"], r"head: .*dot import path string: Nothing"),
        (["--head", "lightning_noisy.heads.LinearHead", "--head.bias", "some"], r"head\.bias: .*Got value: some"),
        (["--number", "one"], r"number: Expected a <class 'int'>.*one"),
        (["--other", "1"], "unrecognized arguments: --other 1"),
    ],
)
def test_jsonargparse_messages(arguments, expected):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--head", type=MaskableHead)
    parser.add_argument("--number", type=int)
    with pytest.raises(argparse.ArgumentError) as error:
        parser.parse_args(arguments)
    line = refusal(str(error.value))
    assert "\n" not in line
    assert re.match(expected, line), line
    assert len(line) < 200


@needs_command_line
def test_the_class_that_refuses_an_option_is_known():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--head", type=MaskableHead)
    with pytest.raises(argparse.ArgumentError) as error:
        parser.parse_args(["--head", "lightning_noisy.heads.LinearHead", "--head.biass", "true"])
    assert private_cli.refused_class(error.value) is LinearHead
    with pytest.raises(argparse.ArgumentError) as error:
        parser.parse_args(["--other", "1"])
    assert private_cli.refused_class(error.value) is None


@needs_command_line
def test_names_of_a_parser():
    parser, below = LightningArgumentParser(exit_on_error=False), LightningArgumentParser(exit_on_error=False)
    below.add_argument("--number", type=int)
    below.add_lightning_class_args(ModelCheckpoint, "checkpoint")
    parser.add_subcommands().add_subcommand("count", below)
    assert private_cli.names_of(parser) == ["count"]
    assert {"number", "checkpoint.dirpath"} <= set(private_cli.names_of(below))
    assert not {"help", "print_config"} & set(private_cli.names_of(below))
