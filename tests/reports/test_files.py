"""The table, the page, and the files for other tools."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import time
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.reports import write_cleanlab, write_fiftyone, write_label_studio, write_page, write_table
from lightning_noisy.reports.charts import sparkline
from lightning_noisy.reports.report import write_report
from tests.reports.issues import HOSTILE, four, hostile

CHROMIUM = shutil.which("chromium")
DRIVE = """
const cards = document.querySelectorAll("#suspects .card"), only = document.getElementById("class");
cards[0].focus();
cards[0].dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight", bubbles: true}));
const moved = document.activeElement === cards[1];
only.value = only.options[1].value;
only.dispatchEvent(new Event("change"));
document.title = moved + ", " + document.getElementById("count").textContent;
"""


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class TestTable:
    def test_rows(self, tmp_path):
        columns = {"aum": np.array([1.25, -2.5, np.nan, 0.0]), "forgotten": np.array([0, 3, 1, 2])}
        write_table(tmp_path / "t.csv", four(columns=columns, truth=[0, 2, -1, 0]))
        rows = read(tmp_path / "t.csv")
        assert list(rows[0]) == ["path", "given", "suggested", "score", "rank", "flags", "truth", "aum", "forgotten"]
        assert [row["path"] for row in rows] == ["b.png", "c.png", "d.png", "a.png"]
        assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
        assert [row["suggested"] for row in rows] == ["horse", "dog", "cat", "cat"]
        assert [row["truth"] for row in rows] == ["horse", "", "cat", "cat"]
        assert [row["aum"] for row in rows] == ["-2.5000", "", "0.0000", "1.2500"]
        assert [row["forgotten"] for row in rows] == ["3", "1", "2", "0"]

    def test_no_cell_is_a_formula(self, tmp_path):
        issues = hostile()
        write_table(tmp_path / "t.csv", issues)
        rows = read(tmp_path / "t.csv")
        cells = [row[name] for row in rows for name in ("path", "given", "suggested", "flags")]
        assert not [cell for cell in cells if cell[:1] in "=+-@\t\r\n" and cell]
        assert {row["path"].removeprefix("'") for row in rows} == set(issues.samples.tolist())
        assert {row["given"].removeprefix("'") for row in rows} <= set(HOSTILE)

    def test_a_file_name_that_is_no_text(self, tmp_path):
        write_table(tmp_path / "t.csv", four(samples=np.array(["a\udcff.png", "b", "c", "d"])))
        assert read(tmp_path / "t.csv")[3]["path"] == "a?.png"


class TestOtherTools:
    def test_label_studio(self, tmp_path):
        write_label_studio(tmp_path, four(), prefix="s3://x/")
        tasks = json.loads((tmp_path / "tasks.json").read_text())
        assert [task["data"]["image"] for task in tasks] == ["s3://x/b.png", "s3://x/d.png"]
        (result,) = tasks[0]["predictions"][0]["result"]
        form = ElementTree.parse(tmp_path / "labeling.xml").getroot()
        choices = form.find("Choices")
        assert result["value"]["choices"] == ["horse"]
        assert (result["from_name"], result["to_name"]) == (choices.get("name"), choices.get("toName"))
        assert form.find("Image").get("name") == result["to_name"]
        assert (form.find("Image").get("value"), tasks[0]["data"]["given"]) == ("$image", "cat")

    def test_hostile_names_stay_names(self, tmp_path):
        issues = hostile()
        write_fiftyone(tmp_path, issues, root="/photos")
        paths = json.loads((tmp_path / "data.json").read_text()).values()
        assert [*paths] == [f"/photos/{name}" for name in issues.samples]
        assert json.loads((tmp_path / "labels.json").read_text())["classes"] == list(HOSTILE)
        write_label_studio(tmp_path, issues, root="/photos")
        tasks = json.loads((tmp_path / "tasks.json").read_text())
        queries = [urllib.parse.urlsplit(task["data"]["image"]).query for task in tasks]  # as a browser sends it
        wrong = issues.order[issues.wrong[issues.order]]
        found = [urllib.parse.parse_qs(query)["d"] for query in queries]
        assert found == [[f"/photos/{issues.samples[row]}"] for row in wrong]
        form = ElementTree.parse(tmp_path / "labeling.xml").getroot()
        assert [choice.get("value") for choice in form.iter("Choice")] == list(HOSTILE)

    def test_names_that_xml_cannot_hold_are_alike_in_form_and_tasks(self, tmp_path):
        write_label_studio(tmp_path, four(class_names=("a\x01", "b\udcff", "c\ufffe\U0001f600\t")))
        form = ElementTree.parse(tmp_path / "labeling.xml").getroot()
        choices = [choice.get("value") for choice in form.iter("Choice")]
        assert choices == ["a?", "b?", "c?\U0001f600\t"]
        tasks = json.loads((tmp_path / "tasks.json").read_text())
        found = [task["predictions"][0]["result"][0]["value"]["choices"] for task in tasks]
        assert found == [[choices[2]], [choices[0]]]

    def test_what_another_run_left_is_removed(self, tmp_path):
        write_report(tmp_path, four(), "data")
        assert (tmp_path / "label_studio" / "tasks.json").exists()
        write_report(tmp_path, four(kind="row", samples=np.array(["7", "8", "9", "10"])), "data")
        assert {path.name for path in tmp_path.iterdir()} == {
            "label_issues.csv", "suggested_labels.npz", "report.html", "cleanlab.npz",
        }  # fmt: skip

    def test_fiftyone(self, tmp_path):
        write_fiftyone(tmp_path, four(), root="photos")
        content = json.loads((tmp_path / "labels.json").read_text())
        paths = json.loads((tmp_path / "data.json").read_text())
        assert content["classes"] == ["cat", "dog", "horse"]
        seen = {paths[key]: value for key, value in content["labels"].items()}
        found = seen[str(Path.cwd() / "photos" / "b.png")]
        assert found["label"] == "cat"
        assert found["attributes"] == {"score": 0.9, "rank": 1, "suggested": "horse", "flags": "wrong"}

    def test_cleanlab(self, tmp_path):
        write_cleanlab(tmp_path / "c.npz", four())
        with np.load(tmp_path / "c.npz", allow_pickle=False) as file:
            assert file["is_label_issue"].tolist() == [False, True, False, True]
            assert np.allclose(file["label_score"], [0.9, 0.1, 0.1, 0.5])
            assert (file["given_label"].tolist(), file["predicted_label"].tolist()) == ([0, 0, 1, 2], [0, 2, 1, 0])
            assert "pred_probs" not in file
        known = np.full((4, 3), 1 / 3, np.float32)
        write_cleanlab(tmp_path / "c.npz", four(probabilities=known))
        with np.load(tmp_path / "c.npz", allow_pickle=False) as file:
            assert file["pred_probs"].tolist() == known.tolist()

    @pytest.mark.parametrize("write", [write_label_studio, write_fiftyone])
    def test_rows_have_no_images(self, write, tmp_path):
        with pytest.raises(NoisyLabelError, match="rows of a table"):
            write(tmp_path, four(kind="row"))


class _Page(HTMLParser):
    """Tags with their attributes, and text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(path, issues, **options):
    write_page(path, issues, options.pop("title", "data"), **options)
    return _Page(path.read_text())


