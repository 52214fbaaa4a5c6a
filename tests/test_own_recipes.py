"""The recipes for people's own data, each run as a person runs it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests._dummies import isolate, quiet, write_features, write_image


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """Twelve photos of three classes in folders, the same in a table, and features of ten classes."""
    isolate(monkeypatch, tmp_path)
    rows = [("image", "label")]
    for number in range(12):
        name = ("cat", "dog", "owl")[number % 3]
        path = Path("photos", name, f"{number}.png")
        write_image(path, number=20 * number, size=(40, 50))
        rows.append((str(path), name))
    with Path("labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    write_features("features.npz", 60, 0, width=20)


def reported(recipe, *arguments):
    """Path or row, and given label, of every sample in the report of a run of two epochs."""
    cli = quiet("fit", recipe, "--trainer.max_epochs=2", "--trainer.accelerator=cpu", *arguments)
    assert cli.trainer.current_epoch == 2
    found = Path(cli.trainer.log_dir, "label_issues")
    assert found.parent.parent == Path("runs", recipe)
    with (found / "label_issues.csv").open(newline="") as file:
        return {row.get("path", row.get("row")): row["given"] for row in csv.DictReader(file)}


@pytest.mark.parametrize("recipe", ["own/features", "own/features-many"])
def test_features(recipe):
    labels = np.load("features.npz")["y"]
    assert reported(recipe, "--model.backbone.in_features=20") == {str(i): str(y) for i, y in enumerate(labels)}


@pytest.mark.parametrize(("recipe", "root"), [("own/photos", "photos/"), ("own/table", "")])
def test_photos(recipe, root):
    pytest.importorskip("efficientnet_lite_pytorch")
    small = ("--data.image_size=32", "--data.num_workers=0", "--data.batch_size=4")
    found = reported(recipe, "--model.num_classes=3", *small)
    assert {f"{root}{path}": label for path, label in found.items()} == {
        f"photos/{name}/{number}.png": name for number in range(12) for name in [("cat", "dog", "owl")[number % 3]]
    }


def test_a_few_lines_on_top_of_a_recipe_are_a_run_of_ones_own():
    text = {"base": "own/features", "model": {"backbone": {"in_features": 20}}, "trainer": {"max_epochs": 1}}
    Path("mine.yaml").write_text(yaml.safe_dump(text))
    assert Path(quiet("fit", "mine.yaml").trainer.log_dir, "label_issues", "report.html").is_file()
