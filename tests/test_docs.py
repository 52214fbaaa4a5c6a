"""The documentation: code that runs, links that lead somewhere, tables that are those of the records, and the site."""

import functools
import http.server
import inspect
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import threading
import zlib
from functools import wraps
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import TensorDataset

from benchmarks.methods import METHODS
from benchmarks.strategy_list import STRATEGIES
from docs import which_method
from docs.generate.docstrings import ROOMS, markdown, places, public_names
from docs.generate.method_pages import index, page
from docs.generate.methods import NAMES, code, made, methods, options
from docs.generate.records import shell
from docs.published import figures
from lightning_noisy import NoisyLabelModule, losses, modules
from lightning_noisy.cli import audit, compare, doctor, embed, main, report, tune
from lightning_noisy.data import DigitsDataModule, EpochSampler, IndexedDataset, ResumableLoader, SymmetricNoise
from tests._dummies import isolate, needs_command_line
from tests.foreign import ForeignModule, make_loader, make_tensors, make_trainer

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = ("index", "your_data", "your_project", "write_your_own", "several_gpus", "which_method")
EXECUTED = {
    **{
        "index": 1,
        "your_data": 1,
        "your_project": 2,
        "write_your_own": 6,
        "trackers": 1,
        "recipes": 2,
        "scaling": 2,
    },  # here
    **{"loops": 2, "strategies": 1, "losses": 4, "architecture": 2},  # test_readme.py, losses/test_examples.py
    "several_gpus": 1,  # test_hosts.py, where Ray is installed
}
"""Page -> how many blocks of Python it has, all of which a test runs."""
OWN = {"audit": audit, "compare": compare, "doctor": doctor, "embed": embed, "report": report, "tune": tune}
"""Commands that are not Lightning's."""
CHROMIUM = shutil.which("chromium")
ALL = list(methods().values())


def blocks(name, language="python"):
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / f"{name}.md").read_text(), flags=re.S)


def commands(name):
    """Those of a page that train."""
    text = "".join(blocks(name, "bash")).replace("\\\n", " ")
    return [line for line in text.splitlines() if " fit " in line]


def run(name, max_epochs=None, **yours):
    """The names that a page's code leaves behind, with another number of epochs, and given what is the reader's own."""
    for block in blocks(name):
        exec(block if max_epochs is None else re.sub(r"\bmax_epochs=\d+", f"max_epochs={max_epochs}", block), yours)
    return yours


def cells(text):
    return [cell.strip() for line in text.splitlines() if line.startswith("|") for cell in line.strip("|").split("|")]


