"""Hosts on one machine: an agent of torchrun for each, over the loopback, and nothing that outlives a test."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
_MARK = "TESTS_HOSTS"


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Commands:
    """Processes that are started side by side; those that they start are known by a mark in the environment."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._mark = folder, uuid.uuid4().hex
        self._started: list[tuple[subprocess.Popen[bytes], Path]] = []

    def start(self, *command: str, **environment: str) -> None:
        """Start ``python command...`` in the folder, on one thread, where it finds the package and the tests."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "PL_"))}
        ours = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT), _MARK: self._mark}
        output = self.folder / f"output.{len(self._started)}.txt"
        with output.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, *command],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=kept | ours | environment,
                cwd=self.folder,
            )
        self._started.append((process, output))

    def wait(self, seconds: float) -> list[tuple[int, str]]:
        """Exit status and output of each. They have to end within the time, and to leave nobody behind."""
        deadline = time.monotonic() + seconds
        try:
            codes = [process.wait(max(0.0, deadline - time.monotonic())) for process, _ in self._started]
        except subprocess.TimeoutExpired:
            outputs = [output.read_text()[-3000:] for _, output in self._started]
            raise AssertionError("\n".join([f"not over after {seconds} s:", *outputs])) from None
        while self.running() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not self.running()
        return [(code, output.read_text()) for code, (_, output) in zip(codes, self._started, strict=True)]

    def running(self) -> dict[int, Mapping[str, str]]:
        """Environment of each living process that is theirs, by its id."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                pairs = (folder / "environ").read_text().split("\0")
                variables = dict(pair.partition("=")[::2] for pair in pairs)
                if variables.get(_MARK) == self._mark:
                    found[int(folder.name)] = variables
        return found

    def end(self) -> None:
        """Kill all that still lives."""
        for pid in self.running():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process, _ in self._started:
            process.wait()


@contextmanager
def commands(folder: Path) -> Iterator[Commands]:
    """Processes that end with the context."""
    folder.mkdir(exist_ok=True, parents=True)
    started = Commands(folder)
    try:
        yield started
    finally:
        started.end()


def start_hosts(started: Commands, hosts: int, per_host: int, command: Sequence[str], restarts: int = 0) -> None:
    """Start the agents of torchrun, which find each other at a port.

    A store that all attempts have in common would show the processes of one the addresses of those before.
    """
    port = free_port()
    agent = [
        *("-m", "torch.distributed.run", "--nnodes", str(hosts), "--nproc-per-node", str(per_host)),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", started.folder.name),
        *("--local-addr", "127.0.0.1", "--max-restarts", str(restarts), "--monitor-interval", "0.2"),
    ]
    for _ in range(hosts):
        started.start(*agent, "-m", *command, TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1")
