import json
import os
import stat
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_noisy.data import manifest as module
from lightning_noisy.data.manifest import build_manifest, show_transitions, write_manifest
from lightning_noisy.data.noise import AsymmetricNoise, FileNoise, OpenSetNoise, SymmetricNoise
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.functional.label_statistics import labels_hash

NOISE = SymmetricNoise(0.5)
CLEAN = torch.arange(1000) % 4
NOISY = NOISE.corrupt(CLEAN, 4, 3)
MANIFEST = build_manifest(CLEAN, NOISY, 4, NOISE, 3)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_manifest_counts_what_happened():
    pairs = list(zip(CLEAN.tolist(), NOISY.tolist(), strict=True))
    expected = {
        "noise": {"class": "SymmetricNoise", "rate": 0.5, "include_true_class": False, "exact": False},
        "seed": 3,
        "num_samples": 1000,
        "num_classes": 4,
        "class_names": None,
        "requested_rate": 0.5,
        "realized_rate": sum(i != j for i, j in pairs) / 1000,
        "transition_counts": [[pairs.count((i, j)) for j in range(4)] for i in range(4)],
        "backdoor": None,
        "sha256": labels_hash(NOISY),
    }

    assert build_manifest(CLEAN, NOISY, 4, NOISE, 3) == expected


@pytest.mark.parametrize(
    "noise", [NOISE, AsymmetricNoise(0.2, {0: 1}), OpenSetNoise(NOISE), FileNoise("labels.npy"), None]
)
@pytest.mark.parametrize("clean", [CLEAN, None])
def test_a_manifest_is_the_same_after_a_round_trip_through_json(noise, clean):
    manifest = build_manifest(clean, NOISY, 4, noise, -1)

    assert json.loads(json.dumps(manifest, allow_nan=False)) == manifest


def test_outsiders_have_rows_of_their_own():
    clean = CLEAN.clone()
    clean[:10] = 5
    manifest = build_manifest(clean, NOISY, 4, None, 0, num_clean_classes=6)

    counts = np.array(manifest["transition_counts"])
    assert counts.shape == (6, 4)
    assert counts[5].tolist() == np.bincount(NOISY[:10], minlength=4).tolist()
    assert manifest["num_classes"] == 4
    assert manifest["realized_rate"] == 1 - np.trace(counts) / 1000
    with pytest.raises(NoisyLabelError, match=r"`clean` to lie in \[0, 4\), but sample 0 has label 5 "):
        build_manifest(clean, NOISY, 4, None, 0)


def shown(folder, manifest, *loggers):
    show_transitions(SimpleNamespace(loggers=loggers, global_step=0), folder, manifest)


def test_transitions_are_shown_in_tensorboard_and_as_a_file(tmp_path):
    logger = TensorBoardLogger(tmp_path / "logs")
    shown(tmp_path, MANIFEST, CSVLogger(tmp_path / "csv"), logger)
    logger.finalize("success")

    assert (tmp_path / "figures" / "transition.png").read_bytes().startswith(b"\x89PNG")
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    assert events.Tags()["images"] == ["noise/transition"]
    assert [event.step for event in events.Images("noise/transition")] == [0]


def test_nothing_is_shown_where_nobody_knows_clean_labels(tmp_path):
    shown(tmp_path, build_manifest(None, NOISY, 4, None, 0))

    assert not contents(tmp_path)


def test_what_nobody_knows_is_none():
    manifest = build_manifest(None, NOISY, 4, None, 0)

    unknown = {name for name, value in manifest.items() if value is None}
    assert unknown == {"noise", "requested_rate", "realized_rate", "transition_counts", "backdoor", "class_names"}


@pytest.mark.parametrize(
    ("clean", "noisy", "num_classes", "match"),
    [
        (CLEAN, NOISY[:-1], 4, r"one shape \(N,\), but got \(1000,\) and \(999,\)\.$"),
        (CLEAN, NOISY + 1, 4, r"`noisy` to lie in \[0, 4\), but sample \d+ has label 4 "),
        (CLEAN - 1, NOISY, 4, r"`clean` to lie in \[0, 4\), but sample 0 has label -1 "),
        (None, NOISY.float(), 4, r"`noisy` to be an int64 tensor .* but got torch\.float32 of shape \(1000,\)\.$"),
        (None, NOISY, 1, r"`num_classes` to be an integer of at least 2, but got 1\.$"),
    ],
)
def test_labels_that_cannot_be_described_are_refused(clean, noisy, num_classes, match):
    with pytest.raises(NoisyLabelError, match=match):
        build_manifest(clean, noisy, num_classes, None, 0)


