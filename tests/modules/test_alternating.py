"""Networks in turns, on two processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.tuner import Tuner

from lightning_noisy import NoisyLabelError, modules
from lightning_noisy.modules import AlternatingModule, MixMatchModule
from tests.distributed import Pool
from tests.foreign import make_trainer
from tests.modules.recorded_steps import Recorder
from tests.modules.strategies import STRATEGIES, make_data, make_strategy

IN_TURNS = [name for name in STRATEGIES if issubclass(getattr(modules, name), AlternatingModule)]


@dataclass(frozen=True)
class Fit:
    folder: str
    name: str


def fit_on(rank: int, run: Fit) -> tuple[dict[str, Any], Any]:
    torch.set_num_threads(1)
    module, recorder = make_strategy(run.name), Recorder()
    trainer = make_trainer(run.folder, [recorder], max_epochs=3, devices=2, strategy="ddp_find_unused_parameters_true")
    trainer.fit(module, datamodule=make_data(run.name))
    return dict(module.state_dict()), recorder.steps[-1]


@pytest.mark.parametrize(
    "name", [name if name == "DivideMix" else pytest.param(name, marks=pytest.mark.slow) for name in IN_TURNS]
)
def test_two_processes_learn_the_same_weights_from_parts_of_each_batch(pool: Pool, tmp_path: Path, name: str) -> None:
    (first, one), (second, other) = pool.run(fit_on, Fit(str(tmp_path), name))
    for key, value in first.items():
        if "running" not in key and "num_batches" not in key:
            torch.testing.assert_close(second[key], value, msg=key)
    assert not np.array_equal(one.index, other.index)
    if issubclass(getattr(modules, name), MixMatchModule):
        assert (one.stores["labeled"] == other.stores["labeled"]).all()
        flags = [one.stores["labeled"][step.index, 1] for step in (one, other)]
        assert all((own == sorted(own, reverse=True)).all() for own in flags)  # labeled ones first
        assert abs(int(flags[0].sum()) - int(flags[1].sum())) <= 1


def test_a_trial_of_the_learning_rate_is_refused(tmp_path: Path) -> None:
    module = make_strategy("ELRPlus")
    module.lr = 0.1
    with pytest.raises(NoisyLabelError, match=r"^ELRPlus says before each epoch which samples its networks visit, "):
        Tuner(make_trainer(tmp_path, max_epochs=1)).lr_find(module, datamodule=make_data("ELRPlus"))


def refused_on(rank: int, run: Fit) -> str:
    trainer = make_trainer(run.folder, max_epochs=1, devices=2, strategy="ddp")
    with pytest.raises(NoisyLabelError) as caught:
        trainer.fit(make_strategy(run.name), datamodule=make_data(run.name))
    return str(caught.value)


def test_processes_that_wait_for_all_gradients_are_refused(pool: Pool, tmp_path: Path) -> None:
    assert set(pool.run(refused_on, Fit(str(tmp_path), "DivideMix"))) == {
        "DivideMix trains its networks in turn, so that one of them has no gradient: use "
        "strategy='ddp_find_unused_parameters_true'."
    }
