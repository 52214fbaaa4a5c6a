"""The ranked labels in the files that annotation tools read."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.files import written_aside
from lightning_noisy.reports.label_issues import LabelIssues

_CHOICE, _IMAGE = "label", "image"
_NO_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MANY = 10**8
_LOCAL_FILES = "/data/local-files/?d="


def write_label_studio(folder: Path, issues: LabelIssues, root: str | Path = "", prefix: str | None = None) -> None:
    """Write ``tasks.json``, the labels that count as wrong as pre-annotated tasks, and ``labeling.xml``, their form.

    The most suspicious come first. A task shows the image, the given label and the score; what is suggested is its
    prediction. In Label Studio, paste ``labeling.xml`` as the labeling interface and import ``tasks.json``. It shows
    files of its own machine where it is started with ``LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true`` and their folder
    is a source storage of the project (local files).

    Args:
        folder: Where the files go.
        issues: The ranked labels, of paths.
        root: The folder that they are relative to.
        prefix: What stands before a path, which is quoted as in a URL, so that Label Studio finds the image, such as
            ``"s3://bucket/"``; None is that of local files, before absolute paths.

    Raises:
        NoisyLabelError: Samples are rows, not paths.
    """
    _check_paths(issues, "Label Studio")
    rows = issues.order[issues.wrong[issues.order]]
    samples = issues.samples[rows].tolist()
    paths = _absolute(samples, root) if prefix is None else samples
    places = [(prefix or _LOCAL_FILES) + quote(os.fsencode(path)) for path in paths]
    tasks = [_task(issues, row, place) for row, place in zip(rows.tolist(), places, strict=True)]
    _write_json(folder / "tasks.json", tasks)
    choices = "".join(f"    <Choice value={quoteattr(_choice(name))}/>\n" for name in issues.class_names)
    form = (
        f'<View>\n  <Image name="{_IMAGE}" value="$image"/>\n  <Header value="Given: $given, score $score"/>\n'
        f'  <Choices name="{_CHOICE}" toName="{_IMAGE}" choice="single">\n{choices}  </Choices>\n</View>\n'
    )
    with written_aside(folder / "labeling.xml") as file:
        file.write(form.encode(errors="replace"))


def write_fiftyone(folder: Path, issues: LabelIssues, root: str | Path = "") -> None:
    """Write ``labels.json`` and ``data.json``, which FiftyOne reads as a ``FiftyOneImageClassificationDataset``.

    Each sample has its given label, and ``score``, ``rank``, ``suggested`` and ``flags`` as attributes::

        fiftyone.Dataset.from_dir(
            dataset_type=fiftyone.types.FiftyOneImageClassificationDataset,
            data_path="data.json", labels_path="labels.json",
        )

    Args:
        folder: Where the files go.
        issues: The ranked labels, of paths.
        root: The folder that they are relative to. The files have them absolute, since FiftyOne looks beside
            ``data.json`` otherwise.

    Raises:
        NoisyLabelError: Samples are rows, not paths.
    """
    _check_paths(issues, "FiftyOne")
    keys = [f"{row:09d}" for row in range(len(issues))]
    labels = {
        key: {
            "label": issues.name(issues.given[row]),
            "attributes": {
                "score": float(issues.score[row]),
                "rank": int(issues.rank[row]),
                "suggested": issues.name(issues.suggested[row]),
                "flags": issues.flags[row],
            },
        }
        for row, key in enumerate(keys)
    }
    _write_json(folder / "data.json", dict(zip(keys, _absolute(issues.samples.tolist(), root), strict=True)))
    _write_json(folder / "labels.json", {"classes": list(issues.class_names), "labels": labels})


def write_cleanlab(path: Path, issues: LabelIssues) -> None:
    """Write the columns of cleanlab's ``Datalab.get_issues("label")`` as arrays of a .npz file, in the samples' order.

    ``is_label_issue`` bool (N,), ``label_score`` float64 (N,), ``given_label`` and ``predicted_label`` int64 (N,).
    A *low* ``label_score`` is suspicious there: it is 1 minus ours. ``pred_probs`` float32 (N, K) is what cleanlab's
    other functions take, up to 10^8 numbers: the mean over epochs, of a network that has seen these labels.

    Args:
        path: Name of the file.
        issues: The ranked labels.
    """
    known = issues.probabilities
    predicted: dict[str, Any] = {} if known is None or known.size > _MANY else {"pred_probs": known}
    with written_aside(path) as file:
        np.savez(
            file,
            is_label_issue=issues.wrong,
            label_score=1 - issues.score,
            given_label=issues.given,
            predicted_label=issues.suggested,
            **predicted,
        )


def _task(issues: LabelIssues, row: int, place: str) -> dict[str, Any]:
    """A sample as Label Studio imports it."""
    score = round(float(issues.score[row]), 4)
    choice = {
        "from_name": _CHOICE,
        "to_name": _IMAGE,
        "type": "choices",
        "value": {"choices": [_choice(issues.name(issues.suggested[row]))]},
    }
    return {
        "data": {
            "image": place,
            "given": issues.name(issues.given[row]),
            "score": score,
        },
        "predictions": [{"model_version": "lightning_noisy", "score": score, "result": [choice]}],
    }


def _choice(name: str) -> str:
    """A class's name as XML can hold it, with a question mark for all else."""
    return _NO_XML.sub("?", name)


def _absolute(paths: Sequence[str], root: str | Path) -> list[str]:
    return [str(Path(Path(root).expanduser(), path).absolute()) for path in paths]


def _check_paths(issues: LabelIssues, tool: str) -> None:
    if issues.kind != "path":
        raise NoisyLabelError(f"{tool} shows images, and these samples are rows of a table without paths.")


def _write_json(path: Path, content: object) -> None:
    with written_aside(path) as file:
        file.write(json.dumps(content).encode())  # indented it would take ten times as long
