import pickle
import zipfile

import numpy as np
import pytest
import torch

from lightning_noisy.data.array_file import ArrayFile
from lightning_noisy.errors import NoisyLabelError


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def refused(path, match, **names):
    with pytest.raises(NoisyLabelError, match=match) as error, ArrayFile(str(path), **names).open("features") as arrays:
        {name: arrays[name] for name in arrays}
    assert str(error.value).startswith(f"Expected the file '{path}' to hold ")
    assert "\n" not in str(error.value)


def contents(path):
    with ArrayFile(str(path)).open("features") as arrays:
        return {name: (arrays[name].dtype.name, arrays[name].tolist()) for name in arrays}


def test_each_kind_gives_its_arrays_by_name(tmp_path):
    x, y = np.array([[1.5, -2.0]], dtype=np.float16), np.array([3], dtype=np.uint8)
    np.savez_compressed(tmp_path / "a.npz", x=x, y=y)
    np.save(tmp_path / "a.NPY", x)
    (tmp_path / "a.NPY.npy").rename(tmp_path / "a.NPY")
    torch.save({"x": torch.from_numpy(x), "y": torch.from_numpy(y)}, tmp_path / "a.pt")

    both = {"x": ("float16", [[1.5, -2.0]]), "y": ("uint8", [3])}
    assert contents(tmp_path / "a.npz") == contents(tmp_path / "a.pt") == both
    assert contents(tmp_path / "a.NPY") == {None: both["x"]}


def test_tensors_that_numpy_does_not_know_as_they_are(tmp_path):
    brain = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    trained = torch.nn.Parameter(torch.tensor([3.0]))
    content = {"brain": brain, "trained": trained, "names": ["a", "b"], "epoch": 3}
    torch.save(content, tmp_path / "a.pt")

    assert contents(tmp_path / "a.pt") == {"brain": ("float32", [1.5, -2.0]), "trained": ("float32", [3.0])}


def test_arrays_are_read_when_asked_for(tmp_path):
    np.savez(tmp_path / "a.npz", y=np.array([1, 2]), names=np.array(["a", None], dtype=object))

    with ArrayFile(str(tmp_path / "a.npz")).open("features") as arrays:
        assert arrays["y"].tolist() == [1, 2]
    refused(tmp_path / "a.npz", "a plain array of numbers, but got 'Object arrays cannot be loaded")


@pytest.mark.parametrize("suffix", ["npy", "npz", "pt"])
def test_nothing_in_a_file_is_run(tmp_path, suffix):
    path, trace = tmp_path / f"a.{suffix}", tmp_path / "trace"
    trapped = np.array([Trap(trace)], dtype=object)
    if suffix == "pt":
        torch.save({"x": Trap(trace)}, path)
    else:
        (np.save if suffix == "npy" else np.savez)(path, trapped)

    refused(path, "a dict of tensors, but got '" if suffix == "pt" else "a plain array of numbers, but got 'Object")
    assert not trace.exists()


@pytest.mark.parametrize("suffix", ["npy", "npz", "pt"])
@pytest.mark.parametrize("content", [b"", b"0\n1\n", pickle.dumps([3, 1]), b"PK\x03\x04 cut", b"\x93NUMPY\x01\x00"])
def test_a_file_that_is_something_else_is_refused(tmp_path, content, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)

    wanted = r"a dict of tensors, .*`torch\.save`" if suffix == "pt" else r"a plain array of numbers, .*`np\.savez`"
    refused(path, wanted)


@pytest.mark.parametrize("content", [torch.zeros(3), [torch.zeros(3)], 3])
def test_other_content_of_torch_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")

    refused(tmp_path / "a.pt", f"a dict of tensors, but got 'a {type(content).__name__}': save nothing but tensors")


def test_a_cut_file_of_torch_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"x": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])

    refused(path, "a dict of tensors, but got '")


def test_a_member_that_is_no_array_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=[1])
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("y", b"no array")
    file = ArrayFile(str(tmp_path / "a.npz"))
    assert file.pick("x").tolist() == [1]
    with pytest.raises(NoisyLabelError, match="array of numbers, but got '`y`, which is no array': save numbers"):
        file.pick("y")


@pytest.mark.parametrize("shape", ["(1099511627776, 4096)", "(9223372036854775808,)", "(-1,)"])
def test_a_header_that_claims_too_much_is_refused(tmp_path, shape):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    bomb = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    (tmp_path / "a.npy").write_bytes(bomb)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", bomb)
    refused(tmp_path / "a.npy", "a plain array of numbers, but got '")
    refused(tmp_path / "a.npz", "a plain array of numbers, but got '")


def test_a_missing_file_is_refused_under_the_name_of_its_argument(tmp_path):
    refused(tmp_path / "a.npz", "features, but got no such file: check `path`, relative")
    refused(tmp_path / "a.pt", "features, but got no such file: check `test_path`", argument="test_path")


def test_messages_name_the_argument_of_the_key(tmp_path):
    np.savez(tmp_path / "a.npz", first=[0], second=[1])
    np.save(tmp_path / "a.npy", [0])

    with pytest.raises(NoisyLabelError, match="one array, but got 'first', 'second': set `labels_key` to the labels'"):
        ArrayFile(str(tmp_path / "a.npz"), "labels", "labels_key").pick(None)
    with pytest.raises(NoisyLabelError, match="but got a single array without a name: leave out `labels_key`"):
        ArrayFile(str(tmp_path / "a.npy"), "labels", "labels_key").pick("first")
    assert ArrayFile(str(tmp_path / "a.npz")).pick("second").tolist() == [1]
    assert ArrayFile(str(tmp_path / "a.npy")).pick(None).tolist() == [0]


@pytest.mark.parametrize("dtype", ["uint8", "int16", ">i4", "uint64"])
def test_labels_become_int64(dtype):
    labels = ArrayFile("a.npz").labels(np.array([2, 0, 1], dtype=dtype), 3, 3)

    assert labels.dtype == torch.int64
    assert labels.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("array", "num_classes", "message"),
    [
        (np.array([0, 1]), 3, "labels `y`, one per row of `x`, shape (3,), but got shape (2,): take the labels of"),
        (np.array([[0], [1], [2]]), 3, "labels `y`, one per row of `x`, shape (3,), but got shape (3, 1): "),
        (np.array([0.0, 1.0, 2.0]), 3, "integer labels `y`, but got dtype float64: save them with `.astype(np.int64)`"),
        (np.array([True, False, True]), 3, "integer labels `y`, but got dtype bool: "),
        (np.array([0, 3, 4]), 3, "labels `y` in [0, 3), but got 3 at position 1: check `num_classes`"),
        (np.array([0, 1, -2]), 3, "labels `y` in [0, 3), but got -2 at position 2: "),
        (np.array([0, 1, -2]), None, "labels `y` from 0 on, but got -2 at position 2: "),
        (
            np.array([2**64 - 1, 0, 0], dtype=np.uint64),
            None,
            "labels `y` from 0 on, but got 18446744",
        ),
    ],
)
def test_arrays_that_are_no_labels_are_refused(array, num_classes, message):
    with pytest.raises(NoisyLabelError) as error:
        ArrayFile("a.npz").labels(array, 3, num_classes, "labels `y`", "row of `x`")
    assert str(error.value).startswith(f"Expected the file 'a.npz' to hold {message}")


def test_without_a_number_of_classes_there_is_no_upper_bound():
    assert ArrayFile("a.npz").labels(np.array([10**9]), 1, None).tolist() == [10**9]
