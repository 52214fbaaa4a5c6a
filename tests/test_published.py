"""docs/published.yaml: every figure is the papers', every command is one, and docs/recipes.md is made of it."""

import re
from collections import Counter, defaultdict
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer

from docs.published import PAGE, PAPERS, column_arguments, figures, rendered
from lightning_noisy.cli import main
from lightning_noisy.data.noise import LabelNoise
from lightning_noisy.recipes import recipe_names
from tests._dummies import isolate, needs_command_line
from tests.catalog import settings_of

FIGURES = list(figures())
SUMS = Path(__file__).parent / "papers" / "published.txt"
DATA = {"CIFAR-10": "CIFAR10", "CIFAR-100": "CIFAR100", "CIFAR80N-O": "CIFAR80NO", "ANIMAL-10N": "Animal10N"}
DATA |= {"WebVision-Mini": "WebVisionMini", "Clothing1M": "Clothing1M"}
CLASSES = {"symmetric": "SymmetricNoise", "asymmetric": "AsymmetricNoise", "instance": "InstanceDependentNoise"}
MAPPINGS = {("DAL", "CIFAR-10"): "cifar10", ("DAL", "CIFAR-100"): "cifar100-superclass"}
MAPPINGS |= {("DCM", "CIFAR-10"): "cifar10", ("DCM", "CIFAR-100"): "cifar100-superclass"}
MAPPINGS |= {("DCM", "CIFAR80N-O"): "cifar80-superclass"}
MAPPINGS |= {(paper, "CIFAR-10"): "cifar10" for paper in ("GSS", "NAL", "ELR")}
MAPPINGS |= {(paper, "CIFAR-100"): "cifar100-blocks" for paper in ("GSS", "NAL", "ELR")}
NOISE_NOT_TOLD = ("GSS, table 2", "DAL, table 6")


def numbers(cell):
    """Hundredths of its first number, and of the others together; nothing of a word."""
    first, *others = [round(100 * float(number)) for number in re.findall(r"[-+]?\d+\.\d+", cell)] or [0]
    return first, sum(others)


def total(cells):
    first, others = map(sum, zip(*map(numbers, cells), strict=True))
    return f"{first}/{others}" if others else f"{first}"


def transcribed():
    """(table, data) -> count of figures, sums of columns, method -> sum of its row."""
    entries = {}
    for line in SUMS.read_text().split("\n\n")[1].splitlines():
        if " | " in line:
            table, data, count, columns = line.split(" | ")
            entries[table, data] = (int(count), columns.split(), rows := [])
        else:
            rows.append(line)
    return {
        key: (count, columns, [entry.rsplit(" ", 1) for entry in " ".join(rows).split("; ")])
        for key, (count, columns, rows) in entries.items()
    }


def test_every_figure_is_that_of_the_papers():
    groups = defaultdict(lambda: defaultdict(list))
    for figure in FIGURES:
        groups[figure.table, figure.data][figure.method].append(figure.value)
    assert transcribed() == {
        key: (
            sum(bool(re.search(r"\d", cell)) for cells in rows.values() for cell in cells),
            [total(cells) for cells in zip(*rows.values(), strict=True)],
            [[method, total(cells)] for method, cells in rows.items()],
        )
        for key, rows in groups.items()
    }


def test_what_is_no_figure_is_the_papers_word_for_it():
    words = Counter((figure.table, figure.value) for figure in FIGURES if not re.search(r"\d", figure.value))
    assert words == {("NAL, table 1", "none printed"): 8, ("NAL, table 6: ablation", "fails"): 4}


def test_gains_follow_from_their_rows():
    """But for three, which the paper prints so."""
    wrong, base = [], {}
    for figure in FIGURES:
        place = (figure.table, figure.data, figure.column)
        gain = re.search(r"\((.*)\)", figure.value)
        if gain is None:
            base[place] = figure.value
        elif numbers(figure.value)[0] - numbers(base[place])[0] != round(100 * float(gain[1])):
            wrong.append((figure.method, figure.column))
    assert wrong == [("JS+DAL", "symmetric 40"), ("GJS+DAL", "symmetric 40"), ("DivideMix+DAL", "instance 20")]


def test_the_page_is_made_of_the_file():
    assert rendered(PAGE.read_text()) == PAGE.read_text(), "python -m docs.published"


def test_no_cell_of_the_page_is_empty_or_a_dash():
    rows = [line.strip("|").split("|") for line in PAGE.read_text().splitlines() if line.startswith("|")]
    assert len(rows) > 300
    assert not [row for row in rows if {cell.strip() for cell in row} & {"", "-", "\N{EN DASH}"}]


