"""Two processes that stay for the whole test session, as torchrun would have launched them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from typing import Any

WORLD_SIZE = 2
_COLLECTIVE_SECONDS = 60
_GRACE_SECONDS = 5


class RemoteError(RuntimeError):
    """A function raised, or did not return, in one of the processes; the message has its traceback."""


class Pool:
    """Runs module-level functions ``function(rank, *args)`` in both processes of one gloo group.

    Processes start at the first call. After an error they are ended, since their group may wait for messages that never
    come, and the next call starts new ones.
    """

    def __init__(self) -> None:
        self._processes: list[Any] = []
        self._connections: list[Connection] = []
        self._store: Any = None

    def run(self, function: Callable[..., Any], *args: Any, timeout: float = 120.0) -> list[Any]:
        """The results of both ranks, in their order.

        Raises:
            RemoteError: The function raised on a rank, a process died, or ``timeout`` seconds have passed.
        """
        return self.start(function, *args)(timeout)

    def start(self, function: Callable[..., Any], *args: Any) -> Callable[..., list[Any]]:
        """Begin a call; the result is a function ``wait(timeout=120.0)``, so that this process can work meanwhile."""
        if not self._processes:
            self._spawn()
        message = pickle.dumps((function, args))
        for connection in self._connections:
            connection.send_bytes(message)
        return self._wait

    def close(self) -> None:
        """End both processes."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for connection in self._connections:
            connection.close()
        self._processes, self._connections, self._store = [], [], None

    def _spawn(self) -> None:
        from torch.distributed import TCPStore

        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["lightning_noisy"])  # what takes seconds is imported once
        # The port is taken from here on, as the agent of torchrun has it: nobody else can get it in between.
        self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        for rank in range(WORLD_SIZE):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(rank, self._store.port, there), daemon=True)
            process.start()
            there.close()
            self._processes.append(process)
            self._connections.append(here)

    def _wait(self, timeout: float = 120.0) -> list[Any]:
        results: dict[int, Any] = {}
        errors: dict[int, str] = {}
        deadline = time.monotonic() + timeout
        while len(results) + len(errors) < WORLD_SIZE and time.monotonic() < deadline:
            waiting = {self._connections[rank]: rank for rank in range(WORLD_SIZE) if rank not in {*results, *errors}}
            ready = wait(list(waiting), max(0.0, deadline - time.monotonic()))
            for connection in ready:
                rank = waiting[connection]  # type: ignore[index]
                try:
                    done, content = pickle.loads(connection.recv_bytes())  # type: ignore[union-attr]
                except EOFError:
                    done, content = False, f"process {rank} has died"
                if done:
                    results[rank] = content
                else:
                    errors[rank] = content
                    deadline = min(deadline, time.monotonic() + _GRACE_SECONDS)
        if len(results) < WORLD_SIZE:
            self.close()
            silent = [rank for rank in range(WORLD_SIZE) if rank not in {*results, *errors}]
            parts = [f"rank {rank}:\n{error}" for rank, error in sorted(errors.items())]
            parts += [f"rank {rank} did not return" for rank in silent]
            raise RemoteError("\n".join(parts))
        return [results[rank] for rank in range(WORLD_SIZE)]


def _serve(rank: int, port: int, connection: Connection) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        GROUP_RANK="0",
        WORLD_SIZE=str(WORLD_SIZE),
        LOCAL_WORLD_SIZE=str(WORLD_SIZE),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        TORCHELASTIC_RUN_ID="tests",
        TORCHELASTIC_USE_AGENT_STORE="True",
        TORCHELASTIC_RESTART_COUNT="0",
        OMP_NUM_THREADS="1",
    )
    import logging
    import warnings

    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    dist.init_process_group("gloo", timeout=timedelta(seconds=_COLLECTIVE_SECONDS))
    while True:
        try:
            message = connection.recv_bytes()
        except EOFError:
            return
        try:
            function, args = pickle.loads(message)
            answer = pickle.dumps((True, function(rank, *args)))
        except BaseException:
            answer = pickle.dumps((False, traceback.format_exc()))
        connection.send_bytes(answer)
