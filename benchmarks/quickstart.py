"""The quickstart against plain cross entropy, seeds 0 to 4: last-epoch test accuracy and the README's picture.

    python -m benchmarks.quickstart --results benchmarks/results/quickstart.json --picture docs/images/quickstart.png

It shows that on small scans with 40 % symmetric noise the robust parts together keep the network from memorizing. It
does not show what each part gives, nor anything about other data.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.record import describe_machine
from lightning_noisy.callbacks import ConfidenceTracker, RunSummary
from lightning_noisy.cli import main
from lightning_noisy.figures import comparison_figure
from lightning_noisy.files import written_aside

ROOT = Path(__file__).resolve().parent.parent
RUNS = {"quickstart": "quickstart.yaml", "cross entropy": "quickstart_ce.yaml"}


def run(config: str, seed: int) -> dict[str, Any]:
    """One fit: accuracy by epoch, confidences by epoch, noise rate and seconds."""
    os.environ.pop("PL_GLOBAL_SEED", None)
    started = time.perf_counter()
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    cli = main(["fit", "--config", str(ROOT / "configs" / config), "--seed_everything", str(seed), *quiet])
    callbacks = {type(callback): callback for callback in cli.trainer.callbacks}
    summary, tracker = callbacks[RunSummary], callbacks[ConfidenceTracker]
    return {
        "accuracy": {epoch: seen["test/acc"] for epoch, seen in summary.history.items()},
        "confidence": tracker.history,
        "realized_noise_rate": cli.datamodule.realized_noise_rate,
        "seconds": round(time.perf_counter() - started, 1),
    }


def benchmark(seeds: list[int], results: Path, picture: Path) -> dict[str, Any]:
    """Run both configurations, interleaved, and record table and picture."""
    results, picture = results.resolve(), picture.resolve()
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in RUNS}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for seed in seeds:
            for name, config in RUNS.items():
                runs[name].append(run(config, seed))
        os.chdir(ROOT)
    table = {}
    for name, fits in runs.items():
        last = [list(fit["accuracy"].values())[-1] for fit in fits]
        table[name] = {
            "last_epoch": dict(zip(map(str, seeds), last, strict=True)),
            "mean": statistics.mean(last),
            "seconds": [fit["seconds"] for fit in fits],
            "realized_noise_rate": [fit["realized_noise_rate"] for fit in fits],
        }
        print(f"{name:>14}: mean last epoch {100 * statistics.mean(last):.2f} %, {table[name]['seconds']} s")
    command = "python -m benchmarks.quickstart --seeds " + " ".join(map(str, seeds))
    record = {"command": command, "machine": describe_machine(), "runs": table}
    with written_aside(results) as file:
        file.write((json.dumps(record, indent=2) + "\n").encode())
    accuracies = {
        name: {epoch: [fit["accuracy"][epoch] for fit in fits] for epoch in fits[0]["accuracy"]}
        for name, fits in runs.items()
    }
    figure = comparison_figure(accuracies, {name: fits[0]["confidence"] for name, fits in runs.items()})
    with written_aside(picture) as file:
        figure.savefig(file, format="png", dpi=110)
    return record


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results/quickstart.json")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs/images/quickstart.png")
    arguments = parser.parse_args()
    benchmark(arguments.seeds, arguments.results, arguments.picture)