class TestPages:
    @pytest.fixture(autouse=True)
    def folder(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)

    def test_the_start_runs(self):
        assert set(run("index", max_epochs=1)["accuracy"]) == {"CrossEntropyLoss", "GeneralizedCrossEntropy"}

    @pytest.mark.slow
    def test_the_start_learns(self):
        accuracy = run("index")["accuracy"]
        assert accuracy["GeneralizedCrossEntropy"] > accuracy["CrossEntropyLoss"] + 0.1

    @pytest.mark.slow
    def test_everything_of_ones_own_learns(self):
        left = run("write_your_own")
        plain = left.pop("plain")
        reached = {name: value for name, value in left.items() if name.startswith("with_")}
        assert len(reached) == 5
        assert all(value > plain + 0.05 for value in reached.values()), (plain, reached)

    def test_everything_of_ones_own_runs(self):
        left = run("write_your_own", max_epochs=1)
        assert sum(name.startswith("with_") for name in left) == 5
        wrong = (left["TiredAnnotator"](0.2).corrupt(torch.zeros(20_000, dtype=torch.int64), 10, seed=1) > 0).float()
        early, late = wrong.view(2, -1).mean(dim=1).tolist()
        assert early == pytest.approx(0.1, abs=0.01)
        assert late == pytest.approx(0.3, abs=0.01)

    def test_everything_of_ones_own_is_short(self):
        classes = [block for block in blocks("write_your_own") if "\nclass " in block]
        assert len(classes) == 5
        for block in classes:
            assert len([line for line in block.split("\n\n\n")[1].splitlines() if line]) < 25

    def test_a_project_gets_right_labels_and_a_report(self):
        left = run("your_project")
        wrong = left["labels"] != left["truth"]
        assert (left["corrected"] == left["truth"]).float().mean() > 1 - wrong.float().mean() + 0.1
        assert len(Path("label_issues", "label_issues.csv").read_text().splitlines()) == 2001

    def test_two_lines_in_a_project_write_a_report(self):
        x, given, _ = make_tensors()
        loader = make_loader(IndexedDataset(TensorDataset(x, given)))
        trainer = functools.partial(make_trainer, Path.cwd())
        run("your_data", Trainer=trainer, model=ForeignModule(), loader=loader)
        assert Path("label_issues", "report.html").is_file()
        assert len(blocks("your_data")[0].split("\n\n")[0].splitlines()) == 1  # one more line, and an argument

    def test_trackers_in_code(self):
        x, given, clean = make_tensors()
        model = ForeignModule()
        model.body = nn.Sequential(*(nn.Linear(6, 6) for _ in range(4)), nn.Linear(6, 8))
        own = {
            "labels_before_noise": clean,
            "model": model,
            "loader": make_loader(IndexedDataset(TensorDataset(x, given))),
        }
        left = run("trackers", Trainer=functools.partial(make_trainer, Path.cwd()), **own)
        assert "train/gradient_error/cosine" in left["trackers"][0].history[0]

    def test_two_lines_make_a_loader_that_resumes(self):
        x, given, _ = make_tensors(num_samples=100)
        left = {"your_train_set": TensorDataset(x, given)}
        left |= {kind.__name__: kind for kind in (EpochSampler, IndexedDataset, ResumableLoader)}
        exec(textwrap.dedent(blocks("architecture")[1]), left)
        loader = left["loader"]
        _, second = list(loader)
        next(iter(loader))
        loader.load_state_dict(loader.state_dict())
        assert torch.equal(next(iter(loader))[2], second[2])

    def test_labels_of_others_become_files(self):
        dependent, human = blocks("recipes")
        Path("data", "idn").mkdir(parents=True)
        Path("cifar10_dependent0.4.csv").write_text("label,label_noisy\n1,2\n0,0\n")
        exec(dependent, {})
        assert np.load("data/idn/cifar10-0.4.npy").tolist() == [2, 0]
        names = {"worse_label": 0, "aggre_label": 1, "clean_label": 2}
        torch.save({name: np.array([value]) for name, value in names.items()}, "CIFAR-10_human.pt")
        exec(human, {})
        with np.load("data/cifar10n.npz") as file:
            assert {name: file[name].tolist() for name in file} == {"worse": [0], "aggre": [1], "clean": [2]}

    def test_at_scale(self):
        known = {"your_train_set": TensorDataset(torch.randn(6, 2), torch.arange(6) % 2)}
        for block in blocks("scaling"):
            exec(block, known)
        assert sorted(index.item() for batch in known["loader"] for index in batch[-1]) == list(range(6))

    def test_no_block_is_left_out(self):
        found = {path.stem: path.read_text().count("```python\n") for path in DOCS.glob("*.md")}
        assert {name: count for name, count in found.items() if count} == EXECUTED

    def test_own_commands_are_read(self):
        text = "".join(path.read_text() for path in DOCS.glob("*.md")).replace("\\\n", " ")
        lines = re.findall(rf"lightning-noisy ({'|'.join(OWN)}) ([^`\n&]+)", text)
        assert {name for name, _ in lines} == OWN.keys()
        for name, line in lines:
            OWN[name]._parser().parse_known_args(shlex.split(line.partition(" -- ")[0]))

    def test_no_cell_is_empty_or_a_dash(self):
        for name in PAGES:
            assert not {"", "-", "\N{EN DASH}"} & set(cells((DOCS / f"{name}.md").read_text())), name

    def test_links_lead_somewhere(self):
        for path in DOCS.glob("*.md"):
            for target in re.findall(r"\]\(([^)#\s]+)", re.sub(r"```.*?```", "", path.read_text(), flags=re.S)):
                assert target.startswith("http") or (DOCS / target).exists(), f"{path.name}: {target}"


class TestWhichMethod:
    def test_the_page_is_made_of_the_records(self):
        text = which_method.PAGE.read_text()
        assert which_method.rendered(text) == text, "python -m docs.which_method"

    def test_the_first_is_the_highest_of_the_record(self):
        """By hand, from the tables that the benchmarks write."""

        def rows_of(name):
            text = (ROOT / f"benchmarks/results/{name}.md").read_text().split("\n\n")[0]
            return [line.strip("| ").split(" | ") for line in text.splitlines()]

        rows = rows_of("methods")
        noises = {"aggre": 1, "worse": 3, "symmetric 0.6": 5}
        means = {row[0]: {noise: float(row[at].split()[0]) for noise, at in noises.items()} for row in rows[2:]}
        for name in which_method.LEFT_OUT:
            means.pop(name, None)
        best = {noise: max(row[noise] for row in means.values()) for noise in noises}
        gaps = {name: max(best[noise] - row[noise] for noise in noises) for name, row in means.items()}
        assert which_method.unknown().startswith(f"**{min(gaps, key=gaps.get)}**")
        head, _, *strategies = rows_of("strategies-embeddings")
        for noise in noises:
            column = head.index(f"{noise}: last epoch")
            proved = {row[0]: float(row[column].split()[0]) for row in strategies if int(row[-1]) >= 3}
            proved |= {name: row[noise] for name, row in means.items()}
            first = max(proved, key=proved.get)
            assert f"**{first}**, {proved[first]:.2f} ± " in which_method.sections()[f"features {noise}"]

    def test_names_become_links(self):
        text = which_method.linked("said **ELR+DAL**\n\n| ELR+DAL | 1 |\n| NCE+MAE | 2 |\n| CE | 3 |")
        linked = "[ELR+DAL](methods/EarlyLearningRegularization.md)"
        assert f"**{linked}**" in text
        assert f"\n| {linked} | 1 |\n| [NCE+MAE](methods/ActivePassiveLoss.md) | 2 |\n| CE | 3 |" in text


