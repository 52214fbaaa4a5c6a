"""The ranked labels as one page that people look through."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from lightning_noisy.files import written_aside
from lightning_noisy.reports.charts import histogram, sparkline
from lightning_noisy.reports.label_issues import SCORE_BINS, LabelIssues
from lightning_noisy.reports.quality import quality
from lightning_noisy.reports.thumbnails import data_url

_SUSPECTS, _GALLERY, _OF_CLASS, _UNDECIDED = 400, 96, 12, 24
_PAIRS, _MATRIX = 12, 25

Thumbnail = Callable[[int], Image.Image | None]
"""Makes the picture of a sample, None where it has none."""


@dataclass(frozen=True)
class _Card:
    """A sample as it is shown."""

    sample: str
    given: str
    suggested: str
    score: float
    rank: int
    flags: str
    picture: str | None
    curve: Markup
    truth: str | None


@dataclass(frozen=True)
class _Pair:
    """Labels that go from one class to another."""

    given: str
    suggested: str
    count: int
    share: float


def write_page(path: Path, issues: LabelIssues, title: str, thumbnail: Thumbnail | None = None) -> None:
    """Write ``report.html``: one file that needs nothing else, neither a network nor a server.

    It has the estimated noise rate, a histogram of the scores with the right and wrong labels that they expect and the
    cut, which class is given for which, a gallery of suspects by class that sorts, what stays undecided, and, where
    right labels are known, how good the ranking is. All text of the data is escaped. Pictures are small copies; at most
    96 suspects in all and the first 12 of each class are shown, 400 together; of many classes the first of each come
    first. So the file stays below 5 MB.

    Args:
        path: Name of the file.
        issues: The ranked labels.
        title: What the data is called.
        thumbnail: Makes the picture of a sample by its position; None: samples have no pictures.
    """
    suspects = _suspects(issues)
    page = (
        _environment()
        .get_template("page.html")
        .render(
            title=title,
            issues=issues,
            found=int(issues.wrong.sum()),
            quality=quality(issues),
            chart=_chart(issues),
            pairs=_pairs(issues),
            matrix=issues.confusion if len(issues.class_names) <= _MATRIX else None,
            most=max(1, int(issues.confusion.max(initial=0))),
            cards=_cards(issues, suspects, thumbnail),
            undecided=_cards(issues, _undecided(issues), thumbnail),
            shown=sorted({issues.name(label) for label in issues.given[suspects].tolist()}),
            script=Markup(_part("page.js")),
            script_hash=_hash(_part("page.js")),
            style=Markup(_part("page.css")),
        )
    )
    with written_aside(path) as file:
        file.write(page.encode(errors="replace"))


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(_part),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _part(name: str) -> str:
    """A file beside this one."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """What the page's policy names, so that no other script runs."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _suspects(issues: LabelIssues) -> list[int]:
    """The most suspicious labels in all and of each class, the most suspicious first."""
    ranked = issues.order[issues.wrong[issues.order]]
    places: dict[int, int] = {}
    of_class = []
    for label in issues.given[ranked].tolist():
        of_class.append(places.get(label, 0))
        places[label] = of_class[-1] + 1
    rest = [(nth, place) for place, nth in enumerate(of_class) if place >= _GALLERY and nth < _OF_CLASS]
    chosen = [*range(min(_GALLERY, len(ranked))), *(place for _, place in sorted(rest)[: _SUSPECTS - _GALLERY])]
    return [int(ranked[place]) for place in sorted(chosen)]


def _undecided(issues: LabelIssues) -> list[int]:
    """Samples whose scores are beside the cut, or that no class fits better than the given one."""
    near = np.argsort(np.abs(issues.score - issues.cut), kind="stable")
    first = issues.order[issues.ambiguous[issues.order]]
    chosen = dict.fromkeys([*first.tolist()[: _UNDECIDED // 2], *near.tolist()[:_UNDECIDED]])
    return list(chosen)[:_UNDECIDED]


def _cards(issues: LabelIssues, rows: Iterable[int], thumbnail: Thumbnail | None) -> list[_Card]:
    return [_card(issues, row, None if thumbnail is None else thumbnail(issues.position(row))) for row in rows]


def _card(issues: LabelIssues, row: int, image: Image.Image | None) -> _Card:
    known = issues.truth is not None and issues.truth[row] >= 0
    return _Card(
        sample=str(issues.samples[row]),
        given=issues.name(issues.given[row]),
        suggested=issues.name(issues.suggested[row]),
        score=float(issues.score[row]),
        rank=int(issues.rank[row]),
        flags=issues.flags[row],
        picture=None if image is None else data_url(image),
        curve=Markup("") if issues.curves is None else sparkline(issues.curves[row]),
        truth=issues.name(issues.truth[row]) if known and issues.truth is not None else None,
    )


def _chart(issues: LabelIssues) -> Markup:
    counts = np.histogram(issues.score, bins=SCORE_BINS, range=(0, 1))[0]
    return histogram(counts, issues.cut, list(issues.components.values()), list(issues.components))


def _pairs(issues: LabelIssues) -> Sequence[_Pair]:
    """The classes that are most often given for another."""
    confusion = issues.confusion
    sizes: NDArray[np.int64] = np.bincount(issues.given, minlength=len(issues.class_names))
    places = np.argsort(-confusion, axis=None, kind="stable")[:_PAIRS]
    ranked = (np.unravel_index(place, confusion.shape) for place in places)
    return [
        _Pair(issues.name(int(row)), issues.name(int(column)), count, count / int(sizes[row]))
        for row, column in ranked
        if (count := int(confusion[row, column])) > 0
    ]
