"""All files of a report, in one folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from lightning_noisy.files import written_aside
from lightning_noisy.reports.exports import write_cleanlab, write_fiftyone, write_label_studio
from lightning_noisy.reports.label_issues import LabelIssues
from lightning_noisy.reports.page import Thumbnail, write_page
from lightning_noisy.reports.table import write_table

_LOOKED_AT = 12
TABLE, LABELS, PAGE = "label_issues.csv", "suggested_labels.npz", "report.html"


def write_report(
    folder: Path, issues: LabelIssues, title: str, thumbnail: Thumbnail | None = None, root: str = ""
) -> None:
    """Write the ranked list, the corrected labels, the page, and the files for other tools.

    ``label_issues.csv``, ``suggested_labels.npz`` (``labels`` and, before the correction, ``given``, int64 (N,),
    ``class_names``, and ``path`` or ``row``; ``FileNoise`` reads it, so that a second run starts from it),
    ``report.html``, ``cleanlab.npz`` and, where samples are paths, ``label_studio/`` and ``fiftyone/``. Each file is
    whole or not there.

    Args:
        folder: Where they go.
        issues: The ranked labels.
        title: What the data is called.
        thumbnail: Makes the picture of a sample by its position.
        root: The folder that paths are relative to.
    """
    write_table(folder / TABLE, issues)
    write_cleanlab(folder / "cleanlab.npz", issues)
    for tool, write in (("label_studio", write_label_studio), ("fiftyone", write_fiftyone)):
        if issues.kind == "path":
            write(folder / tool, issues, root)
        else:
            shutil.rmtree(folder / tool, ignore_errors=True)  # of another run, which had paths
    arrays: dict[str, Any] = {
        "labels": issues.corrected,
        "given": issues.given,
        "class_names": np.array(issues.class_names),
        issues.kind: issues.samples if issues.kind == "path" else issues.samples.astype(np.int64),
    }
    with written_aside(folder / LABELS) as file:
        np.savez(file, **arrays)
    write_page(folder / PAGE, issues, title, thumbnail)  # last: it reads images, which may be gone
    if issues.kind == "path" and thumbnail is not None and not _has_pictures(issues, thumbnail):
        rank_zero_warn(
            f"{folder / PAGE} shows no pictures, since no file is where the samples' paths say: give the folder that "
            "they are relative to, `image_root` (`lightning-noisy report RUN --image_root FOLDER`)."
        )


def _has_pictures(issues: LabelIssues, thumbnail: Thumbnail) -> bool:
    return any(thumbnail(issues.position(int(row))) is not None for row in issues.order[:_LOOKED_AT])
