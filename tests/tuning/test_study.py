"""Several workers share one search: each point once, one total, and what a dead one has left is taken up."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from lightning_noisy.cli.tune import tune
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.tuning import study as studies
from lightning_noisy.tuning import worker as workers
from lightning_noisy.tuning.journal import Journal
from lightning_noisy.tuning.proposals import Drawing, Listing
from lightning_noisy.tuning.space import read_space
from lightning_noisy.tuning.study import SharedStudy
from tests._dummies import isolate
from tests.tuning.planted import Recorded

fork = multiprocessing.get_context("fork")
GRID = ["--search", "a=1,2,3,4", "--search", "b=1,2,3"]


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path, drawn=True)
    monkeypatch.setattr(workers, "POLL", 0.02)
    return tmp_path


def impatient(monkeypatch, grace=0.5):
    monkeypatch.setattr(studies, "BEAT", grace / 10)
    monkeypatch.setattr(studies, "GRACE", grace)


def started(arguments, fit):
    process = fork.Process(target=tune, args=(arguments, fit))
    process.start()
    return process


def until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def results():
    return json.loads(Path("runs", "tune", "results.json").read_text())


def process_study(points, **options):
    """A worker's view of a search: another journal object is what another process has."""
    return SharedStudy(Journal(Path("journal.log")), "trial", points, **options)


POINTS = [{"a": "1"}, {"a": "2"}, {"a": "3"}]


# Processes


def test_two_processes_run_each_point_once_and_all_data_once():
    fit = Recorded("runs.jsonl")
    both = [started(GRID, fit) for _ in range(2)]
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    runs = fit.runs()
    assert sorted(run[1:3] for run in runs if not run[3]) == [(a, b) for a in (1, 2, 3, 4) for b in (1, 2, 3)]
    assert [run[1:3] for run in runs if run[3]] == [(2, 3)]
    assert {run[0] for run in runs} == {process.pid for process in both}
    record = results()
    assert [point["values"] for point in record["points"]] == [{"a": a, "b": b} for a in "1234" for b in "123"]
    assert record["chosen"] == record["retrained"]["values"] == {"a": "2", "b": "3"}
    assert len({point["folder"] for point in record["points"]}) == 12
    assert Path("runs", "tune", "search.png").stat().st_size > 1000


def test_three_processes_have_one_total_and_draw_what_one_would():
    drawn = ["--search", "a=0..1", "--sampler", "random", "--trials", "9"]
    alone, fit = Recorded("alone.jsonl"), Recorded("runs.jsonl")
    tune([*drawn, "--output", "alone"], alone)
    processes = [started(drawn, fit) for _ in range(3)]
    for process in processes:
        process.join(60)
    found, expected = ([run[1] for run in one.runs() if not run[3]] for one in (fit, alone))
    assert len(set(found)) == len(found) == 9
    assert sorted(found) == sorted(expected)
    assert sum(run[3] for run in fit.runs()) == 1


def test_what_a_killed_process_has_left_is_run_by_another(monkeypatch):
    impatient(monkeypatch)
    fit = Recorded("runs.jsonl", blocks_at=2.0)
    search = ["--search", "a=1,2,3"]
    victim = started(search, fit)
    until(lambda: len(fit.runs()) == 2)
    os.kill(victim.pid, signal.SIGKILL)
    victim.join()
    other = Recorded("runs.jsonl")
    record = tune(search, other)
    runs = other.runs()
    assert [(run[0] == victim.pid, *run[1::2]) for run in runs] == [
        (True, 1.0, False),
        (True, 2.0, False),
        (False, 3.0, False),
        (False, 2.0, False),
        (False, 2.0, True),
    ]
    assert [point["state"] for point in record["points"]] == 3 * ["complete"]


def test_what_lives_is_waited_for_however_long_it_takes(monkeypatch):
    impatient(monkeypatch)
    fit = Recorded("runs.jsonl", seconds=1.2)
    slow = started(["--search", "a=2"], fit)
    until(lambda: len(fit.runs()) == 1)
    fit.seconds = 0.02
    record = tune(["--search", "a=2"], fit)
    slow.join(60)
    assert [(run[0] == slow.pid, run[3]) for run in fit.runs()] in (
        [(True, False), (True, True)],
        [(True, False), (False, True)],
    )
    assert record["chosen"] == {"a": "2"}
    assert results()["retrained"] is not None


def test_a_process_killed_on_all_data_leaves_that_to_the_next(monkeypatch):
    impatient(monkeypatch)
    fit = Recorded("runs.jsonl")
    victim = fork.Process(target=tune, args=(["--search", "a=2"], lambda *given: stuck_on_all_data(fit, *given)))
    victim.start()
    until(lambda: Path("stuck").exists())
    assert results()["retrained"] is None
    os.kill(victim.pid, signal.SIGKILL)
    victim.join()
    record = tune(["--search", "a=2"], fit)
    assert record["retrained"] == {"values": {"a": "2"}, "folder": "runs/tune/all_data_1"}
    assert [(run[0] == os.getpid(), run[3]) for run in fit.runs()] == [(False, False), (True, True)]


