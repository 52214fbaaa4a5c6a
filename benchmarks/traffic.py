"""Bytes that each process gives to the others in a step and in an epoch, for each callback, loss and strategy.

    OMP_NUM_THREADS=1 python -m benchmarks.traffic

Two processes train on the CPU (gloo). Counted is what enters a collective of torch.distributed: the tensor that a
process adds, gathers, broadcasts or sends, whatever the algorithm makes of it on the wire. The gradients of DDP travel
inside of PyTorch and are not among it: they are 4 bytes a parameter, once a step. What Lightning exchanges for itself
(metrics, barriers) is left out. Formulas are those of the documentation, and have to give what was counted.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, seed_everything
from torch import Tensor
from typing_extensions import override

from benchmarks.grid import fit
from benchmarks.random_samples import random_samples
from benchmarks.record import RESULTS, describe_machine, write_record, write_table
from benchmarks.strategy_cost import RandomImages
from benchmarks.traffic_rows import ROWS, Row, Setting
from lightning_noisy.data import LabeledImages
from lightning_noisy.modules import MultiNetworkModule
from lightning_noisy.networks import SmallCNN

WORLD = 2
EPOCHS = 2
_COLLECTIVES = ("all_gather", "all_gather_into_tensor", "all_reduce", "broadcast", "reduce", "send")
_TORCH, _PACKAGE = Path(torch.__file__).parent, Path(sys.modules["lightning_noisy"].__file__ or "").parent


class Images(RandomImages):
    """Images for a row of the table, and one for each process to test."""

    def __init__(self, setting: Setting, row: Row) -> None:
        self.num_classes = setting.classes
        views = row.views or ("weak",)
        super().__init__(setting.samples, views, batch_size=setting.batch, sharded=row.sharded)

    @override
    def test_images(self) -> LabeledImages:
        return LabeledImages.in_memory(*random_samples(self.shape, WORLD, self.num_classes))


class LastEpoch(Callback):
    """Forgets what was counted in the epochs before, in which methods warm up."""

    def __init__(self, seen: Counter[str]) -> None:
        self.seen = seen

    @override
    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.current_epoch < EPOCHS - 1:
            self.seen.clear()


def count(name: str, setting: Setting) -> Counter[str]:
    """Train with a row of the table as a process of a group, and count what it gives: bytes in steps, and beside."""
    row = ROWS[name]
    seed_everything(0, verbose=False)
    make = partial(SmallCNN, 3, width=4, num_features=setting.features)
    backbone = make if issubclass(row.module, MultiNetworkModule) else make()
    options = {"optimizer": partial(torch.optim.SGD, lr=0.01), **row.arguments}
    module = row.module(backbone, row.head, row.loss(), setting.classes, **options)
    data = Images(setting, row)
    strategy = "ddp_find_unused_parameters_true"
    with counted() as seen:
        callbacks = [LastEpoch(seen), *row.callbacks()]
        fit(module, data, EPOCHS, 5.0, callbacks, devices=WORLD, strategy=strategy, log_every_n_steps=1)
    return seen


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """What this process gives to collectives on behalf of the package: bytes in steps and in the rest of epochs."""
    seen: Counter[str] = Counter()
    places = [(module, name) for module in (dist, dist.distributed_c10d) for name in _COLLECTIVES]
    plain = [getattr(module, name) for module, name in places]

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            given = args[1] if isinstance(args[0], list) else args[0]
            assert isinstance(given, Tensor)
            when = _time_of(sys._getframe(1))
            if when is not None:
                seen[when] += given.nbytes
            return call(*args, **kwargs)

        return run

    try:
        for (module, name), call in zip(places, plain, strict=True):
            setattr(module, name, watched(call))
        yield seen
    finally:
        for (module, name), call in zip(places, plain, strict=True):
            setattr(module, name, call)


def _time_of(frame: Any) -> str | None:
    """Whether the package asked for a call "step" or "epoch", by the stack; None where Lightning did for itself."""
    while _TORCH in Path(frame.f_code.co_filename).parents or frame.f_code.co_name == "broadcast":
        frame = frame.f_back
    if _PACKAGE not in Path(frame.f_code.co_filename).parents:
        return None
    while frame is not None:
        if frame.f_code.co_name == "advance" and frame.f_code.co_filename.endswith("training_epoch_loop.py"):
            return "step"
        frame = frame.f_back
    return "epoch"


def measure(name: str, setting: Setting) -> dict[str, Any]:
    """A row of the record: what was counted, in a step and in the rest of an epoch, and what the formulas give."""
    row, seen = ROWS[name], count(name, setting)
    return {
        "name": name,
        "step": seen["step"] / (setting.samples // (WORLD * setting.batch)),
        "step_formula": row.step[0],
        "step_expected": row.step[1](setting),
        "epoch": seen["epoch"],
        "rows_formula": row.rows[0],
        "rows_expected": row.rows[1](setting) * setting.samples // WORLD,
    }


def table(record: dict[str, Any]) -> str:
    """Formulas and what was counted, as Markdown."""
    lines = [
        "| method | bytes a step | counted | bytes a visited sample, an epoch | counted in the epoch |",
        "|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        step, epoch = f"{row['step']:,.0f}", f"{row['epoch']:,.0f}"
        lines.append(f"| {row['name']} | {row['step_formula']} | {step} | {row['rows_formula']} | {epoch} |")
    return "\n".join(lines) + "\n"


def _process(rank: int, meeting: str, names: Sequence[str], setting: Setting, folder: str) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(WORLD), LOCAL_WORLD_SIZE=str(WORLD))
    os.environ.update(GROUP_RANK="0", TORCHELASTIC_RUN_ID="traffic", MASTER_ADDR="127.0.0.1", MASTER_PORT="1")
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=WORLD)
    rows = [measure(name, setting) for name in names]
    if rank == 0:
        torch.save(rows, Path(folder, "rows.pt"))
    dist.destroy_process_group()


def main(arguments: Sequence[str] | None = None) -> None:
    """Count, print the table and write it beside the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--results", type=Path, default=RESULTS / "traffic.json")
    given = parser.parse_args(arguments)
    setting = Setting()
    with tempfile.TemporaryDirectory() as folder:
        context = torch.multiprocessing.start_processes
        context(_process, (f"{folder}/meeting", given.only, setting, folder), WORLD, start_method="fork")
        rows = torch.load(Path(folder, "rows.pt"))
    record = {"machine": describe_machine(), "setting": asdict(setting), "processes": WORLD, "rows": rows}
    text = table(record)
    print(text)
    write_record(given.results, record)
    write_table(given.results, text)


if __name__ == "__main__":
    main()
