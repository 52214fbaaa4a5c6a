"""The papers' sensitivity figures: what a point is on features and on images, records that go on, tables, pictures."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks import methods, sensitivity
from benchmarks.compact import read_compact
from benchmarks.record import RESULTS
from benchmarks.sensitivity_tables import figure, table
from benchmarks.sweeps import CE, SWEEPS, Line, Method, Sweep, make, point_name
from lightning_noisy.callbacks import SELC, MaskRefresh
from lightning_noisy.heads import KANHead
from lightning_noisy.losses import paper_setting
from lightning_noisy.recipes import recipe_settings
from tests._dummies import DummyCIFAR10, isolate, write_features

TINY = Sweep(
    "tiny",
    {"a": Line("x", lambda epochs, q, m: Method(CE)), "b": Line("x", lambda epochs, q, m: Method(CE))},
    {"q": 1, "m": 2},
    {"q axis": {"1": {"q": 1}, "3": {"q": 3}}, "m axis": {"2": {"m": 2}}},
)


@pytest.fixture
def given(tmp_path, monkeypatch):
    """A place for a record, features whose every fourth label is wrong, and small sizes."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    write_features(tmp_path / "x.npz", 40, 20, width=12)
    labels = np.load(tmp_path / "x.npz")["y"][:40]
    np.savez(tmp_path / "labels.npz", worse=np.where(np.arange(40) % 4 == 0, (labels + 1) % 10, labels))
    files = ["--features", str(tmp_path / "x.npz"), "--labels", str(tmp_path / "labels.npz"), "--test-rows", "20"]
    size = ["--epochs", "1", "--batch-size", "20", "--hidden", "8", "--results", str(tmp_path / "record.json")]
    return [*files, *size]


def test_a_point_that_stands_in_two_panels_is_one():
    assert list(TINY.points()) == ["a, q 1, m 2", "b, q 1, m 2", "a, q 3, m 2", "b, q 3, m 2"]
    for name, sweep in SWEEPS.items():
        assert all(sweep.base in map(sweep.arguments, [panel] * 9, sweep.panels[panel]) for panel in sweep.panels), name


def test_published_arguments_stand_in_the_middle():
    middle = {name: next(iter(sweep.lines.values())).method(round_, **sweep.base) for name, sweep in SWEEPS.items()}
    (dal,) = paper_setting("DAL", "DAL", "CIFAR-10")["callbacks"]
    assert middle["dal-3"].callbacks == (dal,)
    assert make(middle["gss-3"].callbacks[0]).lam_prediction == 2
    assert make(middle["gss-3"].callbacks[0]).lam_random == 1
    (selc,) = map(make, middle["nal-4"].callbacks)
    assert isinstance(selc, SELC)
    assert (selc.momentum, selc.warmup_epochs, selc.every_n_epochs, selc.floor) == (0.9, 59, 10, 1e-4)
    never = SWEEPS["dcm-6"].arguments("new mask", "never")
    masks = [
        make(SWEEPS["dcm-6"].lines["ANL-DKAN"].method(round_, **{**never, **changed}).callbacks[0])
        for changed in ({}, {"interval": "epoch"})
    ]
    assert [(mask.ratio, mask.every_n_epochs) for mask in masks] == [(0.0, None), (0.0, 1)]


def round_(published, of):
    return round(published)


def test_points_on_features_go_on_where_they_stopped(given, monkeypatch, capsys):
    fits = []
    original = methods.Fitter.fit
    monkeypatch.setattr(
        methods.Fitter, "fit", lambda *args, **more: fits.append((args, more)) or original(*args, **more)
    )
    sensitivity.main(["dcm-6", *given, "--seeds", "0", "--noises", "symmetric 0.4"])
    path = Path(given[-1])
    runs = read_compact(path)["runs"]
    assert len(fits) == len(runs) == 3 * 7
    assert runs["CE-DFC, ratio 0.7, interval step, symmetric 0.4, 0"]["accuracy"][0] >= 0
    heads = [more["head"](12, 10) for _, more in fits if more]
    assert len(heads) == 7
    assert all(isinstance(head, KANHead) and head.out_features == 10 for head in heads)
    assert all(isinstance(args[2], MaskRefresh) for args, _ in fits)
    calls = []
    seen = {"accuracy": [0.5], "seconds": 1.0, "commit": "c"}
    monkeypatch.setattr(
        sensitivity,
        "feature_run",
        lambda *_, point, **more: calls.append(more) or {"method": point, **more, **seen},
    )
    sensitivity.main(["dcm-6", *given, "--seeds", "0", "--noises", "symmetric 0.4", "worse"])
    assert calls == 21 * [{"noise": "worse", "seed": 0}]
    assert {name: read_compact(path)["runs"][name] for name in runs} == runs
    assert path.with_suffix(".md").read_text() in capsys.readouterr().out
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit):
        sensitivity.main(["dcm-6", "--labels", "x.npz"])


