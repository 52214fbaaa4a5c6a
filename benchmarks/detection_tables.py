"""Tables and figure of ``benchmarks.detection``."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any

from matplotlib.figure import Figure

Record = dict[str, Any]
Run = dict[str, Any]


def tables(record: Record) -> str:
    """Average precision and AUROC of every ranking, what counts as wrong, and the estimated noise rate; means of seeds.

    Only what was run stands there: a method without runs under some noise has no row in that table.
    """
    runs = list(record["runs"].values())
    parts = [
        "Average precision in per cent, mean over the seeds:",
        _rankings(runs, 1),
        "AUROC in per cent:",
        _rankings(runs, 0),
        "Of the labels that count as wrong at each tool's own cut: F1 in per cent (precision / recall):",
        _by_method(runs, _f1),
        "Estimated noise rate in per cent (true one in the head):",
        _by_method(runs, lambda seen: f"{100 * statistics.mean(one['estimated'][0] for one in seen):.1f}", rate=True),
        *_reports(runs),
        "Wrong ones among the first 48:",
        _by_method(runs, lambda seen: f"{statistics.mean(one['first_48'] for one in seen):.0f}"),
        "Seconds:",
        _by_method(runs, lambda seen: f"{statistics.median(one['seconds'] for one in seen):.0f}"),
    ]
    return "\n\n".join(parts) + "\n"


def summary(record: Record) -> str:
    """What a user of each tool gets: average precision of its ranking and F1 at its cut, in per cent."""
    runs = list(record["runs"].values())
    parts = [
        "Average precision of the ranking that a user gets:",
        _by_method(runs, lambda seen: f"{100 * statistics.mean(_default(one)[1] for one in seen):.1f}"),
        "F1 of what counts as wrong (precision / recall):",
        _by_method(runs, _f1),
    ]
    return "\n\n".join(parts) + "\n"


def figure(record: Record) -> Figure:
    """Average precision of what a user of each method gets, a panel for each kind of noise."""
    runs = list(record["runs"].values())
    methods, noises = _ordered(runs, "method"), _ordered(runs, "noise")
    drawn = Figure(figsize=(1.8 + 1.3 * len(noises), 0.25 * len(methods) + 1), layout="constrained")
    panels = drawn.subplots(1, len(noises), sharex=True, sharey=True, squeeze=False)[0]
    for axes, noise in zip(panels, noises, strict=True):
        axes.set_title(noise, fontsize=8)
        for line, method in enumerate(methods):
            values = [100 * _default(one)[1] for one in runs if (one["method"], one["noise"]) == (method, noise)]
            if values:
                axes.barh(line, statistics.mean(values), color="C0" if method == "audit" else "0.75")
                axes.plot(values, [line] * len(values), ".", color="black", markersize=3)
    panels[0].set_yticks(range(len(methods)), methods, fontsize=7)
    panels[0].set_xlim(0, 100)
    panels[0].invert_yaxis()
    drawn.supxlabel("average precision in per cent: seeds (dots) and mean (bars)", fontsize=8)
    return drawn


def _rankings(runs: list[Run], which: int) -> str:
    noises = _ordered(runs, "noise")
    rows = []
    for method in _ordered(runs, "method"):
        for score in dict.fromkeys(name for one in runs if one["method"] == method for name in one["scores"]):
            cells = []
            for noise in noises:
                seen = [one for one in runs if (one["method"], one["noise"]) == (method, noise)]
                cells.append(
                    f"{100 * statistics.mean(one['scores'][score][which] for one in seen):.1f}" if seen else ""
                )
            if all(cells):
                rows.append([method, score.replace("_", " "), *cells, _seeds(runs, method)])
    return _markdown(["method", "ranking", *noises, "seeds"], rows)


def _by_method(runs: list[Run], cell: Callable[[list[Run]], str], rate: bool = False) -> str:
    noises, rows = _ordered(runs, "noise"), []
    for method in _ordered(runs, "method"):
        groups = [[one for one in runs if (one["method"], one["noise"]) == (method, noise)] for noise in noises]
        if all(groups):
            rows.append([method, *map(cell, groups), _seeds(runs, method)])
    true = {noise: statistics.mean(one["noise_rate"] for one in runs if one["noise"] == noise) for noise in noises}
    heads = [f"{noise} ({100 * true[noise]:.1f})" if rate else noise for noise in noises]
    return _markdown(["method", *heads, "seeds"], rows)


def _reports(runs: list[Run]) -> list[str]:
    """What each run's report measures to speak against it, and whether it is right to."""
    runs = [one for one in runs if one.get("signs")]
    if not runs:
        return []
    rows = []
    for name, group in (
        ("nothing", [one for one in runs if not one["remarks"]]),
        ("something", [one for one in runs if one["remarks"]]),
    ):
        if group:
            scores = [_of_both(one["precision"], one["recall"]) for one in group]
            rows.append([name, str(len(group)), *(f"{100 * of(scores):.1f}" for of in (min, statistics.median, max))])
    return [
        "Labels learned late / labels contradicted in the last epoch, of what chance would contradict, in per cent;"
        " bold where the report says something against a run:",
        _by_method(runs, _signs),
        "F1 by what the reports say against their runs:",
        _markdown(["says", "runs", "lowest F1", "median", "highest"], rows),
    ]


def _signs(seen: list[Run]) -> str:
    late, contradicted, chance = (
        statistics.mean(one["signs"][name] for one in seen) for name in ("learned_late", "contradicted", "by_chance")
    )
    text = f"{100 * late:.1f} / {100 * contradicted / chance:.0f}"
    return f"**{text}**" if any(one["remarks"] for one in seen) else text


def _f1(seen: list[Run]) -> str:
    precision, recall = (statistics.mean(one[name] for one in seen) for name in ("precision", "recall"))
    return f"{100 * _of_both(precision, recall):.1f} ({100 * precision:.0f} / {100 * recall:.0f})"


def _of_both(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _default(run: Run) -> list[float]:
    """AUROC and average precision of the ranking that a user gets, which stands first."""
    found: list[float] = next(iter(run["scores"].values()))
    return found


def _ordered(runs: Iterable[Run], key: str) -> list[str]:
    return list(dict.fromkeys(one[key] for one in runs))


def _seeds(runs: list[Run], method: str) -> str:
    return str(len({one["seed"] for one in runs if one["method"] == method}))


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
