"""The benchmark of rankings: what it compares, against loops, and its record."""

from __future__ import annotations

import json
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import detection, detection_methods, suspects
from benchmarks.detection_methods import EPOCHS_OF_MANY, Detector
from benchmarks.detection_peers import PEERS
from benchmarks.detection_tables import summary, tables
from benchmarks.method_list import Settings
from benchmarks.record import RESULTS
from lightning_noisy.recipes import recipe_settings


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Separable features with labels of which every fourth is wrong, and a place for the record."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    rng, clean = np.random.default_rng(0), np.arange(96) % 3
    noisy = np.where(np.arange(72) % 4 == 0, (clean[:72] + 1) % 3, clean[:72])
    np.savez(tmp_path / "x.npz", x=5 * np.eye(3, 6)[clean] + rng.normal(size=(96, 6)), y=clean)
    np.savez(tmp_path / "labels.npz", worse=noisy, aggre=clean[:72])
    paths = ["--features", str(tmp_path / "x.npz"), "--labels", str(tmp_path / "labels.npz"), "--test-rows", "24"]
    return [*paths, "--epochs", "3", "--noises", "worse", "--results", str(tmp_path / "r.json")]


def test_record_and_restart(files, tmp_path, capsys):
    methods = ["audit", "CE", "SimiFeat's vote", "SelfClean's ratio"]
    detection.main([*files, "--methods", *methods])
    text = (tmp_path / "r.json").read_text()
    runs = json.loads(text)["runs"]
    assert list(runs) == [f"{method}, worse, 0" for method in methods]
    assert all(seen["noise_rate"] == pytest.approx(0.25) for seen in runs.values())
    ours, vote = runs["CE, worse, 0"], runs["SimiFeat's vote, worse, 0"]
    assert set(ours["scores"]) == {"posterior", "mean", "early", "final", "loss", "margin", "forgetting"}
    low, share, high = sorted(ours["estimated"])
    assert ours["estimated"] == [share, low, high]
    assert vote["recall"] > 0.9
    assert 0 < ours["signs"]["contradicted"] <= 1
    assert ours["signs"]["expected"] == ours["estimated"][0]
    assert (vote["signs"], vote["remarks"]) == (None, [])
    detection.main([*files, "--methods", *methods])
    assert (tmp_path / "r.json").read_text() == text
    assert tables(json.loads(text)) == (tmp_path / "r.md").read_text()
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
    assert "| audit | posterior |" in capsys.readouterr().out


def test_first_suspects_beside_their_images(files, tmp_path, monkeypatch):
    clean = np.arange(72) % 3
    images = SimpleNamespace(data=np.zeros((72, 4, 4, 3), np.uint8), targets=clean.tolist(), classes=list("abc"))
    detector = Detector(str(tmp_path / "x.npz"), str(tmp_path / "labels.npz"), Settings(24, 8, 16), "worse", 0)
    drawn = []
    monkeypatch.setattr(suspects, "_FIRST", 18)
    monkeypatch.setattr(suspects, "write_picture", lambda path, picture: drawn.append(picture))
    suspects.show(detector, images, tmp_path / "s.json")
    seen = json.loads((tmp_path / "s.json").read_text())
    assert seen["wrong"] == sum(row % 4 == 0 for row in seen["rows"]) >= 15
    titles = [(axes.get_title(), axes.title.get_color()) for axes in drawn[0].axes]
    right = {(f"{'abc'[(row + 1) % 3]} → {'abc'[row % 3]}", "black") for row in range(3)}
    assert [title in right for title in titles] == [row % 4 == 0 for row in seen["rows"]]
    assert seen["suggested is right"] >= seen["wrong"]
    images.targets[0] = 1
    with pytest.raises(ValueError, match="of one data set, in one order"):
        suspects.show(detector, images, tmp_path / "s.json")