@pytest.mark.parametrize("name", SWEEPS)
def test_points_on_images_are_recipes_with_the_arguments_on_top(name, tmp_path):
    sweep = SWEEPS[name]
    for point, (line, arguments) in [*sweep.points().items()][::4]:
        written = sensitivity.on_top_of_recipe(sweep, point, "symmetric 0.8", "/images", 3)
        (tmp_path / "point.yaml").write_text(yaml.safe_dump(written))
        settings, recipe = recipe_settings(str(tmp_path / "point.yaml")), recipe_settings(sweep.lines[line].recipe)
        method = sweep.lines[line].method(round_, **arguments)
        assert settings["model"]["init_args"]["loss"] == {"init_args": {}, **method.loss}, point
        assert settings["trainer"]["callbacks"] == [*recipe["trainer"]["callbacks"], *method.callbacks]
        assert settings["trainer"]["max_epochs"] == recipe["trainer"]["max_epochs"]
        assert settings["data"]["init_args"]["noise"]["init_args"]["rate"] == 0.8
        assert settings["seed_everything"] == 3


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "nal-4" else pytest.mark.slow) for name in SWEEPS]
)
def test_a_point_on_images(name, tmp_path, monkeypatch):
    isolate(monkeypatch, tmp_path)
    monkeypatch.setattr("lightning_noisy.data.cifar.CIFAR10", DummyCIFAR10)
    monkeypatch.setattr(SWEEPS[name].__class__, "points", lambda sweep: dict([*points(sweep).items()][-1:]))
    small = [
        "--trainer.max_epochs=2",
        "--trainer.accelerator=cpu",
        "--model.backbone=SmallCNN",
        "--model.backbone.in_channels=3",
        "--data.num_workers=0",
    ]
    path = tmp_path / "record.json"
    size = ["--test-rows", "20", "--seeds", "0", "--noises", "symmetric 0.8", "--results", str(path)]
    sensitivity.main([name, "--images", "data", *size, "--", *small])
    record = read_compact(path)
    (seen,) = record["runs"].values()
    assert len(seen["accuracy"]) == 2
    assert record["settings"]["more"] == " ".join(small)


points = Sweep.points


@pytest.mark.parametrize("path", sorted(RESULTS.glob("sensitivity-*.json")), ids=lambda path: path.stem)
def test_records_are_whole(path):
    record = read_compact(path)
    sweep = SWEEPS["-".join(path.stem.split("-")[1:3])]
    assert table(sweep, record) == path.with_suffix(".md").read_text()
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert {seen["method"] for seen in record["runs"].values()} <= set(sweep.points())
    if "images" not in path.stem:
        assert {len(seen["accuracy"]) for seen in record["runs"].values()} == {record["settings"]["epochs"]}
        first = table(sweep, record).split("\n\n")[0].rstrip("\n")
        assert first in (RESULTS.parents[1] / "docs" / "benchmarks.md").read_text()


def test_table_and_figure():
    def seen(line, noise, seed, accuracy, **changed):
        arguments = {"q": 1, "m": 2, **changed}
        return {"method": point_name(line, arguments), "noise": noise, "seed": seed, "accuracy": accuracy}

    runs = [
        seen("b", "worse", 0, [0.9, 0.5]),
        seen("b", "worse", 1, [0.7, 0.6]),
        seen("b", "aggre", 0, [0.25, 0.5]),
        seen("a", "worse", 0, [0.25], q=3),
    ]
    record = {"runs": dict(enumerate(runs))}
    first, second = table(TINY, record).split("\n\n")
    assert (
        first.splitlines()[0] == "| method | q axis | aggre, last | aggre, best | worse, last | worse, best | seeds |"
    )
    assert first.splitlines()[2:] == ["| b | 1 | 50.00 | 50.00 | 55.00 ± 7.07 | 80.00 ± 14.14 | 1 to 2 |"]
    assert second.splitlines()[2:] == ["| b | 2 | 50.00 | 50.00 | 55.00 ± 7.07 | 80.00 ± 14.14 | 1 to 2 |"]
    aggre_q, _, worse_q, worse_m = figure(TINY, record).axes
    assert (aggre_q.get_title(), worse_q.get_xlabel(), worse_m.get_xlabel()) == ("aggre", "q axis", "m axis")
    mean_a, best_a, dots_a, mean_b, best_b, dots_b = worse_q.get_lines()
    assert [line.get_xydata().tolist() for line in (mean_a, best_a, dots_a)] == [[[1, 25]]] * 3
    assert mean_b.get_xydata().tolist() == [[0, pytest.approx(55)]]
    assert best_b.get_xydata().tolist() == [[0, pytest.approx(80)]]
    assert dots_b.get_xydata().tolist() == [[0, 50], [0, 60]]
