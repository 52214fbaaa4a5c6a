"""Everything about speed on one machine: each claim measured in a process of its own, beside its target.

    python -m benchmarks.speed --device cuda
    OMP_NUM_THREADS=1 python -m benchmarks.speed --device cpu --only heads "host time"

Writes one record, ``benchmarks/results/speed-<device>.json``, after each claim, and the table beside it. A claim that
stands there is measured anew and replaced. One that fails leaves its last line in the record and the others go on; the
command then ends with 1. ``--toy`` goes through all of it in small, with what a GPU would have (bfloat16, channels
last, samples made where the batch goes), and records nothing but where ``--results`` says.

On a CPU claims run on one thread, since only then they compare; times are the processor's where parts of a step are
measured, and those of the clock where whole trainings are, so the machine has to be quiet. On a GPU times are the
device's own, after a warm-up.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.heads import TARGETS as HEAD_TARGETS
from benchmarks.host_time import FULL, OURS
from benchmarks.host_time import TARGETS as HOST_TARGETS
from benchmarks.record import RESULTS, ROOT, describe_machine, read_record, write_record, write_table
from benchmarks.speed_claims import CLAIMS


@dataclass(frozen=True)
class Target:
    """What a figure should be."""

    claim: str
    figure: str
    limit: float
    at_least: bool = False
    device: str | None = None
    """The only one on which it is asked for."""

    def met(self, value: float) -> bool:
        """Whether a figure reaches it."""
        return value >= self.limit if self.at_least else value <= self.limit


NONE = 0.05
"""The share of the time between steps that counts as no wait."""
FLAT = 1.1
"""Most that 128 times as many samples may cost."""
_HEADS = {"compiled": "compiled heads"}
TARGETS = [
    *(
        Target(_HEADS.get(section, "heads"), f"{section}, {classes} classes, {name}", limit, device="cpu")
        for section, variants in HEAD_TARGETS.items()
        for name, limits in variants.items()
        for classes, limit in limits.items()
    ),
    *(
        Target("head memory", f"{section}, {classes} classes, {name}: largest tensor", 0.99)
        for section, name in (("linear", "std, every step"), ("kan", "KANHead"), ("kan", "std, every step"))
        for classes in (10, 100, 1000)
    ),
    *(Target("host time", f"{name}: ms beyond plain", limit) for name, limit in HOST_TARGETS.items()),
    Target("host time", f"{OURS} / plain", 1.2),
    Target("host time", f"{FULL} / plain", 1.8),
    Target("host time", "ms beyond plain: most samples / fewest", FLAT),
    *(Target("MLP step", f"MLP, {name} / {name} by hand", 1.0) for name in ("ELR", "SELC", "DAL")),
    *(Target("CNN step", f"CNN8, {name} / {name} by hand", 1.03) for name in ("CE", "ELR", "SELC", "DAL")),
    Target("epoch", "ResNet-18: s an epoch", 1.5, device="cuda"),
    Target("epoch", "CNN8: s an epoch", 1.0, device="cuda"),
    *(Target("epoch", f"{name}: share between steps", NONE) for name in ("ResNet-18", "CNN8")),
    *(
        Target("overhead", f"{name}, {variant} / linear", 1.03)
        for name in ("ResNet-18", "CNN8")
        for variant in ("masked", "KAN", "masked KAN")
    ),
    Target("cell", "dcm/cifar10/anl-dfc: minutes of 120 epochs", 4.0, device="cuda"),
    Target("callbacks", "all callbacks: share of a step", 0.03),
    Target("loader", "a weak view: images/s", 33_000, at_least=True, device="cuda"),
    *(Target("rows", f"{kind}: most samples / fewest", FLAT) for kind in ("float32", "float16", "float16, 64 largest")),
]
"""For one thread of a CPU, and one GPU of the H200's class."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the claims asked for, and show all that the record has.

    Raises:
        SystemExit: A claim has failed.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--only", nargs="+", choices=CLAIMS, metavar="CLAIM", help=", ".join(CLAIMS))
    parser.add_argument("--toy", action="store_true", help="in small, to see that all of it runs")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--claim", choices=CLAIMS, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.claim:
        figures = CLAIMS[given.claim].run(given.device, given.toy)
        rounded = {name: float(f"{value:.5g}") for name, value in figures.items()}
        write_record(given.results, {"machine": machine(given.device), "figures": rounded})
        return
    claims = given.only or [name for name, claim in CLAIMS.items() if given.device in claim.devices]
    results = given.results or (None if given.toy else RESULTS / f"speed-{given.device}.json")
    record = {"claims": {}, **(read_record(results) if results else {})}
    for claim in claims:
        record["claims"][claim] = alone(claim, given.device, given.toy)
        print(table({"claims": {claim: record["claims"][claim]}}, given.device), flush=True)
        if results:
            write_record(results, record)
            write_table(results, table(record, given.device))
    if any("error" in record["claims"][claim] for claim in claims):
        sys.exit(1)


def alone(claim: str, device: str, toy: bool) -> dict[str, Any]:
    """What a process of its own finds, or the line with which it ends."""
    began, threads = time.perf_counter(), {"OMP_NUM_THREADS": "1"} if device == "cpu" else {}
    with TemporaryDirectory() as folder:
        found = Path(folder, "figures.json")
        command = [sys.executable, "-m", "benchmarks.speed", "--device", device, "--claim", claim]
        command += ["--results", str(found), *(["--toy"] if toy else [])]
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **threads}, capture_output=True, text=True, check=False
        )
        seen = read_record(found)
    if done.returncode != 0:
        print(done.stderr, file=sys.stderr)
        seen = {"error": (done.stderr.splitlines() or ["killed"])[-1]}
    return {"seconds": round(time.perf_counter() - began, 1), **seen}


def machine(device: str) -> dict[str, Any]:
    """What the figures depend on."""
    gpu = {"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}
    return {**describe_machine(), **gpu}


def table(record: dict[str, Any], device: str) -> str:
    """Figures beside their targets, as Markdown; those without a target at the end of their claim."""
    lines = ["| claim | figure | measured | target | |", "|---|---|---|---|---|"]
    for claim, seen in record["claims"].items():
        targets = {target.figure: target for target in asked(claim, device)}
        figures = seen.get("figures", {})
        if "error" in seen:
            lines.append(f"| {claim} | failed: {seen['error']} | none | none | **failed** |")
        for name in sorted(figures, key=lambda name: name not in targets):
            lines.append(f"| {claim} | {name} | {figures[name]:.4g} | {_verdict(targets.get(name), figures[name])} |")
    return "\n".join(lines) + "\n"


def asked(claim: str, device: str) -> list[Target]:
    """The targets of a claim on a device."""
    return [target for target in TARGETS if target.claim == claim and target.device in (None, device)]


def _verdict(target: Target | None, value: float) -> str:
    if target is None:
        return "none | none"
    bound = f"{'≥' if target.at_least else '≤'} {target.limit:,g}"
    return f"{bound} | {'met' if target.met(value) else '**missed**'}"


if __name__ == "__main__":
    main()
