"""Arguments of strategies outside their range give one line that names them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from lightning_noisy import Storage, modules
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.heads import LinearHead
from lightning_noisy.modules import CoTeaching, MultiNetworkModule, NoisyLabelModule, StrategyModule
from lightning_noisy.networks import SmallCNN
from tests._dummies import needs_command_line
from tests.foreign import make_trainer
from tests.modules.strategies import STRATEGIES, make_strategy
from tests.small import SmallDataModule, make_module


def own_arguments(name: str) -> dict[str, inspect.Parameter]:
    """What a strategy takes beside what every module does."""
    found: dict[str, inspect.Parameter] = {}
    for cls in getattr(modules, name).__mro__:
        if cls in (MultiNetworkModule, NoisyLabelModule):
            break
        if "__init__" in vars(cls):
            found = {**inspect.signature(cls.__init__).parameters, **found}
    shared = set(inspect.signature(MultiNetworkModule.__init__).parameters)
    return {
        name: parameter
        for name, parameter in found.items()
        if name not in shared and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }


def outside(name: str) -> Iterator[tuple[str, Any]]:
    """Negative numbers, no numbers, unknown words, and what the table says is too large."""
    for argument, parameter in own_arguments(name).items():
        kind = str(parameter.annotation)
        if kind == "float":
            yield from ((argument, -1.0), (argument, float("nan")))
        elif kind.startswith("int"):
            yield from ((argument, -1), (argument, 1.5))
        elif isinstance(parameter.default, str):
            yield argument, "unknown"
    yield from STRATEGIES[name].too_large.items()


YAML = """
class_path: lightning_noisy.modules.DISC
init_args:
  num_classes: 10
  backbone: {class_path: lightning_noisy.networks.SmallCNN}
  head: {class_path: lightning_noisy.heads.LinearHead}
  loss: {class_path: torch.nn.CrossEntropyLoss}
  storage: {dtype: float16, top_k: 3}
  compile: {mode: reduce-overhead}
"""


@needs_command_line
def test_what_all_take_is_written_in_yaml() -> None:
    import yaml
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--model", type=StrategyModule)
    module = parser.instantiate_classes(parser.parse_object({"model": yaml.safe_load(YAML)})).model
    assert module.section.storage == Storage("float16", top_k=3)
    assert module.compile_options == {"mode": "reduce-overhead"}


CASES = [(name, *case) for name in STRATEGIES for case in outside(name)]


@pytest.mark.parametrize(("name", "argument", "value"), CASES)
def test_it_is_refused_in_a_line(name: str, argument: str, value: Any) -> None:
    with pytest.raises(NoisyLabelError) as error:
        make_strategy(name, nn.CrossEntropyLoss(), **{argument: value})
    assert f"`{argument}`" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: CoTeaching(SmallCNN(), LinearHead, nn.CrossEntropyLoss(), 10),
            "`backbone` to be a class or function that makes the backbone of each network, but got a SmallCNN",
        ),
        (
            lambda: NoisyLabelModule(SmallCNN, LinearHead, nn.CrossEntropyLoss(), 10),
            "`backbone` to be a module, but got",
        ),
        (
            lambda: NoisyLabelModule(SmallCNN(), LinearHead(16, 10), nn.CrossEntropyLoss(), 10),
            r"`head` to be a class or function that makes the classifier of \(D, K\), but got a LinearHead",
        ),
        (
            lambda: NoisyLabelModule(
                SmallCNN(), LinearHead, nn.CrossEntropyLoss(), 10, torch.optim.SGD([torch.ones(1)])
            ),
            "`optimizer` to be a class or function that makes one of parameters, but got a SGD",
        ),
    ],
)
def test_what_is_made_already_or_not_yet_is_refused(make, message):
    with pytest.raises(NoisyLabelError, match=message):
        make()


def test_the_class_of_a_loss_is_refused(tmp_path):
    module = make_module(nn.CrossEntropyLoss)
    with pytest.raises(NoisyLabelError, match="`loss` to be a module, but got the class CrossEntropyLoss"):
        make_trainer(tmp_path).fit(module, datamodule=SmallDataModule(seed=0))