class TestPage:
    def test_what_is_said(self, tmp_path):
        page = page_of(tmp_path / "r.html", four(truth=[0, 2, 0, 2], remarks=("Cats are never predicted.",)))
        cards = [tag for tag in page.all("li") if tag.get("class") == "card"]
        assert [card["data-rank"] for card in cards[:2]] == ["1", "3"]  # the doubted one is no suspect
        assert (cards[0]["data-given"], cards[0]["data-suggested"]) == ("cat", "horse")
        for said in ("Cats are never predicted.", "50.0 %", "25.0 to 75.0 %", "truth: horse", "100.0"):
            assert said in page.text, said

    def test_names_are_escaped_and_nothing_is_fetched(self, tmp_path):
        issues = hostile()
        page = page_of(tmp_path / "r.html", issues, title="<b>&", thumbnail=lambda row: Image.new("L", (3, 2), row))
        assert {tag for tag, _ in page.tags}.isdisjoint({"b_", "iframe", "link", "object"})
        assert len(page.all("script")) == len(page.all("style")) == 1
        assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.all("img"))
        assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
        assert not [1 for _, attributes in page.tags if attributes.get("href") or attributes.get("action")]
        assert {image["alt"] for image in page.all("img")} == set(issues.samples.tolist())

    def test_nothing_wrong_is_said(self, tmp_path):
        page = page_of(tmp_path / "r.html", four(score=np.full(4, 0.2)))
        assert "No label looks wrong" in page.text
        assert "Most confused" not in page.text

    def test_a_large_set_stays_small(self, tmp_path):
        rows, epochs, classes, rng = 50_000, 1000, 1000, np.random.default_rng(0)
        given = rng.integers(0, classes, rows)
        issues = four(
            samples=np.arange(rows).astype(str),
            class_names=tuple(f"class {number}" for number in range(classes)),
            given=given,
            suggested=(given + 1) % classes,
            score=rng.random(rows),
            curves=np.broadcast_to(rng.random(epochs), (rows, epochs)),
            marked={},
        )
        noise = Image.fromarray(rng.integers(0, 256, (300, 300, 3), dtype=np.uint8))
        page = page_of(tmp_path / "r.html", issues, thumbnail=lambda row: noise)
        assert (tmp_path / "r.html").stat().st_size < 5e6
        shown = [tag["data-given"] for tag in page.all("li") if tag.get("class") == "card"]
        assert {tag["value"] for tag in page.all("option") if tag.get("value", "").startswith("class ")} <= set(shown)
        assert len(set(shown)) >= 350

    def test_long_runs_have_short_lines(self):
        curve = np.linspace(0, 1, 960)
        line = sparkline(np.where(np.arange(960) == 5, np.nan, curve), width=96, height=24)
        points = [tuple(map(float, point.split(","))) for point in str(line).split('points="')[1].split('"')[0].split()]
        assert len(points) == 96
        assert points[0] == pytest.approx((1, 23), abs=0.2)
        assert points[-1][1] == pytest.approx(1, abs=0.2)
        assert "0% in the first epoch, 100% in the last" in line

    @pytest.mark.slow
    def test_a_hundred_thousand_rows_take_less_than_ten_seconds(self, tmp_path):
        count, rng = 100_000, np.random.default_rng(0)
        given = rng.integers(0, 100, count)
        issues = four(
            samples=np.array([f"class_{label}/image_{i:06}.jpg" for i, label in enumerate(given)]),
            class_names=tuple(f"class {label}" for label in range(100)),
            given=given,
            suggested=(given + 1) % 100,
            score=rng.random(count) ** 3,
            curves=rng.random((count, 20)),
            marked={},
            columns={name: rng.random(count) for name in "abcdef"},
        )
        start = time.process_time()  # not the wall: other processes may be at work
        write_report(tmp_path, issues, "data")
        assert time.process_time() - start < 10
        assert len(read(tmp_path / "label_issues.csv")) == count
        assert (tmp_path / "report.html").stat().st_size < 5_000_000

    @pytest.mark.slow
    @pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
    def test_the_script_runs_in_a_browser(self, tmp_path):
        """The arrow keys go to the next card, and of one class only its cards are shown."""
        write_page(tmp_path / "r.html", hostile(), "data")
        page = re.sub(r"<meta http-equiv[^>]*>", "", (tmp_path / "r.html").read_text())  # which lets no other script in
        (tmp_path / "driven.html").write_text(page.replace("</body>", f"<script>{DRIVE}</script></body>"))
        quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
        quiet += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path}/profile"]
        for name, said in (("r", "2 shown"), ("driven", "true, 1 shown")):
            command = [CHROMIUM, "--headless", *quiet, "--dump-dom", f"file://{tmp_path}/{name}.html"]
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
            assert said in _Page(done.stdout).text
