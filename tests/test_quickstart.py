"""The main job's promise: robust where plain cross entropy memorizes."""

import statistics

import pytest

from benchmarks.quickstart import run


@pytest.mark.slow
@pytest.mark.parametrize(("config", "low", "high"), [("quickstart.yaml", 0.94, 1.0), ("quickstart_ce.yaml", 0.0, 0.80)])
def test_mean_of_five_seeds_at_the_last_epoch(tmp_path, monkeypatch, config, low, high):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    last = [list(run(config, seed)["accuracy"].values())[-1] for seed in range(5)]
    assert low <= statistics.mean(last) <= high
