"""The examples of the docstrings are right."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

from lightning_noisy import losses

MODULES = [module.name for module in pkgutil.iter_modules(losses.__path__, "lightning_noisy.losses.")]


@pytest.mark.parametrize("name", [name for name in MODULES if not name.split(".")[-1].startswith("_")])
def test_examples(name: str) -> None:
    exported = {public: getattr(losses, public) for public in losses.__all__}
    outcome = doctest.testmod(importlib.import_module(name), extraglobs=exported)
    assert outcome.failed == 0


def test_every_loss_has_an_example() -> None:
    for public in losses.__all__:
        kind = getattr(losses, public)
        if isinstance(kind, type) and kind is not losses.NoisyLabelLoss:
            assert ">>>" in (kind.__doc__ or ""), public
