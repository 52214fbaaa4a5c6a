"""Cells of the papers' tables as trainings: what docs/published.yaml and the recipes say, and nothing else."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any

from docs.published import NOISE, Figure, column_arguments, figures
from lightning_noisy.callbacks import MaskRefresh
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.recipes import Settings, recipe_names, recipe_settings

SEPARATOR = " / "
_METRICS = {
    "attack success": "backdoor/success",
    "WebVision top-5": "test/acc_top5",
    "ILSVRC12 top-1": "imagenet/acc",
    "ILSVRC12 top-5": "imagenet/acc_top5",
}
"""Columns that are no accuracy on the test set -> what a run calls it."""
settings_of = cache(recipe_settings)
"""What recipes say in all; not to be changed."""


@dataclass(frozen=True)
class Training:
    """What a run is asked for; cells that ask for the same share it."""

    recipe: str
    arguments: str
    """As docs/published.yaml has them."""
    ratio: float | None
    """Masking ratio; None where nothing is masked."""
    options: str
    """Further arguments of ``fit``, the caller's own."""

    @property
    def what(self) -> str:
        """All of it in a line."""
        ratio = "" if self.ratio is None else f", ratio {self.ratio:g}"
        return " ".join(filter(None, [self.recipe, self.arguments, self.options])) + ratio

    def name(self, seed: int) -> str:
        """Of a run, in the record."""
        return f"{self.what}, seed {seed}"


@dataclass(frozen=True)
class Cell:
    """A cell of a published table, or a recipe under a noise that no table has."""

    table: str
    """Title; the recipe where no table has it."""
    data: str
    method: str
    column: str
    published: str | None
    """As printed; None where nothing is."""
    recipe: str
    arguments: str
    epoch: str
    """``last``, ``best`` or ``average``, the mean of the last ones."""

    @property
    def name(self) -> str:
        """Data, method and column, as the table names them; the column alone of a recipe."""
        return SEPARATOR.join([self.data, self.method, self.column]) if self.published else self.column

    @property
    def metric(self) -> str:
        """What a run calls it."""
        return _METRICS.get(self.column, "test/acc")

    def trainings(self, ratios: Sequence[float] = (), options: str = "") -> list[Training]:
        """What there is to train.

        Args:
            ratios: Masking ratios to try instead of the recipe's, where it masks.
            options: Further arguments of ``fit``.
        """
        own = masking_ratio(self.recipe)
        tried: Sequence[float | None] = ratios if own is not None and ratios else (own,)
        return [Training(self.recipe, self.arguments, ratio, options) for ratio in tried]

    def has(self, part: str) -> bool:
        """Whether a part of a name is one of this cell's: its data set, with or without network, method or column."""
        names = (self.data, self.data.partition(",")[0], self.method, self.column)
        return part.casefold() in map(str.casefold, names)


@dataclass(frozen=True)
class Step:
    """Cells that are trained one after the other."""

    table: str
    cells: tuple[str, ...] = ()
    """Names or parts of names; none: all of the table."""
    ratios: tuple[float, ...] = ()


AGENDA = (
    Step("DCM, table 1", ("CIFAR-10 / ANL-DFC / symmetric 80", "CIFAR-10 / ANL / symmetric 80"), (0.3, 0.5, 0.7)),
    Step("DCM, table 1", ("CIFAR-10 / symmetric 80",)),
    Step("DCM, table 1", ("CIFAR-10 / asymmetric 40", "CIFAR-10 / symmetric 40")),
    Step("DAL, table 2"),
    Step("NAL, table 1", ("NAL / symmetric 40", "NAL / asymmetric 40", "SELC / symmetric 40", "SELC / asymmetric 40")),
    Step("gss/cifar10", ("symmetric 40", "asymmetric 40")),
    Step("DCM, table 2", ("CIFAR-100 / DISC-DFC", "CIFAR-100 / SED-DFC")),
    *(
        Step(recipe, ("worse",))
        for recipe in ("gss/cifar10/ssl", "disc/cifar10", "divide_mix/cifar10", "elr_plus/cifar10", "selc/cifar10")
    ),
)
"""What is trained without the name of a table, in this order. Ratios come first: the published one is lost."""


@cache
def published_cells() -> list[Cell]:
    """The cells of all tables that a run can fill: with a command, a number, and an accuracy of whole epochs."""
    return [
        _cell(figure) for figure in figures() if figure.recipe and published(figure.value) and not _accumulated(figure)
    ]