def stuck_on_all_data(fit, arguments, attach):
    if arguments[-1] == "0":
        Path("stuck").touch()
        time.sleep(600)
    return fit(arguments, attach)


# One worker beside another


def test_a_trial_that_was_taken_up_takes_no_result_of_the_first(monkeypatch):
    monkeypatch.setattr(studies, "GRACE", 0.0)
    one, other = process_study(Listing(POINTS[:1])), process_study(Listing(POINTS[:1]))
    late = one.claim()
    assert other.claim() is None
    again = other.claim()
    assert again.user_attrs["values"] == late.user_attrs["values"]
    assert one.report(late, 0, 0.9)
    assert not one.finish(late, 0.9, folder="late")
    assert other.finish(again, 0.4, folder="again")
    (point,) = one.points()
    assert (point.state, point.score, point.folder) == ("complete", 0.4, "again")


def test_a_trial_lives_as_long_as_its_beats_go_on(monkeypatch):
    monkeypatch.setattr(studies, "GRACE", 0.0)
    one, other = process_study(Listing(POINTS[:1])), process_study(Listing(POINTS[:1]))
    trial = one.claim()
    for beat in range(1, 4):
        assert other.claim() is None
        assert other.others_live() == (beat > 1)
        trial.set_user_attr("beat", beat)
    assert other.claim() is None
    assert other.running() == [trial.user_attrs["worker"]]
    assert other.claim().user_attrs["again"] == trial.number


def test_a_point_is_begun_three_times_at_most(monkeypatch):
    monkeypatch.setattr(studies, "GRACE", 0.0)
    listed = process_study(Listing(POINTS[:1]))
    trials = [listed.claim() for _ in range(8)]
    assert sum(trial is not None for trial in trials) == 3
    (point,) = listed.points()
    assert (point.state, point.error) == ("failed", "its process died")
    unbound = process_study(Listing(POINTS[:1]), most_deaths=None)
    assert unbound.claim() is not None


def test_what_is_given_back_comes_next_and_is_no_death():
    study = process_study(Listing(POINTS))
    for _ in range(5):
        trial = study.claim()
        assert trial.user_attrs["values"] == POINTS[0]
        with pytest.raises(KeyboardInterrupt), study.alive(trial):
            raise KeyboardInterrupt
    assert [point.error for point in study.points()] == ["interrupted"]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_drawn_point_is_begun_again_and_changes_no_other(monkeypatch, sampler):
    """All are begun three times, and are those of a search in which nobody dies; Optuna knows them as well."""
    monkeypatch.setattr(studies, "GRACE", 0.0)
    points = Drawing(read_space(["a=0..1", "b=x,y,z"]), sampler, 0, 3)
    study = process_study(points)
    trials = [trial for trial in (study.claim() for _ in range(15)) if trial is not None]
    values = [trial.user_attrs["values"] for trial in trials]
    undisturbed = SharedStudy(Journal(Path("other.log")), "trial", points)
    monkeypatch.setattr(studies, "GRACE", 60.0)
    expected = [undisturbed.claim().user_attrs["values"] for _ in range(3)]
    assert [values.count(one) for one in expected] == [3, 3, 3]
    assert len(values) == 9
    for trial in trials:
        assert trial.params["b"] == trial.user_attrs["values"]["b"]
        assert trial.params["a"] == pytest.approx(float(trial.user_attrs["values"]["a"]), rel=5e-4)


def test_each_draw_has_a_seed_of_its_own_also_after_a_new_start():
    space = read_space(["a=0..1"])
    values = []
    for name, seed in (("trial", 0), ("other", 1)):
        for _ in range(4):  # workers, each with a sampler of its own
            study = SharedStudy(Journal(Path("journal.log")), name, Drawing(space, "random", seed, 4))
            trial = study.claim()
            study.finish(trial, 0.5)
            values.append(trial.user_attrs["values"]["a"])
    assert len(set(values)) == 8
    assert process_study(Drawing(space, "random", 0, 4)).claim() is None
    assert process_study(Drawing(space, "random", 0, 5)).claim() is not None


@pytest.mark.parametrize("content", ["max_epochs: 3\n", "{}\n", "[]\n", "3\n", '{"op_code": 0'])
def test_another_file_is_left_alone(content):
    Path("journal.log").write_text(content)
    with pytest.raises(NoisyLabelError, match=r"^'journal\.log' is not the journal of a search, or its last line is t"):
        Journal(Path("journal.log"))
    assert Path("journal.log").read_text() == content
