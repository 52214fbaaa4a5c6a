"""How often a training batch of the quickstart crosses from one file of the package into another, and back.

Run from a clone: ``python -m benchmarks.moves``. It looks at every batch of six epochs, five of warm-up and one in
which SELC changes targets, since the first ones and those that log do more. It prints how many batches make how many
moves, the share of ``data/`` and, of the commonest kind, the most frequent pairs of files; nothing is recorded. A call
and its return are two moves; a call that comes from outside, from Lightning or torch alone, is none. What it does not
show: time.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

import lightning_noisy
from lightning_noisy.cli import main

PACKAGE = f"{Path(lightning_noisy.__file__).parent}/"
CONFIG = Path(__file__).resolve().parent.parent / "configs" / "quickstart.yaml"
EPOCHS = 6


class Moves:
    """Counts moves between files while it is the profiler."""

    def __init__(self) -> None:
        self.pairs: Counter[tuple[str, str]] = Counter()
        self._files: list[str] = []

    @property
    def total(self) -> int:
        """All moves."""
        return self.pairs.total()

    @property
    def of_loader(self) -> int:
        """Moves that begin in a file of ``data/``: the loader's, and what else is asked of the data."""
        return sum(count for (caller, _), count in self.pairs.items() if caller.startswith("data/"))

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Note a call or a return of Python."""
        file = frame.f_code.co_filename
        if not file.startswith(PACKAGE):
            return
        if event == "call":
            if self._files and self._files[-1] != file:
                self.pairs[self._files[-1].removeprefix(PACKAGE), file.removeprefix(PACKAGE)] += 2
            self._files.append(file)
        elif event == "return" and self._files:
            self._files.pop()


def count_moves() -> list[Moves]:
    """Train the quickstart for six epochs, and look at each batch."""
    batches: list[Moves] = []
    advance = _TrainingEpochLoop.advance

    def watched(loop: _TrainingEpochLoop, fetcher: Any) -> None:
        batches.append(Moves())
        sys.setprofile(batches[-1])
        try:
            advance(loop, fetcher)
        finally:
            sys.setprofile(None)

    quiet = ["enable_progress_bar", "enable_model_summary", "enable_checkpointing", "logger"]
    silent = [f"--trainer.{name}=false" for name in quiet]
    _TrainingEpochLoop.advance = watched  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as folder:
            root = [f"--trainer.default_root_dir={folder}", "--trainer.accelerator=cpu"]
            main(["fit", "--config", str(CONFIG), f"--trainer.max_epochs={EPOCHS}", *silent, *root])
    finally:
        _TrainingEpochLoop.advance = advance  # type: ignore[method-assign]
    return batches


def kinds(batches: list[Moves]) -> list[tuple[Moves, int]]:
    """One batch of each number of moves, and how many are like it; the commonest first."""
    counts = Counter((batch.total, batch.of_loader) for batch in batches)
    example = {(batch.total, batch.of_loader): batch for batch in batches}
    return [(example[kind], count) for kind, count in counts.most_common()]


def run() -> None:
    """Count, and print."""
    batches = count_moves()
    for moves, count in kinds(batches):
        share = f"{moves.of_loader} of them from data/"
        print(f"{moves.total} moves between files, {share}: {count} of {len(batches)} batches")
    for (caller, called), count in kinds(batches)[0][0].pairs.most_common(12):
        print(f"{count:5}  {caller} -> {called}")


if __name__ == "__main__":
    run()