def published(value: str | None) -> tuple[float, float] | None:
    """Number and standard deviation of a cell as it is printed, the latter 0 without one; None for a word."""
    found = re.match(r"(\d+\.\d+)(?:±(\d+\.\d+))?", value or "")
    return None if found is None else (float(found[1]), float(found[2] or 0))


def select(table: str, names: Sequence[str] = ()) -> list[Cell]:
    """Cells of a table or a recipe, in the order of their names, each once.

    Args:
        table: Its title, with or without what stands behind a colon, or the name of a recipe.
        names: Of cells, or parts of them with `` / `` between; of a recipe, columns of CIFAR-10. None are all.

    Raises:
        NoisyLabelError: There is no such table or cell.
    """
    if table in recipe_names():
        return [_of_recipe(table, column) for column in names or ("as it is",)]
    cells = [cell for cell in published_cells() if table.casefold() in _titles(cell.table)]
    if not cells:
        titles = list(dict.fromkeys(cell.table for cell in published_cells()))
        raise NoisyLabelError(f"No table or recipe '{table}'{_near(table, titles)}: `--list` names the tables.")
    found = [cell for name in names for cell in _matching(cells, name)]
    return list(dict.fromkeys(found)) if names else cells


@cache
def masking_ratio(recipe: str) -> float | None:
    """The ratio of a recipe's masks; None where it has none."""
    found = [entry for entry in settings_of(recipe)["trainer"]["callbacks"] if _masks(entry)]
    default = inspect.signature(MaskRefresh).parameters["ratio"].default
    return float(found[0].get("init_args", {}).get("ratio", default)) if found else None


def changes(training: Training) -> Settings:
    """What goes on top of the recipe beside arguments: its callbacks, where masks have another ratio."""
    if training.ratio == masking_ratio(training.recipe):
        return {}
    callbacks = settings_of(training.recipe)["trainer"]["callbacks"]
    return {"trainer": {"callbacks": [_with_ratio(entry, training.ratio) for entry in callbacks]}}


def _cell(figure: Figure) -> Cell:
    assert figure.recipe is not None
    place = (figure.table, figure.data, figure.method, figure.column, figure.value)
    return Cell(*place, figure.recipe, figure.arguments, figure.epoch)


def _accumulated(figure: Figure) -> bool:
    """Whether it is no accuracy, but what has come together after so many epochs."""
    return figure.column.startswith("after ")


def _titles(title: str) -> Iterator[str]:
    yield title.casefold()
    yield title.partition(":")[0].casefold()


def _matching(cells: Sequence[Cell], name: str) -> list[Cell]:
    parts = name.split(SEPARATOR)
    found = [cell for cell in cells if all(map(cell.has, parts))]
    if not found:
        known = [known for cell in cells for known in (cell.data, cell.method, cell.column)]
        wrong = next((part for part in parts if not any(cell.has(part) for cell in cells)), name)
        raise NoisyLabelError(f"{cells[0].table} has no cell '{name}'{_near(wrong, known)}: `--list` names them.")
    return found


def _of_recipe(recipe: str, column: str) -> Cell:
    """A recipe under a noise of CIFAR-10's tables, or as it is."""
    data = str(settings_of(recipe)["data"]["class_path"]).rpartition(".")[2].removesuffix("DataModule")
    arguments = column_arguments({"noise": "CIFAR-10"}, column) if data == "CIFAR10" else ""
    if not arguments and column != "as it is":
        known = ", ".join(NOISE["CIFAR-10"])
        raise NoisyLabelError(f"No labels '{column}' for '{recipe}': CIFAR-10 has {known}, as 'symmetric 40'.")
    return Cell(recipe, data, recipe, column, None, recipe, arguments, "last")


def _masks(entry: dict[str, Any]) -> bool:
    return bool(entry["class_path"].endswith(".MaskRefresh"))


def _with_ratio(entry: dict[str, Any], ratio: float | None) -> dict[str, Any]:
    return {**entry, "init_args": {**entry.get("init_args", {}), "ratio": ratio}} if _masks(entry) else entry


def _near(name: str, known: Iterable[str]) -> str:
    spelled = {one.casefold(): one for one in known}
    close = [spelled[one] for one in get_close_matches(name.casefold(), spelled, cutoff=0.4)]
    return f" ({' or '.join(map(repr, close))}?)" if close else ""
