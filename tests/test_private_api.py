"""Whether Lightning and jsonargparse still have what they promise nobody and the package leans on."""

import argparse
import inspect
import re
import warnings

import pytest
from jsonargparse import ActionConfigFile, ArgumentParser
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from lightning_noisy.callbacks import SELC
from lightning_noisy.heads import MaskableHead
from lightning_noisy.private_api import ARGUMENTS_TWICE, CALLBACK_TWICE, ConfigurationAloneCLI, refusal

# The command line


def test_lightning_cli_parse_ckpt_path():
    assert list(inspect.signature(LightningCLI._parse_ckpt_path).parameters) == ["self"]
    assert "self._parse_ckpt_path()" in inspect.getsource(LightningCLI.__init__)
    assert ConfigurationAloneCLI._parse_ckpt_path is not LightningCLI._parse_ckpt_path


def test_lightning_cli_init_parser_adds_the_option_config():
    """Public, and replaced whole: what it does has to be what ours does."""
    assert "action=ActionConfigFile" in inspect.getsource(LightningCLI.init_parser)
    theirs = LightningCLI.init_parser(argparse.Namespace(parser_class=LightningArgumentParser))
    options = {option for action in theirs._actions for option in action.option_strings}
    assert options == {"-h", "--help", "-c", "--config", "--print_config"}


def test_jsonargparse_action_config_file_takes_text():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action=ActionConfigFile)
    parser.add_argument("--a", type=int)
    read = parser.parse_args(["--config", "# text\na: 3"])
    assert (read.a, read.config) == (3, [None])  # ours puts the file in the place of None
    parameters = list(inspect.signature(ActionConfigFile.__call__).parameters)
    assert parameters == ["self", "parser", "cfg", "values", "option_string"]


def test_lightning_warning_arguments_twice(monkeypatch):
    monkeypatch.setattr("sys.argv", ["program", "--x"])
    cli = argparse.Namespace()
    with pytest.warns(UserWarning, match=re.escape(ARGUMENTS_TWICE)):
        LightningCLI.parse_arguments(cli, ArgumentParser(), [])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", ARGUMENTS_TWICE)
        LightningCLI.parse_arguments(cli, ArgumentParser(), [])
    assert not caught


def test_lightning_error_callback_twice():
    with pytest.raises(RuntimeError) as error:
        Trainer(callbacks=[SELC(), SELC()], logger=False, enable_checkpointing=False)
    assert str(error.value).startswith(CALLBACK_TWICE)


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
