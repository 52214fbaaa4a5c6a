"""Two hosts of two processes: the same as one process, and exact again after one of them was killed."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.host_run import CASES, NODES, PER_NODE, RESULT, SAMPLES, STRATEGY, WORLD, train
from tests.hosts import ROOT, Commands, commands, free_port, start_hosts
from tests.small import assert_same
from tests.test_ddp import CLOSE, same

pytestmark = pytest.mark.slow
SECONDS = 240
"""Until everything is over; the start of six processes takes most of it."""
RUN = "tests.host_run"
ROWS = {"plain": 3, "sharded": 2, "strategy": 1}
"""Stores of each case."""


def run_hosts(folder: Path, *arguments: str, restarts: int = 0) -> list[tuple[int, str]]:
    """Exit status and output of both agents."""
    with commands(folder) as started:
        start_hosts(started, NODES, PER_NODE, [RUN, str(folder), *arguments], restarts)
        return started.wait((1 + restarts) * SECONDS)


def results(folder: Path, case: str) -> list[dict[str, Any]]:
    """What a run has left in each process."""
    return [torch.load(folder / RESULT.format(case=case, rank=rank), weights_only=True) for rank in range(WORLD)]


def shard(rows: Tensor, rank: int, expected: Tensor) -> Tensor:
    """What a process has of all rows: all, or those of its own samples."""
    return expected if len(rows) == SAMPLES else expected[rank::WORLD]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of runs that nothing has interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    ended = run_hosts(folder)
    assert [code for code, _ in ended] == [0, 0], ended
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_hosts_equal_one_process(whole: Path, tmp_path: Path, case: str) -> None:
    alone = train(case, tmp_path, {})
    assert len(alone["rows"]) == ROWS[case]
    for rank, found in enumerate(results(whole, case)):
        rows = {name: shard(found["rows"][name], rank, all_rows) for name, all_rows in alone["rows"].items()}
        in_shards = [len(one) < SAMPLES for one in rows.values()]
        assert any(in_shards) == (case == "sharded")
        same(found, {**alone, "rows": rows}, **CLOSE)


def test_a_process_that_is_killed_is_started_again_and_leaves_no_trace(whole: Path, tmp_path: Path) -> None:
    """Once in each case; torchrun starts all processes anew, which go on from the last checkpoint inside an epoch."""
    ended = run_hosts(tmp_path, "plain:5", "sharded:7", "strategy:10", restarts=len(CASES))
    assert [code for code, _ in ended] == [0, 0], ended
    assert len(list(tmp_path.glob("*.killed"))) == len(CASES)
    for case in CASES:
        same(results(tmp_path, case), results(whole, case))


QUICK = (
    *(
        "fit",
        "--config",
        "quickstart",
        "--trainer.max_epochs",
        "3",
        "--data.batch_size",
        "48",
        "--trainer.logger",
        "false",
    ),
    *("--trainer.num_nodes", str(NODES), "--trainer.devices", str(PER_NODE), "--trainer.strategy", STRATEGY),
    *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--trainer.logger", "false"),
    *("--trainer.callbacks+", "ModelCheckpoint", "--trainer.callbacks.dirpath", "kept"),
    *("--trainer.callbacks.every_n_train_steps", "5", "--trainer.callbacks.save_last", "true"),
)
"""Eight steps an epoch."""


def start_command_line(started: Commands, *arguments: str) -> None:
    start_hosts(started, NODES, PER_NODE, ["lightning_noisy", *QUICK, *arguments])


def test_the_command_line_says_why_it_has_ended_and_goes_on(tmp_path: Path) -> None:
    with commands(tmp_path / "whole") as started:
        start_command_line(started)
        assert [code for code, _ in started.wait(SECONDS)] == [0, 0]
    with commands(tmp_path / "killed") as started:
        start_command_line(started)
        wait_for(lambda: (tmp_path / "killed/kept/last.ckpt").exists())
        (last,) = (pid for pid, variables in started.running().items() if variables.get("RANK") == "3")
        os.kill(last, signal.SIGKILL)
        killed = time.monotonic()
        ended = started.wait(SECONDS)
        assert time.monotonic() - killed < 60
        said = "".join(output for _, output in ended)
        assert all(code != 0 for code, _ in ended)
        assert said.count("lightning-noisy: error: Another process of this run has ended") == 1, said
        assert f"Signal 9 (SIGKILL) received by PID {last}" in said
        assert "a bug" not in said
    with commands(tmp_path / "killed") as started:
        start_command_line(started, "--ckpt_path", "kept/last.ckpt")
        assert [code for code, _ in started.wait(SECONDS)] == [0, 0]
    found, expected = (torch.load(tmp_path / name / "kept/last.ckpt") for name in ("killed", "whole"))
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        same(found[part], expected[part])
    assert_same(found["callbacks"]["lightning_noisy"], expected["callbacks"]["lightning_noisy"])


def test_tasks_of_slurm_are_the_same_run(whole: Path, tmp_path: Path) -> None:
    """Lightning knows them by the variables that srun sets."""
    port = free_port()
    with commands(tmp_path) as started:
        for task in range(WORLD):
            started.start("-m", RUN, str(tmp_path), **slurm(task, port))
        assert [code for code, _ in started.wait(SECONDS)] == [0] * WORLD
    for case in CASES:
        same(results(tmp_path, case), results(whole, case))


def test_ray_trains_as_the_documentation_says(tmp_path: Path) -> None:
    pytest.importorskip("ray.train.lightning", exc_type=ImportError)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "several_gpus.md").read_text(), flags=re.S)
    script, checkpoint = tmp_path / "example.py", tmp_path / "digits.ckpt"
    script.write_text(code.replace("/shared/digits.ckpt", str(checkpoint)))
    with commands(tmp_path) as started:
        started.start(str(script), RAY_USAGE_STATS_ENABLED="0", RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S=str(SECONDS))
        ((status, output),) = started.wait(2 * SECONDS)
    assert status == 0, output
    saved = torch.load(checkpoint, weights_only=True)
    assert saved["global_step"] == 6 * 23  # 1437 images in batches of twice 32
    kept = saved["callbacks"]["lightning_noisy"]
    (rows,) = (store["values"] for part in kept["sections"].values() for store in part["stores"].values())
    assert rows.shape == (1437, 10)
    assert (rows.sum(dim=1) > 0).all()  # those of both processes


def slurm(task: int, port: int) -> dict[str, str]:
    """Variables of a task."""
    numbers = {
        "SLURM_NTASKS": WORLD,
        "SLURM_NTASKS_PER_NODE": PER_NODE,
        "SLURM_NNODES": NODES,
        "SLURM_PROCID": task,
        "SLURM_LOCALID": task % PER_NODE,
        "SLURM_NODEID": task // PER_NODE,
        "SLURM_JOB_ID": 1234,
        "MASTER_PORT": port,
    }
    names = {"SLURM_JOB_NAME": "train", "SLURM_NODELIST": "127.0.0.1"}
    return names | {name: str(number) for name, number in numbers.items()}


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
