"""How often one training batch of the quickstart crosses from one file of the package into another, and back.

Run from a clone: ``python -m benchmarks.moves``. It prints the number of moves, the share of the loader and the most
frequent pairs of files; nothing is recorded. A call and its return are two moves. What it does not show: time.
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
BATCH = 5
"""The batch that is looked at: masks and tables are there by then."""


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
        """Moves that begin or end in the loader and what it calls."""
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


def count_moves() -> Moves:
    """Train the quickstart for an epoch, and look at one batch."""
    moves, advance, batches = Moves(), _TrainingEpochLoop.advance, []

    def watched(loop: _TrainingEpochLoop, fetcher: Any) -> None:
        batches.append(fetcher)
        if len(batches) == BATCH:
            sys.setprofile(moves)
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
            main(["fit", "--config", str(CONFIG), "--trainer.max_epochs=1", *silent, *root])
    finally:
        _TrainingEpochLoop.advance = advance  # type: ignore[method-assign]
    return moves


def run() -> None:
    """Count, and print."""
    moves = count_moves()
    print(f"{moves.total} moves between files in a batch, {moves.of_loader} of them the loader's")
    for (caller, called), count in moves.pairs.most_common(12):
        print(f"{count:5}  {caller} -> {called}")


if __name__ == "__main__":
    run()
