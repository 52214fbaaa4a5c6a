"""A checkpoint is whole or the one before, whatever breaks while it is written."""

import errno
import os
import pickle
import signal
import warnings
from pathlib import Path

import fsspec
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_noisy.checkpoints import AtomicCheckpointIO
from lightning_noisy.checkpoints.io import load_whole
from tests.foreign import ForeignModule, make_loader, make_tensors, make_trainer

IO = AtomicCheckpointIO()


def content(value):
    return {"value": torch.full((5000,), value)}


def load(path):
    return IO.load_checkpoint(path)["value"][0].item()


@pytest.fixture
def last(tmp_path):
    """``last.ckpt`` with 2, and 1 before it."""
    path = tmp_path / "last.ckpt"
    IO.save_checkpoint(content(1.0), path)
    IO.save_checkpoint(content(2.0), path)
    return path


def files(path):
    return sorted(found.name for found in path.parent.iterdir())


def half(then):
    """``torch.save`` that writes a part, and then fails."""

    def save(checkpoint, file):
        file.write(b"PK\x03\x04" + bytes(5000))
        then()

    return save


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_the_one_before_is_kept(last):
    assert (load(last), load(last.with_name("last.previous.ckpt"))) == (2.0, 1.0)
    IO.save_checkpoint(content(3.0), last)
    assert (load(last), load(last.with_name("last.previous.ckpt"))) == (3.0, 2.0)
    IO.save_checkpoint(content(4.0), last.with_name("epoch=1.ckpt"))
    IO.save_checkpoint(content(5.0), last.with_name("epoch=1.ckpt"))
    assert files(last) == ["epoch=1.ckpt", "last.ckpt", "last.previous.ckpt"]
    IO.remove_checkpoint(last)
    assert files(last) == ["epoch=1.ckpt"]


@pytest.mark.parametrize(("broken", "function"), [("torch.save", half(full_disk)), ("os.fsync", full_disk)])
def test_a_write_that_fails_leaves_what_was_there(last, monkeypatch, broken, function):
    monkeypatch.setattr(broken, function)
    with pytest.raises(OSError, match="No space"):
        IO.save_checkpoint(content(3.0), last)
    assert load(last) == 2.0
    assert files(last) == ["last.ckpt", "last.previous.ckpt"]


@pytest.mark.parametrize("place", ["torch.save", "os.fsync", "os.link", "pathlib.Path.replace"])
def test_a_process_that_dies_leaves_what_was_there(last, monkeypatch, place):
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(place, half(lambda: os._exit(0)) if place == "torch.save" else lambda *_: os._exit(0))
        signal.alarm(20)
        IO.save_checkpoint(content(3.0), last)
    assert os.waitpid(child, 0)[1] == 0
    assert load(last) == 2.0
    IO.save_checkpoint(content(4.0), last)
    assert (load(last), load(last.with_name("last.previous.ckpt"))) == (4.0, 2.0)
    assert [name for name in files(last) if "last.ckpt" in name] == ["last.ckpt"]


def test_a_file_system_without_hard_links(last, monkeypatch):
    monkeypatch.setattr("os.link", full_disk)
    IO.save_checkpoint(content(3.0), last)
    assert (load(last), load(last.with_name("last.previous.ckpt"))) == (3.0, 2.0)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "gone"])
def test_a_broken_last_checkpoint_falls_back_to_the_one_before(last, damage):
    whole = last.read_bytes()
    if damage == "gone":
        last.unlink()
    else:
        last.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"not a checkpoint"}[damage])
    said = r"last\.ckpt (cannot be read|is not there).*last\.previous\.ckpt, the .* is loaded"
    with pytest.warns(UserWarning, match=said):
        assert load(last) == 1.0
    IO.save_checkpoint(content(3.0), last)  # the broken one is not kept in place of the whole one
    assert load(last.with_name("last.previous.ckpt")) == 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(last) == 3.0


def test_a_run_goes_on_from_the_checkpoint_before(tmp_path):
    def fit(max_epochs, ckpt_path=None):
        checkpoint = ModelCheckpoint(tmp_path / "kept", save_last=True)
        trainer = make_trainer(tmp_path, [checkpoint], max_epochs, enable_checkpointing=True, plugins=[IO])
        trainer.fit(ForeignModule(), loader, ckpt_path=ckpt_path)
        return trainer

    x, noisy, _ = make_tensors()
    loader = make_loader(torch.utils.data.TensorDataset(x, noisy, torch.arange(24)))
    fit(2)
    path = tmp_path / "kept" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="is loaded in its place"):
        trainer = fit(3, path)
    assert trainer.global_step == 9
    path.write_bytes(b"")
    with pytest.warns(UserWarning, match="is loaded in its place"):
        assert fit(4, "last").global_step == 12


def test_code_runs_only_where_a_file_is_trusted(last, tmp_path, monkeypatch):
    class Runs:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    torch.save({"state": Runs()}, last.with_name("code.ckpt"))
    for load in (IO.load_checkpoint, load_whole):
        with pytest.raises(pickle.UnpicklingError):
            load(last.with_name("code.ckpt"))
    monkeypatch.setattr(
        torch.serialization, "_default_to_weights_only", lambda *_: False, raising=False
    )  # as torch before 2.6
    with pytest.raises(pickle.UnpicklingError):
        IO.load_checkpoint(last.with_name("code.ckpt"))
    assert not (tmp_path / "ran").exists()
    IO.load_checkpoint(last.with_name("code.ckpt"), weights_only=False)
    assert (tmp_path / "ran").exists()


def test_a_path_of_another_file_system_is_lightnings():
    IO.save_checkpoint(content(1.0), "memory://folder/last.ckpt")
    IO.save_checkpoint(content(2.0), "memory://folder/last.ckpt")
    assert load("memory://folder/last.ckpt") == 2.0
    assert [Path(name).name for name in fsspec.filesystem("memory").ls("/folder", detail=False)] == ["last.ckpt"]
    with pytest.raises(TypeError, match="storage_options"):
        IO.save_checkpoint(content(1.0), "nowhere.ckpt", storage_options={})
    assert not Path("nowhere.ckpt").exists()
