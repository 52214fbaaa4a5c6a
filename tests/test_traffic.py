"""Bytes that processes give each other: the formulas of the documentation, at other sizes than those of the record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from benchmarks import traffic
from benchmarks.record import RESULTS
from benchmarks.traffic_rows import ROWS, Setting
from tests.distributed import Pool

OTHER = Setting(samples=24, batch=6, classes=4, features=7)
FEW = ['`MaskRefresh(score="obd")`', "`SELC`", "`SELC`, in shards", "`CoTeaching`"]
MOST = 1000
"""Bytes of sums and counts in an epoch, however many samples there are."""


def measured(rank: int, names: list[str]) -> list[dict[str, Any]]:
    return [traffic.measure(name, OTHER) for name in names]


def check(pool: Pool, names: list[str]) -> None:
    first, second = pool.run(measured, names, timeout=600.0)
    for one, other in zip(first, second, strict=True):
        assert one == other
        assert one["step"] == one["step_expected"], one
        assert 0 <= one["epoch"] - one["rows_expected"] < MOST, one


def test_traffic_is_what_the_formulas_say(pool: Pool) -> None:
    check(pool, FEW)


@pytest.mark.slow
def test_traffic_of_everything_is_what_the_formulas_say(pool: Pool) -> None:
    check(pool, [name for name in ROWS if name not in FEW])


def lost(rank: int) -> dict[str, int]:
    """Calls that are none of the package's."""
    with traffic.counted() as seen:
        dist.barrier()
        dist.all_gather_object([None, None], "who has asked for this?")
    return dict(seen)


def test_what_others_exchange_is_left_out(pool: Pool) -> None:
    assert pool.run(lost) == [{}, {}]


def test_documented_table_is_that_of_the_record() -> None:
    record = json.loads((RESULTS / "traffic.json").read_text())
    assert [row["name"] for row in record["rows"]] == list(ROWS)
    assert all(row["step"] == row["step_expected"] for row in record["rows"])
    assert all(0 <= row["epoch"] - row["rows_expected"] < MOST for row in record["rows"])
    page = (Path(__file__).parents[1] / "docs" / "several_gpus.md").read_text()
    assert traffic.table(record) in page
