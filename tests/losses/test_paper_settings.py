"""Published arguments: every setting makes a loss that computes, and docs/losses.md says the same.

``python -m tests.losses.test_paper_settings`` writes the table of docs/losses.md anew.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from lightning_noisy import SampleStore, callbacks, losses
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses import NoisyLabelLoss, paper_loss, paper_setting, published_losses
from tests.papers.losses import PAPER_SETTINGS

DOCUMENT = Path(__file__).parents[2] / "docs" / "losses.md"
CLASSES = {"MNIST": 10, "CIFAR-10": 10, "CIFAR-100": 100, "ANIMAL-10N": 10, "Clothing1M": 14, "WebVision": 50}
DATA = tuple(CLASSES)
KEYS = [(paper, loss, data) for paper, own in published_losses().items() for loss, sets in own.items() for data in sets]


def short_name(setting: dict[str, Any]) -> str:
    return setting["class_path"].rpartition(".")[2]


def made_of(setting: dict[str, Any]) -> str:
    parts = [made_of(value) for value in setting["init_args"].values() if isinstance(value, dict)]
    return short_name(setting) + (f"({', '.join(parts)})" if parts else "")


def number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def arguments(setting: dict[str, Any]) -> str:
    """Of the loss itself, then of the losses in it, then of the callbacks."""
    given = setting["init_args"].items()
    own = ", ".join(f"{name} {number(value)}" for name, value in given if not isinstance(value, dict))
    inner = [arguments(value) for _, value in given if isinstance(value, dict)]
    moved = [f"{short_name(callback)}: {arguments(callback)}" for callback in setting.get("callbacks", ())]
    return "; ".join(part for part in (own, *inner, *moved) if part)


def rendered() -> str:
    lines = ["| paper | loss | made of | " + " | ".join(DATA) + " |", "|---" * (3 + len(DATA)) + "|"]
    for paper, own in published_losses().items():
        for loss, sets in own.items():
            settings = {key: paper_setting(paper, loss, key) for key in sets}
            cells = {data: [] for data in DATA}
            for key, setting in settings.items():
                data, _, noise = key.partition(", ")
                cells[data].append((f"{noise}: " if noise else "") + arguments(setting))
            name = "`, `".join(dict.fromkeys(made_of(setting) for setting in settings.values()))
            values = " | ".join("<br>".join(cells[data]) or "\N{EN DASH}" for data in DATA)
            lines.append(f"| {paper} | {loss} | `{name}` | {values} |")
    return "\n".join(lines) + "\n"


def split_document() -> tuple[str, str, str]:
    before, rest = DOCUMENT.read_text().split("<!-- settings -->\n")
    table, after = rest.split("<!-- /settings -->\n")
    return before, table, after


def listed() -> dict[str, list[str]]:
    """The rows of the first table: class -> its other cells."""
    rows = [line.strip("| \n").split(" | ") for line in split_document()[0].splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_document_has_the_settings() -> None:
    assert split_document()[1] == rendered()


def test_every_setting_is_there_and_is_that_of_the_papers() -> None:
    papers = PAPER_SETTINGS.items()
    assert [(paper, loss, data) for paper, own in papers for loss, sets in own.items() for data in sets] == KEYS
    for paper, loss, data in KEYS:
        assert paper_setting(paper, loss, data) == PAPER_SETTINGS[paper][loss][data], (loss, data)


def test_no_value_stands_twice() -> None:
    """What a recipe of the same paper has is read from it."""
    own = {"DAL", "ELR", "SAT", "NAL"}  # of these papers there are recipes for every loss and data set
    for paper in own:
        for loss, sets in published_losses()[paper].items():
            assert all(isinstance(entry, str) for entry in sets.values()), (paper, loss)


def test_document_lists_every_loss() -> None:
    exported = {name for name in losses.__all__ if inspect.isclass(getattr(losses, name))} - {"NoisyLabelLoss"}
    assert set(listed()) == exported


@pytest.mark.parametrize("name", sorted(listed()))
def test_document_tells_needs_and_soft_targets(name: str) -> None:
    kind = getattr(losses, name)
    _, needs, soft, _ = listed()[name]
    composite = isinstance(inspect.getattr_static(kind, "soft_targets"), property)
    assert soft == ("of its parts" if composite else "yes" if kind.soft_targets else "no")
    declared = kind.own_requires if hasattr(kind, "own_requires") else kind.requires
    if isinstance(declared, property):
        examples = {"StagedLoss": {"stages": [nn.CrossEntropyLoss()], "starts": [0]}}
        declared = kind(**examples.get(name, {})).requires
    assert tuple(re.findall(r"`(\w+)`", needs)) == declared


@pytest.mark.parametrize("key", KEYS, ids=" ".join)
def test_every_setting_makes_a_loss_that_computes(key: tuple[str, str, str]) -> None:
    torch.manual_seed(0)
    loss = paper_loss(*key)
    classes = CLASSES[key[2].split(",")[0]]
    logits = torch.randn(6, classes, requires_grad=True)
    offered = {
        "index": torch.arange(6),
        "features": torch.randn(6, 5),
        "parameters": [torch.ones(3)],
        "views": (logits, torch.randn(6, classes)),
        "epoch": 100,
        "total_epochs": 120,
    }
    assert isinstance(loss, NoisyLabelLoss)
    loss.bind(5, classes)
    loss.stores = {name: SampleStore(6, shape) for name, shape in loss.store_shapes(classes).items()}
    value = loss(logits, torch.arange(6), **{name: offered[name] for name in loss.requires})
    assert value.shape == ()
    assert value.isfinite()


@pytest.mark.parametrize("key", KEYS, ids=" ".join)
def test_settings_are_plain_and_name_what_there_is(key: tuple[str, str, str]) -> None:
    setting = paper_setting(*key)
    assert yaml.safe_load(yaml.safe_dump(setting)) == setting
    assert key[2].partition(", ")[0] in DATA
    for callback in setting.get("callbacks", ()):
        module, _, name = callback["class_path"].rpartition(".")
        assert module == "lightning_noisy.callbacks"
        made = getattr(callbacks, name)(**callback["init_args"])
        prefix, _, attribute = (getattr(made, "target", None) or "loss").partition(".")
        assert prefix == "loss"
        moved = paper_loss(*key)
        for step in attribute.split(".")[:-1] if name == "ParameterSchedule" else filter(None, attribute.split(".")):
            moved = getattr(moved, step)
        assert isinstance(getattr(moved, "q" if name == "DALSchedule" else attribute.split(".")[-1]), (int, float))


def test_table_of_dal() -> None:
    """Against its own columns, typed a second time."""
    columns = {
        "CIFAR-10": {"GCE": (0.9,), "SCE": (0.1, 10), "BTL": (0.7, 3), "NCE+RCE": (1, 0.1), "TCE": (3,), "JS": (0.9,)},
        "CIFAR-100": {
            "GCE": (0.7,),
            "SCE": (6, 1),
            "BTL": (0.7, 1.5),
            "NCE+RCE": (10, 0.1),
            "TCE": (18,),
            "JS": (0.5,),
        },
        "ANIMAL-10N": {"SCE": (6, 1), "NCE+RCE": (10, 0.1), "JS": (0.5,)},
        "WebVision": {"SCE": (10, 1), "NCE+RCE": (50, 0.1), "JS": (0.1,)},
    }
    for data, rows in columns.items():
        for loss, values in rows.items():
            given = paper_setting("DAL", loss, data)["init_args"]
            plain = [v for k, v in given.items() if k != "eps" and isinstance(v, (int, float))]
            assert tuple(plain) == values, (data, loss)
    weights = {"CIFAR-10": (6, 1.5, 1, 0.4), "CIFAR-100": (3, 3, 10, 0.1), "WebVision": (1e-5, 0.5, 0, 1)}
    for data, (a, q, alpha, beta) in weights.items():
        pair = paper_loss("DAL", "NCE+AGCE", data)
        assert (pair.passive.a, pair.passive.q, pair.alpha, pair.beta) == (a, q, alpha, beta)


@pytest.mark.parametrize("row", ["CE+SR", "FL+SR", "GCE+SR"])
def test_sparse_regularization_on_cifar100_has_a_weight_for_each_noise(row: str) -> None:
    weights = {noise: paper_loss("SR", row, f"CIFAR-100, {noise}").weight(0) for noise in ("symmetric", "asymmetric")}
    assert weights == {"symmetric": 4, "asymmetric": 10}


@pytest.mark.parametrize(
    ("key", "name", "known"),
    [
        (("XYZ", "GCE", "CIFAR-10"), "paper", "one of 'GCE', 'SCE', 'APL', "),
        (("DAL", "XYZ", "CIFAR-10"), "loss", "one of 'DAL', 'GCE', "),
        (("DAL", "TCE", "XYZ"), "data", "one of 'CIFAR-10', 'CIFAR-100', but got 'XYZ'."),
    ],
)
def test_unknown_setting(key: tuple[str, str, str], name: str, known: str) -> None:
    with pytest.raises(NoisyLabelError, match=rf"^Expected argument `{name}` to be {re.escape(known)}"):
        paper_loss(*key)


if __name__ == "__main__":
    before, _, after = split_document()
    DOCUMENT.write_text(f"{before}<!-- settings -->\n{rendered()}<!-- /settings -->\n{after}")
