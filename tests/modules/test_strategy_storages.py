"""Strategies whose own rows are kept in other ways, against plain ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_noisy import NoisyLabelError, Storage, modules
from lightning_noisy.callbacks import StepSeed
from lightning_noisy.state import saved_rows
from tests.distributed import Pool
from tests.foreign import make_trainer
from tests.modules.strategies import STRATEGIES, make_data, make_strategy
from tests.small import NUM_CLASSES, assert_same

K = NUM_CLASSES
LOSSLESS = {"top_k": K - 1, "sharded": True}  # the mass outside is then one entry; a single process has all shards
BYTES: dict[str, tuple[int, dict[str, Any]]] = {
    # bytes a sample, as docs/scaling.md has them, and what loses nothing beside a file
    "DISC": (8 * K + 24, LOSSLESS),
    "SPRL": (4 * K + 5, {"top_k": K - 1}),
    "CoLDL": (8 * K, {"sharded": True}),
    "GSSDual": (8 * K + 16, LOSSLESS),
    "ELRPlus": (8 * K, {"top_k": K - 1}),
    "SED": (16, {}),
    "SURE": (4, {}),
    "UNICON": (15, {}),
    "DivideMix": (27, {}),
    "GSSDivideMix": (8 * K + 27 + 24 + 36, {}),
}


def names(*quick: str, without: str = "") -> pytest.MarkDecorator:
    """All with rows of their own, of which these are not slow."""
    found = (name for name in BYTES if name != without)
    return pytest.mark.parametrize(
        "name", [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in found]
    )


def train(rank: int, name: str, storage: Storage, folder: str, processes: int = 1) -> dict[str, Any]:
    """Run by both processes of the pool, or here as the only one."""
    module = make_strategy(name, storage=storage)
    ddp: dict[str, Any] = {"devices": processes, "strategy": "ddp"} if processes > 1 else {}
    trainer = make_trainer(folder, [StepSeed(1)], max_epochs=3, **ddp)
    trainer.fit(module, datamodule=make_data(name, sharded=processes > 1, num_samples=46))  # 39 for training
    stores = module.section.stores
    return {
        "weights": dict(module.state_dict()),
        "rows": {store: kept.rows() for store, kept in stores.items()},
        "bytes": sum(kept.nbytes for kept in stores.values()) / len(next(iter(stores.values())).values),
        "dtypes": {store: kept.values.dtype for store, kept in stores.items()},
    }


@names("DISC", "SPRL", "CoLDL")
def test_files_shards_and_all_entries_but_one_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Also where samples are looked at in small chunks."""
    size, lossless = BYTES[name]
    plain = train(0, name, Storage(), str(tmp_path))
    assert plain["bytes"] == size
    assert all(rows.any() for rows in plain["rows"].values())
    monkeypatch.setattr(saved_rows, "CHUNK_BYTES", 100)
    kept = train(0, name, Storage(folder=str(tmp_path / "rows"), **lossless), str(tmp_path))
    for part in ("weights", "rows"):
        assert_same(kept[part], plain[part])


@names(without="SURE")  # refuses it
def test_half_precision_rounds_all_rows_but_thresholds(tmp_path: Path, name: str) -> None:
    exact = {"DISC": {"weak threshold", "strong threshold"}, "SPRL": {"given"}}.get(name, set())
    half = train(0, name, Storage("float16"), str(tmp_path))
    floats = {store: dtype for store, dtype in half["dtypes"].items() if dtype.is_floating_point}
    assert floats == {store: torch.float32 if store in exact else torch.float16 for store in floats}
    assert all(rows.isfinite().all() for rows in half["rows"].values())
    if name in ("CoLDL", "ELRPlus", "GSSDual"):  # the others choose by thresholds
        plain = train(0, name, Storage(), str(tmp_path))
        torch.testing.assert_close(half["weights"], plain["weights"], rtol=0.02, atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, (_, lossless) in BYTES.items() if "sharded" in lossless])
def test_shards_of_two_processes_hold_what_all_would(pool: Pool, tmp_path: Path, name: str) -> None:
    whole, own = (pool.run(train, name, Storage(sharded=sharded), str(tmp_path), 2) for sharded in (False, True))
    for rank in range(2):
        assert_same(own[rank]["weights"], whole[rank]["weights"])
        assert_same(own[rank]["rows"], {store: rows[rank::2] for store, rows in whole[rank]["rows"].items()})


CHOICES = {"dtype": "float16", "top_k": 2, "sharded": True, "folder": "rows"}


@pytest.mark.parametrize("name", STRATEGIES)
def test_what_a_strategy_cannot_live_with_is_refused_in_a_line(name: str) -> None:
    assert (set(getattr(modules, name).unfit_storage) == set(CHOICES)) == (name not in BYTES)
    for argument, why in getattr(modules, name).unfit_storage.items():
        with pytest.raises(NoisyLabelError) as error:
            make_strategy(name, storage=Storage(**{argument: CHOICES[argument]}))
        assert str(error.value).startswith(f"{name} cannot keep its rows with `{argument}=")
        assert f"since {why}: leave it out." in str(error.value)