class TestMethods:
    def test_every_method_has_a_page(self):
        own = {name for name in losses.__all__ if inspect.isclass(getattr(losses, name))} - {"NoisyLabelLoss"}
        assert {one.name for one in ALL if one.group == "losses"} == own
        bases = {name for name in modules.__all__ if name.endswith("Module")}
        assert {one.name for one in ALL if one.group == "strategies"} == set(modules.__all__) - bases

    def test_every_row_of_the_records_is_on_a_page(self):
        named = {row for one in ALL for row in one.rows}
        plain = {"CE", "CE, weak view", "CE, strong view", "label smoothing"}
        assert named == ({*METHODS, *STRATEGIES}) - plain

    def test_published_names_are_those_of_the_tables(self):
        assert {name for one in ALL for name in one.published} <= {figure.method for figure in figures()}

    @pytest.mark.parametrize("method", ALL, ids=lambda one: one.name)
    def test_the_use_makes_it(self, method):
        result = made(method)
        parts = result if isinstance(result, tuple) else (result,)
        assert any(type(part) is NAMES[method.name] for part in parts)

    def test_a_page_has_every_part(self, monkeypatch):
        monkeypatch.setattr("docs.generate.method_pages.recipes_of", lambda: {"DISC": ["disc/cifar10"]})
        text = page(methods()["DISC"])
        for part in ("# DISC", "**When.**", "## Equation", "## Use", "`disc/cifar10`", "## Measured", "| 60.28 |"):
            assert part in text
        assert "::: lightning_noisy.modules.DISC" in text
        assert not {"", "-", "\N{EN DASH}"} & set(cells(text))
        assert index().count("| [`") == len(ALL)

    @pytest.mark.slow
    @pytest.mark.parametrize("method", ALL, ids=lambda one: one.name)
    def test_the_code_trains(self, monkeypatch, tmp_path, method):
        monkeypatch.chdir(tmp_path)
        torch.manual_seed(0)
        views = method.facts.get("views", "any one")
        if method.name == "GeneralizedJensenShannonLoss":
            views = "weak, weak"
        data = DigitsDataModule(SymmetricNoise(0.4), **({} if views == "any one" else {"views": views.split(", ")}))
        quick = {"max_epochs": 2, "limit_train_batches": 3, "limit_val_batches": 1, "logger": False}
        trainer = functools.partial(Trainer, **quick, enable_checkpointing=False)
        loss = losses.DynamicsAwareLoss(0.8) if method.name == "DALSchedule" else nn.CrossEntropyLoss()
        plain = NoisyLabelModule(NAMES["SmallCNN"](width=4), NAMES["LinearHead"], loss, num_classes=10)
        own = {**NAMES, "DigitsDataModule": DigitsDataModule, "SymmetricNoise": SymmetricNoise, "your_module": plain}
        own |= {"Trainer": lambda callbacks, **options: trainer(callbacks=callbacks), "your_loader": data}
        exec(code(method).replace('"classifier", ', "").replace("trainer.fit(your_module, your_loader)", ""), own)
        module = plain if "trainer" in own else own["module"]
        fitted = own.get("trainer") or trainer()
        fitted.fit(module, datamodule=own.get("data", data))
        assert torch.isfinite(fitted.callback_metrics["train/loss"])


@needs_command_line
@pytest.mark.slow
def test_commands_of_the_pages_are_read(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)
    monkeypatch.setattr(Trainer, "fit", wraps(Trainer.fit)(lambda *args, **options: None))
    cli = main(["fit", "--config", "quickstart_ce", "--trainer.accelerator", "cpu"])
    given = [f"--config quickstart_ce {line}" for one in ALL if (line := options(one)) is not None]
    pages = ("index", "several_gpus", "trackers", "losses")
    given += [line.partition(" fit ")[2] for name in pages for line in commands(name)]
    assert len(given) > 44
    for line in given:
        cli.parser.parse_args(["fit", *line.split()])