def test_figures_in_prose_are_figures_of_the_tables():
    page = "\n".join(line for line in PAGE.read_text().splitlines() if not line.startswith("|"))
    known = {number for figure in FIGURES for number in re.findall(r"\d+\.\d+", figure.value)}
    quoted = set(re.findall(r"\b\d\d\.\d\d\b", page))
    assert len(quoted) > 8
    assert quoted <= known


def test_recipes_are_there():
    named = {figure.recipe for figure in FIGURES} - {None}
    assert named <= set(recipe_names())


@cache
def data_of(recipe):
    return settings_of(recipe)["data"]


HERE = [figure for figure in FIGURES if figure.recipe is not None]


def test_recipes_are_of_the_data_that_the_table_names():
    assert len(HERE) > 300
    for figure in HERE:
        name = re.match(r"[\w-]+", figure.data)[0]
        assert data_of(figure.recipe)["class_path"].endswith(f".{DATA[name]}DataModule"), figure


def noise_of_the_column(figure):
    """Class, rate or file, and mapping; None where labels are as they are."""
    kind, _, number = figure.column.rpartition(" ")
    paper, data = figure.table.split(",")[0], figure.data.split(",")[0]
    if "80 % symmetric" in figure.data:
        kind, number = "symmetric", "80"
    if kind == "type":
        return "FileNoise", f"data/pmd/{data.replace('-', '').lower()}-{number}-0.35.npy"
    mapping = [MAPPINGS[paper, data]] if kind == "asymmetric" else []
    return (CLASSES[kind], f"0.{number[0]}", *mapping) if kind in CLASSES else None


def noise_of_the_command(figure):
    """What its arguments say; the class may be the recipe's."""
    given = dict(pairwise(figure.arguments.split()))
    own, option = data_of(figure.recipe)["init_args"].get("noise"), "--data.noise"
    if own and own["class_path"].endswith("OpenSetNoise"):
        own, option = own["init_args"]["closed"], "--data.noise.closed"
    name = given.get(option) or (own and own["class_path"].rpartition(".")[2])
    values = [given.get(f"{option}.{argument}") for argument in ("rate", "path", "mapping")]
    return None if name in (None, "null") else (name, *filter(None, values))


def test_commands_have_the_noise_that_the_column_names():
    told = [figure for figure in HERE if not figure.table.startswith(NOISE_NOT_TOLD)]
    assert [noise_of_the_command(figure) for figure in told] == [noise_of_the_column(figure) for figure in told]
    assert set(CLASSES.values()) < {noise[0] for noise in map(noise_of_the_column, told) if noise}


def test_arguments_of_columns_are_read():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LabelNoise, "noise")
    tables = [table for tables in PAPERS.values() for table in tables]
    places = [(group, column) for table in tables for group in table["groups"] for column in table["columns"]]
    columns = {column_arguments(*place) for place in places}
    assert len(columns) > 20
    for arguments in columns - {"--data.noise null", ""}:
        words = arguments.replace("--data.", "--").split()
        start = [] if words[0] == "--noise" else ["--noise=SymmetricNoise"]
        if ".closed" in arguments:
            start = ["--noise=OpenSetNoise", "--noise.closed=SymmetricNoise"]
        parser.parse_args([*start, *(f"{name}={value}" for name, value in zip(words[::2], words[1::2], strict=True))])


@pytest.fixture
def read(monkeypatch, tmp_path):
    """What the command line makes of arguments, without making anything."""
    isolate(monkeypatch, tmp_path)
    monkeypatch.setattr(Trainer, "fit", lambda *args, **options: None)
    cli = main(["fit", "--config", "quickstart", "--trainer.accelerator", "cpu"])
    return lambda recipe, arguments: cli.parser.parse_args(["fit", "--config", recipe, *arguments.split()])


def options(figure):
    return tuple(re.findall(r"--[\w.+]+", figure.arguments))


@needs_command_line
def test_arguments_of_rows_are_read(read):
    """Commands with the most options first, until each option that is no noise has been there."""
    left = {option for figure in HERE for option in options(figure) if not option.startswith("--data.noise")}
    assert len(left) > 6
    for figure in sorted(HERE, key=lambda figure: -len(options(figure))):
        if left & {*options(figure)}:
            read(figure.recipe, figure.arguments)
            left -= {*options(figure)}


@needs_command_line
@pytest.mark.slow
def test_every_command_is_read(read):
    """One for each recipe and set of options."""
    for figure in {(figure.recipe, options(figure)): figure for figure in HERE}.values():
        read(figure.recipe, figure.arguments)