@pytest.mark.parametrize("clean", [CLEAN, None])
def test_written_evidence_reads_back(tmp_path, clean):
    folder = tmp_path / "runs" / "first"
    manifest = build_manifest(clean, NOISY, 4, NOISE, 3)

    write_manifest(folder, manifest, NOISY, clean)

    assert sorted(path.name for path in folder.iterdir()) == ["noise.json", "noisy_labels.npz"]
    assert json.loads((folder / "noise.json").read_text()) == manifest
    with np.load(folder / "noisy_labels.npz", allow_pickle=False) as archive:
        assert set(archive.files) == {"noisy"} | ({"clean"} if clean is not None else set())
        assert all(archive[name].dtype == np.int64 for name in archive.files)
        assert labels_hash(torch.from_numpy(archive["noisy"])) == manifest["sha256"]
        if clean is not None:
            assert np.array_equal(archive["clean"], clean.numpy())
    assert torch.equal(FileNoise(folder / "noisy_labels.npz", key="noisy").corrupt(CLEAN, 4, 0), NOISY)


def test_the_json_has_one_entry_a_line(tmp_path):
    write_manifest(str(tmp_path), MANIFEST, NOISY, CLEAN)

    assert len((tmp_path / "noise.json").read_text().splitlines()) == len(MANIFEST) + 2


def test_the_same_labels_give_the_same_bytes_and_new_ones_replace_them(tmp_path):
    write_manifest(tmp_path, MANIFEST, NOISY, CLEAN)
    first = contents(tmp_path)
    write_manifest(tmp_path, MANIFEST, NOISY, CLEAN)
    assert contents(tmp_path) == first

    other = NOISE.corrupt(CLEAN, 4, 4)
    write_manifest(tmp_path, build_manifest(CLEAN, other, 4, NOISE, 4), other, CLEAN)
    assert contents(tmp_path).keys() == first.keys()
    assert json.loads((tmp_path / "noise.json").read_text())["seed"] == 4
    assert np.array_equal(np.load(tmp_path / "noisy_labels.npz")["noisy"], other.numpy())


@pytest.mark.skipif(os.name != "posix", reason="permissions are posix's")
def test_files_have_the_permissions_of_any_other_file(tmp_path):
    (tmp_path / "plain").touch()
    write_manifest(tmp_path, MANIFEST, NOISY, CLEAN)

    assert len({stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}) == 1


class Interrupted(BaseException):
    """As abrupt as Ctrl-C."""


def half_written(file, **arrays):
    file.write(b"PK half")
    file.flush()
    raise Interrupted


def interrupted(*args, **kwargs):
    raise Interrupted


@pytest.mark.parametrize(
    ("owner", "name", "replacement"),
    [(np, "savez", half_written), (Path, "replace", interrupted), (module.os, "fsync", interrupted)],
)
@pytest.mark.parametrize("before", [True, False])
def test_an_interrupted_write_leaves_what_was_there(tmp_path, monkeypatch, owner, name, replacement, before):
    if before:
        write_manifest(tmp_path, MANIFEST, NOISY, CLEAN)
    old = contents(tmp_path)
    other = NOISE.corrupt(CLEAN, 4, 4)
    manifest = build_manifest(CLEAN, other, 4, NOISE, 4)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, replacement)
        with pytest.raises(Interrupted):
            write_manifest(tmp_path, manifest, other, CLEAN)
    assert contents(tmp_path) == old

    write_manifest(tmp_path, manifest, other, CLEAN)
    assert json.loads((tmp_path / "noise.json").read_text()) == manifest


def test_an_interruption_between_the_renames_shows_in_the_hash(tmp_path, monkeypatch):
    write_manifest(tmp_path, MANIFEST, NOISY, CLEAN)
    other, replace = NOISE.corrupt(CLEAN, 4, 4), Path.replace

    def fail_on_the_manifest(source, target):
        if str(target).endswith(".json"):
            raise Interrupted
        replace(source, target)

    monkeypatch.setattr(Path, "replace", fail_on_the_manifest)
    with pytest.raises(Interrupted):
        write_manifest(tmp_path, build_manifest(CLEAN, other, 4, NOISE, 4), other, CLEAN)

    assert contents(tmp_path).keys() == {"noise.json", "noisy_labels.npz"}
    assert json.loads((tmp_path / "noise.json").read_text()) == MANIFEST
    assert labels_hash(torch.from_numpy(np.load(tmp_path / "noisy_labels.npz")["noisy"])) != MANIFEST["sha256"]


def test_a_value_that_json_cannot_hold_leaves_what_was_there(tmp_path):
    write_manifest(tmp_path, MANIFEST, NOISY, CLEAN)
    old = contents(tmp_path)

    with pytest.raises(ValueError, match="JSON"):
        write_manifest(tmp_path, MANIFEST | {"extra": float("nan")}, NOISY, CLEAN)
    assert contents(tmp_path) == old


@pytest.mark.parametrize(("noisy", "clean"), [(NOISY.flip(0), CLEAN), (NOISY, None), (NOISY, NOISY)])
def test_a_manifest_of_other_labels_is_refused(tmp_path, noisy, clean):
    with pytest.raises(NoisyLabelError, match=r"^Expected argument `manifest` to describe the labels .*build_manifest"):
        write_manifest(tmp_path, MANIFEST, noisy, clean)
    assert not contents(tmp_path)
