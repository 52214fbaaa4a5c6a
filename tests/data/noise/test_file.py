import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_noisy.data.labeled_images import LabeledImages
from lightning_noisy.data.noise import FileNoise, read_labels
from lightning_noisy.errors import NoisyLabelError

LABELS = [3, 1, 0, 2]
CLEAN = torch.tensor([3, 1, 2, 2])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "<i8", ">i8", "uint64"])
def test_labels_of_every_integer_type_are_read(tmp_path, dtype):
    labels = np.array(LABELS, dtype=dtype)
    np.save(tmp_path / "labels.npy", labels)
    np.savez(tmp_path / "one.npz", labels)
    np.savez_compressed(tmp_path / "two.npz", clean=CLEAN.numpy(), worse=labels)
    models = [
        FileNoise(tmp_path / "labels.npy"),
        FileNoise(str(tmp_path / "one.npz")),
        FileNoise(tmp_path / "one.npz", key="arr_0"),
        FileNoise(tmp_path / "two.npz", key="worse"),
    ]

    for noise in models:
        noisy = noise.corrupt(CLEAN, 4, 0)
        assert noisy.dtype == torch.int64
        assert noisy.tolist() == LABELS
        assert torch.equal(noise.corrupt(CLEAN, 4, 1), noisy)


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    np.save(tmp_path / "labels.npy", np.array(LABELS))

    assert FileNoise("~/labels.npy").corrupt(CLEAN, 4, 0).tolist() == LABELS


@pytest.mark.parametrize("path", ["labels.pt", "labels", "labels.npy.gz", "labels.csv"])
def test_another_suffix_is_refused_at_once(path):
    with pytest.raises(NoisyLabelError) as error:
        FileNoise(path)
    assert str(error.value) == f"Expected argument `path` to be a .npy or .npz file, but got {path!r}."


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (np.array([3.0, 1, 0, 2]), r"integer labels, but got dtype float64: .*astype"),
        (np.array([3, 1, 0, 2], dtype=np.float16), r"integer labels, but got dtype float16: "),
        (np.array([True, False, True, True]), r"integer labels, but got dtype bool: "),
        (np.array(["a", "b", "c", "d"]), r"integer labels, but got dtype <U1: "),
        (np.array([1, 2, 3, 0], dtype="m8[s]"), r"integer labels, but got dtype timedelta64\[s\]: "),
        (np.array([3, 1, 0]), r"labels, one per training sample, shape \(4,\), but got shape \(3,\): "),
        (np.eye(4, dtype=np.int64), r"labels, one per training sample, shape \(4,\), but got shape \(4, 4\): "),
        (np.array(3), r"labels, one per training sample, shape \(4,\), but got shape \(\): "),
        (np.array([3, 1, 4, 2]), r"labels in \[0, 4\), but got 4 at position 2: .*`num_classes`"),
        (np.array([3, -1, 0, 2]), r"labels in \[0, 4\), but got -1 at position 1: "),
        (np.array([3, 1, 0, 2**64 - 1], dtype=np.uint64), r"but got 18446744073709551615 at position 3: "),
        (np.array([3, 1, 0, None], dtype=object), r"a plain array of numbers, but got 'Object arrays .*`np\.save"),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_file_without_such_labels_is_refused(tmp_path, labels, match, suffix):
    path = tmp_path / f"labels{suffix}"
    (np.save if suffix == ".npy" else np.savez)(path, labels)

    refused(FileNoise(path), match)


def refused(noise, match):
    with pytest.raises(NoisyLabelError, match=match) as error:
        noise.corrupt(CLEAN, 4, 0)
    message = str(error.value)
    assert message.startswith(f"Expected the file '{noise.path}' to hold ")
    assert "\n" not in message


def test_a_missing_file_is_refused(tmp_path):
    refused(FileNoise(tmp_path / "labels.npy"), r"labels, but got no such file: check `path`")
    (tmp_path / "folder.npy").mkdir()
    refused(FileNoise(tmp_path / "folder.npy"), "no such file")


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize(
    "content", [b"", b"0\n1\n2\n", pickle.dumps([3, 1, 0, 2]), b"PK\x03\x04 cut", b"\x93NUMPY\x01\x00"]
)
def test_a_file_that_is_no_array_is_refused(tmp_path, content, suffix):
    path = tmp_path / f"labels{suffix}"
    path.write_bytes(content)

    refused(FileNoise(path), r"a plain array of numbers, but got '.+': save numbers with `np\.save` or `np\.savez`")


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_archive_is_refused(tmp_path, damage):
    path = tmp_path / "labels.npz"
    np.savez_compressed(path, np.arange(4000) % 4)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    else:
        for place in range(60, 90):
            content[place] ^= 0xFF
    path.write_bytes(content)

    refused(FileNoise(path), "a plain array of numbers, but got '")


def test_a_key_that_does_not_fit_is_refused(tmp_path):
    np.save(tmp_path / "labels.npy", np.array(LABELS))
    np.savez(tmp_path / "labels.npz", clean=LABELS, worse=LABELS)
    np.savez(tmp_path / "none.npz")

    refused(FileNoise(tmp_path / "labels.npy", "worse"), "an array named 'worse', but got a single array .* leave out")
    refused(FileNoise(tmp_path / "labels.npz"), "one array, but got 'clean', 'worse': set `key`")
    refused(FileNoise(tmp_path / "labels.npz", "aggre"), "an array named 'aggre', but got 'clean', 'worse': set `key`")
    refused(FileNoise(tmp_path / "none.npz"), "one array, but got no array: ")


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int64"])
def test_labels_are_read_without_a_number_of_classes(tmp_path, dtype):
    np.savez(tmp_path / "labels.npz", clean=np.array(LABELS, dtype=dtype))

    assert read_labels(tmp_path / "labels.npz", "clean", 4).tolist() == LABELS
    with pytest.raises(NoisyLabelError, match=r"shape \(5,\), but got shape \(4,\): "):
        read_labels(tmp_path / "labels.npz", None, 5)


def test_a_file_describes_itself_by_its_path():
    assert FileNoise(Path("labels.npz"), "worse").describe() == {
        "class": "FileNoise",
        "path": "labels.npz",
        "key": "worse",
    }
    assert FileNoise("labels.npy").rate is None


def test_only_labels_that_the_data_still_have_were_corrected(tmp_path):
    """Noise was injected into others: then those of the data are right, whatever classes the file has."""
    path, images = tmp_path / "suggested_labels.npz", LabeledImages.in_memory(torch.zeros(3, 2), torch.zeros(3).long())
    own = torch.tensor([0, 1, 0])
    for given, corrects in ([0, 1, 0], True), ([0, 2, 0], False), (None, False):
        known = {} if given is None else {"given": np.array(given)}
        np.savez(path, labels=np.array([0, 1, 1]), row=np.arange(3), **known)
        noise = FileNoise(path)
        assert noise.corrects(images, own) is corrects
        assert noise.corrupt_images(images, own, 3, 0).tolist() == [0, 1, 1]
