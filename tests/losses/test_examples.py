"""The examples of the docstrings and of docs/losses.md are right."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from lightning_noisy import losses
from lightning_noisy.losses import per_sample

DOCUMENT = Path(__file__).parents[2] / "docs" / "losses.md"

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


def test_examples_of_the_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, selection, weight, estimation = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), flags=re.S)
    names: dict[str, Any] = {}
    exec(own, names)
    loss, logits, target = names["SlowStart"](rise=4), torch.randn(6, 3), torch.arange(6) % 3
    assert loss.requires == ("epoch",)
    torch.testing.assert_close(loss(logits, target, epoch=1), 0.5 * cross_entropy(logits, target))
    torch.testing.assert_close(per_sample(loss)(logits, target, epoch=9).mean(), cross_entropy(logits, target))
    exec(selection, names)
    kept, logits, target = names["smallest"], names["logits"], names["target"]
    leaf = logits.detach().clone().requires_grad_()
    names["criterion"](leaf[kept], target[kept]).backward()
    torch.testing.assert_close(logits.grad, leaf.grad)
    monkeypatch.chdir(tmp_path)
    exec(weight, names)
    assert names["weights"]["cross entropy"][24] == pytest.approx(4)
    assert (tmp_path / "gradient_weight.png").is_file()
    folder = tmp_path / "runs/nal/cifar10/ce/version_0"
    folder.mkdir(parents=True)
    posterior = torch.randn(50, 3).softmax(dim=1)
    np.savez(folder / "posterior.npz", probabilities=posterior.numpy())
    exec(estimation, names)
    estimated = losses.ForwardCorrection("runs/nal/cifar10/ce/version_0/transition.npy")
    known = losses.ForwardCorrection(losses.estimate_transition(posterior, percentile=97))
    torch.testing.assert_close(estimated(logits, target), known(logits, target))
