"""The record of `methods.py` in a few bytes: a line for each method and noise, in it a column for each figure.

Accuracies are numbers of test images that are right, which is exact; commits are positions in a list of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning_noisy.files import written_aside


def write_compact(path: Path, record: dict[str, Any]) -> None:
    """Write a record, aside first."""
    rows, commits = record["settings"]["test_rows"], sorted({seen["commit"] for seen in record["runs"].values()})
    groups: dict[str, dict[str, list[Any]]] = {}
    for seen in record["runs"].values():
        columns = {
            **{key: value for key, value in seen.items() if key not in ("method", "noise", "accuracy")},
            "right": [round(share * rows) for share in seen["accuracy"]],
            "commit": commits.index(seen["commit"]),
        }
        group = groups.setdefault(f"{seen['method']}, {seen['noise']}", {key: [] for key in columns})
        for key, value in columns.items():
            group[key].append(value)
    head = {"settings": record["settings"], "machine": record["machine"], "commits": commits}
    entries = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    lines = [f"{json.dumps(name)}: {json.dumps(group, separators=(',', ':'))}" for name, group in groups.items()]
    entries.append('"runs": {\n' + ",\n".join(lines) + "\n}")
    with written_aside(path) as file:
        file.write(("{\n" + ",\n".join(entries) + "\n}\n").encode())


def read_compact(path: Path) -> dict[str, Any]:
    """A record as :func:`write_compact` took it, runs by method and noise; empty where there is none yet."""
    if not path.exists():
        return {}
    record: dict[str, Any] = json.loads(path.read_text())
    rows, commits = record["settings"]["test_rows"], record.pop("commits")
    runs: dict[str, dict[str, Any]] = {}
    for name, group in record["runs"].items():
        method, noise = name.rsplit(", ", 1)
        for values in zip(*group.values(), strict=True):
            seen = dict(zip(group, values, strict=True))
            accuracy = [right / rows for right in seen.pop("right")]
            seen.update(method=method, noise=noise, accuracy=accuracy, commit=commits[seen["commit"]])
            runs[f"{name}, {seen['seed']}"] = seen
    return {**record, "runs": runs}