def test_strategies_and_digits(tmp_path, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    path = tmp_path / "r.json"
    given = ["--epochs", "2", "--noises", "pair flips 0.2", "--results", str(path)]
    detection.main([*given, "--methods", "audit", "Co-teaching", "DISC"])
    runs = json.loads(path.read_text())["runs"]
    assert [seen["noise_rate"] for seen in runs.values()] == [pytest.approx(0.2, abs=0.03)] * 3
    two, one = (set(runs[f"{name}, pair flips 0.2, 0"]["scores"]) for name in ("Co-teaching", "DISC"))
    assert two - one == {"posterior of both", "disagreement"}
    assert all(seen["scores"]["mean"][0] > 0.6 for seen in runs.values())
    with pytest.raises(SystemExit):
        detection.main(["--features", "x.npz"])


def test_reports_that_speak_against_their_runs():
    def run(method, late, remarks, recall):
        signs = {"learned_late": late, "contradicted": 0.3, "by_chance": 0.6}
        figures = {"precision": 1.0, "recall": recall, "first_48": 48, "noise_rate": 0.2, "estimated": [0.1]}
        scores = {"scores": {"posterior": [0.9, 0.8]}, "seconds": 1.0, "noise": "worse", "seed": 0}
        return {"method": method, "signs": signs, "remarks": remarks, **figures, **scores}

    peer = {**run("vote", 0, [], 0.5), "signs": None}
    seen = [run("CE", 0.0912, ["by heart"], 0.0), run("ELR", 0.011, [], 0.25), run("DAL", 0.02, [], 1.0), peer]
    text = tables({"runs": dict(enumerate(seen))})
    assert "| CE | **9.1 / 50** | 1 |\n| ELR | 1.1 / 50 | 1 |\n| DAL | 2.0 / 50 | 1 |\n\n" in text
    assert "| nothing | 2 | 40.0 | 70.0 | 100.0 |\n| something | 1 | 0.0 | 0.0 | 0.0 |" in text


def test_what_two_networks_know(files, tmp_path):
    detector = detection.Detector(files[1], files[3], detection.Settings(24, 2, 16), "worse", 0)
    watchers = detection_methods._by_strategy(detector, "Co-teaching")
    assert len(watchers) == 2
    found = detection_methods.trained(detector, "Co-teaching")
    first, second = (watcher.table()["confidence"] for watcher in watchers)
    np.testing.assert_allclose(found.scores["mean"], 1 - first, atol=1e-6)
    np.testing.assert_allclose(found.scores["disagreement"], abs(first - second), atol=1e-6)
    given = watchers[0].table()["label"]
    beliefs = watchers[0].beliefs()
    np.testing.assert_allclose(found.scores["loss"], [-b[y] for b, y in zip(beliefs, given, strict=True)], atol=1e-6)


def test_the_ratio_of_distances():
    rng = np.random.default_rng(3)
    x, given = rng.normal(size=(30, 4)).astype(np.float32), np.arange(30) % 3
    found = PEERS["SelfClean's ratio"](x, given, 0)
    distance = 1 - x @ x.T / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(x, axis=1)
    for row in range(30):
        others = np.arange(30) != row
        same = min(distance[row, others & (given == given[row])])
        other = min(distance[row, given != given[row]])
        assert found.scores["distance ratio"][row] == pytest.approx(same**2 / (same**2 + other**2), abs=1e-4)
        assert found.called[row] == (other < same)


def test_the_vote_of_neighbours():
    rng = np.random.default_rng(2)
    x, given = rng.normal(size=(40, 5)).astype(np.float32), rng.integers(0, 3, 40)
    found = PEERS["SimiFeat's vote"](x, given, 0)
    cosine = x @ x.T / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(x, axis=1)
    for row in range(40):
        near = np.argsort(-cosine[row])[:11]  # itself and ten others
        votes = np.bincount(given[near], minlength=3)
        assert found.scores["vote"][row] == pytest.approx(1 - votes[given[row]] / np.linalg.norm(votes), abs=1e-5)
        assert found.called[row] == (votes.argmax() != given[row])


@pytest.mark.skipif(find_spec("cleanlab") is None, reason="cleanlab comes with the extra `benchmark`")
def test_confident_learning(files, tmp_path):
    detection.main([*files, "--methods", "cleanlab, logistic regression"])
    (seen,) = json.loads((tmp_path / "r.json").read_text())["runs"].values()
    assert seen["scores"]["self_confidence"][1] > 0.8
    assert seen["estimated"] == [pytest.approx(0.25, abs=0.1)]


def test_audit_is_the_recipe():
    recipe = recipe_settings("own/features-many")
    init, data = recipe["model"]["init_args"], recipe["data"]["init_args"]
    loss = init["loss"]["init_args"]
    assert (loss["lam"], loss["momentum"], loss["base"]["init_args"]) == (3.0, 0.9, {"q": 0.0})
    assert init["backbone"]["init_args"]["hidden"] == [512]
    assert recipe["trainer"]["max_epochs"] == init["lr_scheduler"]["init_args"]["T_max"] == EPOCHS_OF_MANY
    assert (data["batch_size"], data["noise_std"], data["standardize"]) == (384, 0.3, "overall")
    (schedule,) = [one["init_args"] for one in recipe["trainer"]["callbacks"] if "DAL" in one["class_path"]]
    assert schedule == {"q_start": 0.0, "q_end": 1.0, "target": "loss.base"}


@pytest.mark.parametrize("name", ["detection", "detection-digits"])
def test_records_are_shown_as_they_are(name):
    path = RESULTS / f"{name}.json"
    record = json.loads(path.read_text())
    assert path.with_suffix(".md").read_text() == tables(record)
    assert summary(record) in (RESULTS.parent.parent / "docs" / "benchmarks.md").read_text()
    for key, seen in record["runs"].items():
        assert key == f"{seen['method']}, {seen['noise']}, {seen['seed']}"
