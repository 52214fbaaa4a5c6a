"""How much memory a large store takes while it is saved and loaded, asked of the operating system."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLES, CLASSES = 1_000_000, 512
TABLE = 2 * SAMPLES * CLASSES

PROGRAM = """
import resource, sys, torch, warnings
warnings.simplefilter("ignore")
from torch.utils.data import DataLoader, TensorDataset
from lightning_noisy import Storage
from lightning_noisy.callbacks import SELC
from lightning_noisy.checkpoints import AtomicCheckpointIO
from lightning_noisy.data import IndexedDataset
from tests.foreign import ForeignModule, make_trainer

folder, resume, samples, classes = sys.argv[1], sys.argv[2] or None, int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(1)

def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def fit(samples, classes, epochs, path, resume=None):
    train_set = IndexedDataset(TensorDataset(torch.zeros(samples, 1), torch.zeros(samples, dtype=torch.int64)))
    selc = SELC(storage=Storage("float16"))
    trainer = make_trainer(folder, [selc], epochs, limit_train_batches=2, plugins=[AtomicCheckpointIO()])
    module = ForeignModule(num_features=1, num_classes=classes)
    trainer.fit(module, DataLoader(train_set, batch_size=64), ckpt_path=resume)
    trainer.save_checkpoint(path)
    return selc.section.stores["target"]

fit(200, 3, 1, folder + "/small.ckpt")
fit(200, 3, 2, folder + "/small.ckpt", folder + "/small.ckpt")
before = peak()
store = fit(samples, classes, 2 if resume else 1, folder + ("/again.ckpt" if resume else "/large.ckpt"), resume)
assert store.get(torch.tensor([0])).sum() > 0.99
print(peak() - before)
"""


def growth(folder: Path, resume: str = "") -> int:
    """Bytes by which the peak of a process grows that makes a million rows, or loads them, and saves them."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), resume, str(SAMPLES), str(CLASSES)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_million_rows_are_saved_and_loaded_without_a_second_copy(tmp_path: Path) -> None:
    data = SAMPLES * (4 + 8 + 16)  # features, labels, and what is made of them
    assert growth(tmp_path) <= 1.05 * TABLE + data
    assert (tmp_path / "large.ckpt").stat().st_size < 1.01 * TABLE
    assert growth(tmp_path, str(tmp_path / "large.ckpt")) <= 1.05 * TABLE + data
