"""Cross entropy, GCE and DAL on digits with a backdoor: test accuracy and attack success in the last epoch.

    OMP_NUM_THREADS=1 python -m benchmarks.backdoor --jobs 2 --seeds 0 1 2

A run that stands in the record is not repeated. Losses have DAL's arguments for CIFAR-10; triggers and the share of
poisoned images are ours. It shows one small network on small scans, and nothing about the figures of the paper.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS, describe_machine, read_record, write_record

EPOCHS = 25
RATE = 0.01
RECIPE = ["--config", "quickstart_ce", "--data.noise", "null", "--model.lr_scheduler.T_max", str(EPOCHS)]
QUIET = [
    "--trainer.enable_progress_bar",
    "false",
    "--trainer.enable_model_summary",
    "false",
    "--trainer.logger",
    "false",
]
TRIGGERS = {
    "local": ["--data.backdoor", "LocalTrigger", "--data.backdoor.size", "0.25"],
    "global": ["--data.backdoor", "GlobalTrigger"],
}
SCHEDULE = {"q_start": "0.8", "q_end": "1.5", "lam_end": "1.0"}
LOSSES = {
    "CE": [],
    "GCE": ["--model.loss", "GeneralizedCrossEntropy", "--model.loss.q", "0.9", "--model.loss.eps", "1e-06"],
    "DAL": [
        *("--model.loss", "DynamicsAwareLoss", "--model.loss.q", "0.8", "--trainer.callbacks+=DALSchedule"),
        *(word for name, value in SCHEDULE.items() for word in (f"--trainer.callbacks.{name}", value)),
    ],
}
MEASURED = ("test/acc", "backdoor/success", "backdoor/acc")


def fit(trigger: str, loss: str, seed: int, epochs: int = EPOCHS) -> dict[str, float]:
    """One run by the command line: what is measured in the last epoch, the number of poisoned images, and seconds."""
    from lightning_noisy.cli import main  # a process of its own reads seeds from the environment when it starts

    os.environ.pop("PL_GLOBAL_SEED", None)
    started = time.perf_counter()
    length = ["--trainer.max_epochs", str(epochs), "--trainer.check_val_every_n_epoch", str(epochs)]
    attack = [*TRIGGERS[trigger], "--data.backdoor.rate", str(RATE)]
    with tempfile.TemporaryDirectory() as folder:
        place = ["--trainer.default_root_dir", folder, "--seed_everything", str(seed)]
        cli = main(["fit", *RECIPE, *length, *attack, *LOSSES[loss], *QUIET, *place])
    seen = {name: cli.trainer.callback_metrics[name].item() for name in MEASURED}
    counts = {"poisoned": int(cli.datamodule.poisoned.sum()), "seconds": round(time.perf_counter() - started, 1)}
    return {**seen, **counts}


def benchmark(seeds: list[int], jobs: int, path: Path) -> dict[str, Any]:
    """The runs that the record lacks; returns the record."""
    command = f"OMP_NUM_THREADS=1 python -m benchmarks.backdoor --jobs {jobs} --seeds {' '.join(map(str, seeds))}"
    started = {"command": command, "rate": RATE, "epochs": EPOCHS, "machine": describe_machine(), "runs": {}}
    record = read_record(path) or started
    runs = record["runs"]
    wanted = {f"{run[1]}, {run[2]}, seed {run[0]}": run for run in itertools.product(seeds, TRIGGERS, LOSSES)}
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        waiting = {
            pool.submit(fit, trigger, loss, seed): name
            for name, (seed, trigger, loss) in wanted.items()
            if name not in runs
        }
        for done in as_completed(waiting):
            runs[waiting[done]] = done.result()
            write_record(path, {**record, "runs": dict(sorted(runs.items()))})
    return record


def table(runs: dict[str, dict[str, float]]) -> list[str]:
    """A row for each trigger and loss: mean and standard deviation over seeds, in per cent."""
    lines = ["| trigger | loss | accuracy | success | seeds |", "|---|---|---|---|---|"]
    for trigger, loss in itertools.product(TRIGGERS, LOSSES):
        chosen = [run for name, run in runs.items() if name.startswith(f"{trigger}, {loss},")]
        cells = [_mean([100 * run[name] for run in chosen]) for name in MEASURED[:2]]
        lines.append(f"| {trigger} | {loss} | {' | '.join(cells)} | {len(chosen)} |")
    return lines


def _mean(values: list[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ± {spread:.2f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS / "backdoor.json")
    arguments = parser.parse_args()
    print("\n".join(table(benchmark(arguments.seeds, arguments.jobs, arguments.results)["runs"])))
