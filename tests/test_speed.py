"""The suite of speed runs whole in small, its targets are of figures that it measures, and its clocks are right."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import clock, full_step, host_time, image_epochs, loader, scale, speed, speed_claims
from benchmarks.record import RESULTS
from lightning_noisy import cli


class Event:
    """An event of a GPU on whose time line each mark is as late as the list says."""

    times: list[float]

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        self.time = self.times.pop(0)

    def elapsed_time(self, other):
        return other.time - self.time


def test_steps_on_a_gpu_are_timed_by_its_events(monkeypatch):
    waits = []
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", waits.append)
    Event.times = [0.0, 50, 60, 63, 64, 68, 70, 73, 75]
    steps = clock.StepClock(skipped=1)
    begin, inner, end = steps.around([SimpleNamespace()])
    module = SimpleNamespace(device=torch.device("cuda"))
    for number in range(4):
        begin.on_train_batch_start(SimpleNamespace(global_step=number), module, None, number)
        end.on_train_batch_end(None, module, None, None, number)
    assert isinstance(inner, SimpleNamespace)
    assert waits == []  # no step waits
    assert steps.step() == pytest.approx(5)  # from 60 to 64 and from 64 to 70
    assert steps.share_between() == pytest.approx(1.5 / 4.5)  # 3, 4 and 3 inside; 1 and 2 between
    assert len(waits) == 2


def test_epochs_are_timed_without_the_first(monkeypatch):
    readings = iter([0.0, 100.0, 102.0, 106.0, 107.0])
    monkeypatch.setattr(clock.time, "perf_counter", lambda: next(readings))
    whole, module = clock.EpochClock(), SimpleNamespace(device=torch.device("cpu"))
    for epoch in range(4):
        whole.on_train_epoch_start(SimpleNamespace(current_epoch=epoch), module)
    whole.on_train_end()
    assert whole.seconds() == 2.0


def test_methods_by_hand_are_their_equations():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, full_step.CLASSES, generator=generator, dtype=torch.float64)
    labels, index = torch.arange(6) % full_step.CLASSES, torch.tensor([4, 1, 0, 3])
    target = labels[index]
    p = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(axis=2, keepdims=True)
    given, rows = p[:, np.arange(4), target], np.eye(full_step.CLASSES)[target]
    clipped = p.clip(1e-4, 1 - 1e-4)
    normalized = clipped / clipped.sum(axis=2, keepdims=True)
    seen = 0.3 * normalized[0], 0.7 * 0.3 * normalized[0] + 0.3 * normalized[1]
    moved = 0.9 * rows + 0.1 * p[0], 0.81 * rows + 0.09 * p[0] + 0.1 * p[1]
    entropy = -(p * np.log(p + 1e-6)).sum(axis=2)
    expected = {
        "CE": [-np.log(given[step]).mean() for step in range(2)],
        "ELR": [(-np.log(given[i]) + 3 * np.log(1 - (seen[i] * clipped[i]).sum(axis=1))).mean() for i in range(2)],
        "SELC": [-(moved[step] * np.log(p[step])).sum(axis=1).mean() for step in range(2)],
        "DAL": [((1 - given[i] ** 1.2) / 1.2 + 0.3 / (1.2 * np.log(10)) * entropy[i]).mean() for i in range(2)],
    }
    for method, values in expected.items():
        loss = full_step.BY_HAND[method](labels)
        found = [loss(logits[step], target, index).item() for step in range(2)]
        assert found == pytest.approx(values, rel=1e-5), method


def test_every_target_is_of_a_figure_that_its_claim_measures(monkeypatch):
    ones = lambda runs, *_: dict.fromkeys(runs, 1.0)  # noqa: E731
    row = {"ms": 1.0, "beyond plain": 0.1, "times plain": 1.0}
    fit = SimpleNamespace(step=lambda: 1.0, seconds=lambda: 1.0, share_between=lambda: 0.0)
    for module in (full_step, image_epochs):
        monkeypatch.setattr(module, "by_turns", ones)
    monkeypatch.setattr(speed_claims, "_step_times", ones)
    for claim in ("heads", "head memory"):
        monkeypatch.setitem(speed.CLAIMS[claim].full, "features", 4)
    monkeypatch.setattr(host_time, "measure", lambda samples, *_: dict.fromkeys(host_time.rows(samples), row))
    monkeypatch.setattr(image_epochs.Fit, "run", lambda *_: (fit, fit))
    monkeypatch.setattr(
        image_epochs, "RandomCIFAR10", lambda *_, **__: SimpleNamespace(setup=print, train_dataloader=list)
    )
    monkeypatch.setattr(loader, "seconds_per_image", lambda *_: 1e-4)
    monkeypatch.setattr(speed_claims, "measure_callbacks", lambda *_: {"share": 0.01})
    epochs = clock.EpochClock()
    epochs.laps = SimpleNamespace(milliseconds=lambda: [9e3, 1e3])
    monkeypatch.setattr(cli, "main", lambda _: SimpleNamespace(trainer=SimpleNamespace(callbacks=[epochs])))
    kinds = [
        {"rows": kind, "samples": n, "units": 0.1, "microseconds": 5}
        for kind in scale.storages(64)
        for n in scale.SAMPLES
    ]
    monkeypatch.setattr(scale, "measure", lambda *_: {"rows": kinds})
    for claim in {target.claim for target in speed.TARGETS}:
        figures = speed.CLAIMS[claim].run("cpu", toy=False)
        assert {target.figure for target in speed.TARGETS if target.claim == claim} <= set(figures), claim
    assert {"cpu", "cuda"} == {device for claim in speed.CLAIMS.values() for device in claim.devices}


@pytest.fixture
def one_process(monkeypatch):
    """Claims in this process, which take seconds alone to start; what fails says so on standard error."""

    def run(command, **_):
        try:
            speed.main(command[3:])
        except KeyError as error:
            return SimpleNamespace(returncode=1, stderr=f"Traceback\nKeyError: {error}\n")
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(speed, "subprocess", SimpleNamespace(run=run))
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")


def test_a_record_of_some_claims(tmp_path, one_process, monkeypatch, capsys):
    path = tmp_path / "speed.json"
    command = ["--device", "cpu", "--toy", "--results", str(path), "--only"]
    speed.main([*command, "heads", "MLP step", "epoch", "overhead", "loader", "rows"])
    claims = json.loads(path.read_text())["claims"]
    assert list(claims) == ["heads", "MLP step", "epoch", "overhead", "loader", "rows"]
    assert all(value > 0 for seen in claims.values() for value in seen["figures"].values())
    assert claims["heads"]["figures"]["linear, 6 classes, nn.Linear"] == 1
    assert claims["epoch"]["figures"]["small CNN: share between steps"] < 1
    assert {"commit", "processor", "torch"} <= set(claims["MLP step"]["machine"])

    def fails(*_):
        raise KeyError("no such head")

    monkeypatch.setattr(speed_claims, "_step_times", fails)
    with pytest.raises(SystemExit) as stop:
        speed.main([*command, "heads"])
    assert stop.value.code == 1
    again = json.loads(path.read_text())["claims"]
    assert again["heads"]["error"] == "KeyError: 'no such head'"
    assert again["MLP step"] == claims["MLP step"]
    assert "KeyError" in capsys.readouterr().err
    assert "| heads | failed: KeyError: 'no such head' |" in path.with_suffix(".md").read_text()


def test_figures_beside_their_targets(monkeypatch):
    targets = [
        speed.Target("epoch", "b", 1.5),
        speed.Target("epoch", "c", 33_000, at_least=True),
        speed.Target("epoch", "d", 1.0, device="cuda"),
    ]
    monkeypatch.setattr(speed, "TARGETS", targets)
    record = {"claims": {"epoch": {"figures": {"a": 0.25, "b": 1.5, "c": 32_999, "d": 2.0}}}}
    assert speed.table(record, "cpu").splitlines()[2:] == [
        "| epoch | b | 1.5 | ≤ 1.5 | met |",
        "| epoch | c | 3.3e+04 | ≥ 33,000 | **missed** |",
        "| epoch | a | 0.25 | none | none |",
        "| epoch | d | 2 | none | none |",
    ]
    assert "| epoch | d | 2 | ≤ 1 | **missed** |" in speed.table(record, "cuda")


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_all_of_it_in_small(tmp_path, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    path = tmp_path / "speed.json"
    speed.main(["--device", device, "--toy", "--results", str(path)])
    claims = json.loads(path.read_text())["claims"]
    assert set(claims) == {name for name, claim in speed.CLAIMS.items() if device in claim.devices}


def test_the_record_is_shown_as_it_is():
    path = RESULTS / "speed-cpu.json"
    record = json.loads(path.read_text())
    assert path.with_suffix(".md").read_text() == speed.table(record, "cpu")
    assert not [claim for claim, seen in record["claims"].items() if "error" in seen]
