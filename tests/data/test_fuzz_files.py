"""Files that are cut, bent, of another kind or of another shape: one line, or exactly what they say."""

import csv
import io
import pickle
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_noisy.data import CSVDataModule, FeaturesDataModule, FileNoise, TransitionNoise
from lightning_noisy.errors import NoisyLabelError
from tests._dummies import write_image

ROWS = 12
Y = np.arange(ROWS) % 3
X = np.linspace(-1, 1, ROWS * 4, dtype=np.float32).reshape(ROWS, 4)


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def archive(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        for name, content in members.items():
            zipped.writestr(name.replace("_npy", ".npy"), content)
    return file.getvalue()


def pt(value):
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def header(shape, descr="'<f8'", order="False"):
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


ARRAYS = {
    "float": Y.astype(float),
    "bool": Y > 0,
    "text": np.array(list("abc") * 4),
    "complex": Y.astype(complex),
    "date": Y.astype("datetime64[s]"),
    "records": np.array([(1, 2.0)] * ROWS, dtype=[("a", int), ("b", float)]),
    "objects": np.array([None] * ROWS, dtype=object),
    "scalar": np.int64(3),
    "empty": Y[:0],
    "column": Y[:, None],
    "short": Y[:-1],
    "long": np.append(Y, 0),
    "negative": np.where(Y == 2, -1, Y),
    "beyond": np.where(Y == 2, 3, Y),
    "huge": np.where(Y == 2, 2**62, Y),
    "unsigned": np.where(Y == 2, np.uint64(2**64 - 1), Y.astype(np.uint64)),
    "nan": np.where(Y == 2, np.nan, Y),
}
HEADERS = {
    "terabytes": header("(1099511627776, 4096)"),
    "overflow": header("(9223372036854775807, 9223372036854775807)"),
    "too many": header(str(tuple([1] * 100))),
    "negative": header("(-3,)"),
    "no shape": header("None"),
    "code": header("__import__('os').system('touch hacked')"),
    "cut": header("(12,)")[:40],
    "no data": header("(12,)", "'<i8'"),
    "no type": header("(12,)", "'<q99'"),
    "objects": header("(12,)", "'|O'") + pickle.dumps([None] * 12),
    "version": b"\x93NUMPY\x09\x00" + header("(12,)")[8:],
}
TEXTS = {
    "empty": b"",
    "text": b"0\n1\n2\n",
    "latin-1": "größe".encode("latin-1"),
    "zeros": bytes(5000),
    "pickle": pickle.dumps([1, 2]),
    "zip": archive(),
    "zip of text": archive(x="1 2 3", y="0"),
    "zip of a lie": archive(x_npy=b"text", y_npy=npy(Y)),
    "zip of bombs": archive(x_npy=HEADERS["terabytes"], y_npy=npy(Y)),
}


def bent(content, seed):
    """A file with a few wrong bytes, or without its end."""
    rng, changed = random.Random(seed), bytearray(content)
    if seed % 3 == 0:
        return bytes(changed[: rng.randrange(len(changed))])
    for _ in range(1 + seed % 5):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


LABEL_FILES = {
    **{f"{name} {kind}": npy(array) for name, array in ARRAYS.items() for kind in ("npy",)},
    **{f"header {name}": content for name, content in HEADERS.items()},
    **{f"text {name}": content for name, content in TEXTS.items()},
    **{f"bent {seed}": bent(npy(Y), seed) for seed in range(24)},
}
FEATURE_FILES = {
    **{f"y {name}": npz(x=X, y=array) for name, array in ARRAYS.items()},
    **{f"x {name}": npz(x=array, y=Y) for name, array in ARRAYS.items()},
    **{f"clean {name}": npz(x=X, y=Y, clean=array) for name, array in ARRAYS.items()},
    **{f"x of header {name}": archive(x_npy=content, y_npy=npy(Y)) for name, content in HEADERS.items()},
    **{f"text {name}": content for name, content in TEXTS.items()},
    **{f"bent {seed}": bent(npz(x=X, y=Y), seed) for seed in range(45)},
    "infinite": npz(x=np.where(X > 0.9, np.inf, X), y=Y),
    "three axes": npz(x=X[:, :, None], y=Y),
    "no width": npz(x=X[:, :0], y=Y),
    "no y": npz(x=X),
    "twice": archive(x_npy=npy(X), **{"x": npy(X), "y_npy": npy(Y)}),
    "half a test set": npz(x=X, y=Y, x_test=X),
    "test set of another width": npz(x=X, y=Y, x_test=X[:, :2], y_test=Y),
}
TORCH_FILES = {
    "a tensor": pt(torch.from_numpy(X)),
    "a list": pt([1]),
    "a module": pt(torch.nn.Linear(2, 2)),
    "no tensors": pt({"x": 1, "y": "a"}),
    "a sparse one": pt({"x": torch.from_numpy(X).to_sparse(), "y": torch.from_numpy(Y)}),
    "a meta one": pt({"x": torch.empty(12, 4, device="meta"), "y": torch.from_numpy(Y)}),
    "a quantized one": pt(
        {"x": torch.quantize_per_tensor(torch.from_numpy(X), 0.1, 0, torch.qint8), "y": torch.from_numpy(Y)}
    ),
    "keys that are numbers": pt({0: torch.from_numpy(X), 1: torch.from_numpy(Y)}),
    **{f"bent {seed}": bent(pt({"x": torch.from_numpy(X), "y": torch.from_numpy(Y)}), seed) for seed in range(30)},
    **{f"text {name}": content for name, content in TEXTS.items()},
}
TABLE = "image,label,clean\n" + "".join(f"{i}.png,{'abc'[i % 3]},{'abc'[i % 2]}\n" for i in range(6))


def taken(make, path):
    """What a file was taken for, None where it was refused in one line."""
    before = sorted(Path().iterdir())
    made, line = None, ""
    try:
        made = make(path)
    except NoisyLabelError as error:
        line = str(error)
    assert "\n" not in line
    assert len(line) < 500
    assert sorted(Path().iterdir()) == before
    return made


def each(files, name, make, check):
    """Try files one by one, those that are taken hold what ``check`` reads of them."""
    accepted = 0
    for kind, content in files.items():
        Path(name).write_bytes(content)
        try:
            made = taken(make, name)
            if made is not None:
                check(made, name)
                accepted += 1
        except Exception as error:
            raise AssertionError(kind) from error
    return accepted


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def same_features(data, path):
    with np.load(path, allow_pickle=False) as arrays:
        assert np.array_equal(data._training_part.x.numpy(), arrays["x"].astype(np.float32))
        assert np.array_equal(data.noisy_targets.numpy(), arrays["y"])


def features(path):
    data = FeaturesDataModule(path, standardize=None)
    data.setup("fit")
    return data


def same_tensors(data, path):
    arrays = torch.load(path, weights_only=True)
    assert torch.equal(data._training_part.x, arrays["x"].float().to_dense())
    assert torch.equal(data.noisy_targets, arrays["y"])


def test_features():
    assert each(FEATURE_FILES, "f.npz", features, same_features) > 0


def test_features_of_torch():
    each(TORCH_FILES, "f.pt", features, same_tensors)


def test_labels():
    def same(labels, path):
        assert np.array_equal(labels.numpy(), np.load(path))

    each(LABEL_FILES, "y.npy", lambda path: FileNoise(path).corrupt(torch.from_numpy(Y), 3, 0), same)


def test_matrices():
    matrix = np.full((3, 3), 1 / 3)
    files = {**LABEL_FILES, **{f"matrix {seed}": bent(npy(matrix), seed) for seed in range(20)}}

    def same(found, path):
        read = np.load(path)
        assert np.allclose(found.numpy(), read / read.sum(1, keepdims=True))

    each(files, "t.npy", lambda path: TransitionNoise(path).transition_matrix(3), same)


def test_tables():
    for i in range(6):
        write_image(Path(f"{i}.png"), 8 * i)
    rng, files = random.Random(0), {}
    pieces = ['"', ",", "\n", "\0", "é", ",,", "\r", "a,b\n", "\ufeff", "label", ";", "0.png,c,a\n", "'", "\t"]
    for number in range(60):
        at = rng.randrange(len(TABLE))
        files[f"put {number}"] = (TABLE[:at] + rng.choice(pieces) + TABLE[at + rng.randrange(4) :]).encode()
    files |= {f"text {name}": content for name, content in TEXTS.items()}
    files |= {f"cut {at}": TABLE[:at].encode() for at in range(0, len(TABLE), 7)}

    def table(path):
        data = CSVDataModule(path, image_size=8, clean_column="clean")
        data.setup("fit")
        return data

    def same(data, path):
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [data.class_names[label] for label in data.noisy_targets] == [row["label"].strip() for row in rows]
        assert [data.class_names[label] for label in data.clean_targets] == [row["clean"].strip() for row in rows]

    assert each(files, "t.csv", table, same) > 0