@needs_command_line
@pytest.mark.slow
def test_a_loss_of_ones_own_is_found_on_the_command_line(tmp_path):
    (line,) = commands("write_your_own")
    _, loss, *_ = blocks("write_your_own")
    imports = "from torch.nn import functional as F\n"
    (tmp_path / "mine.py").write_text(imports + loss.partition("\nwith_loss")[0])
    call = [sys.executable, *line.split()[1:], "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "class_path: mine.BelieveYourself" in next(tmp_path.rglob("config.yaml")).read_text()


@needs_command_line
@pytest.mark.slow
def test_a_strategy_of_ones_own_is_found_on_the_command_line(tmp_path):
    code = next(block for block in blocks("write_your_own") if "class LeaveOutTheHardest" in block)
    (tmp_path / "mine.py").write_text(code.partition("\nwith_strategy")[0])
    chosen = ["--model", "mine.LeaveOutTheHardest", "--model.forget_rate", "0.3"]
    call = [sys.executable, "-m", "lightning_noisy", "fit", "--config", "quickstart_ce", *chosen]
    call += ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "forget_rate: 0.3" in next(tmp_path.rglob("config.yaml")).read_text()


def test_commands_are_broken_outside_quotes():
    line = "program " + " ".join(["word"] * 14) + ' "two words" --option-of-it 1'
    broken = shell(line)
    assert max(map(len, broken.splitlines())) <= 86
    assert '"two words"' in broken
    assert shlex.split(broken.replace("\\\n", "")) == shlex.split(line)
    assert len(broken.splitlines()) == 2


DOCSTRING = r"""Says :math:`p_y` of :class:`~lightning_noisy.losses.NoisyLabelLoss`, :func:`nothing`.

.. math:: a = b,
          c = d

with

====  ===============
name  what :math:`x`
====  ===============
one   first
      and more
====  ===============

Example::

    x = 1
"""


def test_docstrings_become_markdown():
    assert markdown(DOCSTRING) == (
        "Says $p_y$ of [`NoisyLabelLoss`][lightning_noisy.losses.NoisyLabelLoss], `nothing`.\n\n"
        "$$a = b, c = d$$\n\nwith\n\n"
        "| name | what $x$ |\n|---|---|\n| one | first and more |\n\nExamples:\n    ```python\n    x = 1\n    ```\n\n"
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason='the site wants pip install ".[docs]"')
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(folder),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_the_site_has_every_name_and_needs_nothing_from_elsewhere(site):
    text = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
    known = {line.split()[0] for line in text.splitlines()}
    assert {places()[name] for room in ROOMS for name in public_names(room)} <= known
    assert all((site / "methods" / f"{name}.html").is_file() for name in methods())
    assert not re.search(r"store_shapes py:method \d+ methods/", text)  # what all losses have is described once
    loaded = re.compile(r"<(?:script|img|iframe)[^>]* src=\"?(http[^\s\">]+)|<link[^>]* href=\"?(http[^\s\">]+)")
    for path in site.rglob("*.html"):
        assert not loaded.search(path.read_text()), path
    for path in site.rglob("*.css"):
        assert "url(http" not in path.read_text(), path


class Served(http.server.SimpleHTTPRequestHandler):
    """Remembers what was asked for."""

    asked: list

    def log_request(self, code="-", size="-"):
        self.asked.append((int(code), self.path))

    def log_message(self, *args):
        pass


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize(
    ("name", "shown"),
    [("index.html", "It needs no download and no GPU"), ("methods/GeneralizedCrossEntropy.html", "<mfrac>")],
)
def test_pages_are_shown_in_a_browser(site, tmp_path, name, shown):
    handler = type("Handler", (Served,), {"asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
        quiet += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path}/profile"]
        address = f"http://127.0.0.1:{server.server_port}/{name}"
        command = [
            CHROMIUM,
            "--headless",
            *quiet,
            "--enable-logging=stderr",
            "--virtual-time-budget=5000",
            "--dump-dom",
        ]
        done = subprocess.run([*command, address], capture_output=True, text=True, check=True, timeout=120)
        server.shutdown()
    assert shown in done.stdout
    assert "CONSOLE" not in done.stderr, done.stderr
    assert (200, f"/{name}") in handler.asked
    assert {path for code, path in handler.asked if code >= 400} == set()
    assert any(path.endswith(".css") for _, path in handler.asked)
    assert any(path.endswith(".js") for _, path in handler.asked)
