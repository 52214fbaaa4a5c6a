"""What every record of a benchmark says: the machine it comes from; and how it is written."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from matplotlib.figure import Figure

from lightning_noisy.files import written_aside

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def commit() -> str:
    """The commit that is measured, with ``+`` where the package or the benchmarks differ from it."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    ours = ["--", "lightning_noisy", "benchmarks/*.py"]
    status = subprocess.run([*git, "status", "--porcelain", *ours], capture_output=True, text=True, check=False)
    return head.stdout.strip() + ("+" if status.stdout else "")


def describe_machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "commit": commit(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "lightning": lightning.__version__,
    }


def read_record(path: Path) -> dict[str, Any]:
    """A record, empty where there is none yet."""
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return record


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record as JSON, aside first."""
    with written_aside(path) as file:
        file.write((json.dumps(record, indent=2) + "\n").encode())


def _processor() -> str:
    names = Path("/proc/cpuinfo")
    lines = names.read_text().splitlines() if names.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), None)
    return model or platform.processor() or platform.machine()


def write_table(record: Path, table: str) -> None:
    """Write a table as Markdown beside its record."""
    with written_aside(record.with_suffix(".md")) as file:
        file.write(table.encode())


def write_picture(record: Path, picture: Figure) -> None:
    """Write a picture beside its record."""
    with written_aside(record.with_suffix(".png")) as file:
        picture.savefig(file, format="png", dpi=110)
