import copy
import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_noisy.data import noise as module
from lightning_noisy.data.noise import (
    AsymmetricNoise,
    FileNoise,
    LabelNoise,
    PairFlipNoise,
    SymmetricNoise,
    TransitionMatrixNoise,
    read_labels,
)
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.functional.noise import labels_hash, noise_rate, transition_counts

CIFAR10 = {9: 1, 2: 0, 3: 5, 5: 3, 4: 7}
MODELS = [
    SymmetricNoise(0.4),
    SymmetricNoise(0.4, include_true_class=True),
    AsymmetricNoise(0.4, "cifar10"),
    AsymmetricNoise(0.3, {0: 9, 7: 1}),
    PairFlipNoise(0.45),
]
HASHES = [
    "20cb5b881bce6084edb23b79accc2ec7b478803b0a1a12600c73308ae650d707",
    "156941cf237354871b690f38ddb1a191bd2bb988875d3b28fe9d97ebef4c817e",
    "4ec6000fc99c0d1093abb886cd85c0700bb0b07b933ee5fe0c0c9579c5d92273",
    "79d59fd9ed43a3cd1bee7bae916bc77898604f93937b3c0fdcdfa9c733458a2c",
    "14d0f6c431c7bad04ab974b963671729ba3e688fe1f10b924c60d886d5683417",
]
each_model = pytest.mark.parametrize("noise", MODELS, ids=repr)


def balanced(samples=50_000, num_classes=10):
    return torch.arange(samples) * 7 % num_classes


@each_model
def test_realised_transitions_are_those_of_the_matrix(noise):
    clean = balanced()
    expected = noise.transition_matrix(10) * 5000

    for seed in range(3):
        counts = transition_counts(clean, noise.corrupt(clean, 10, seed), 10)
        bound = 5 * (expected * (1 - expected / 5000)).sqrt()

        assert ((counts - expected).abs() <= bound + 1e-6).all()


@pytest.mark.parametrize(
    ("noise", "expected"),
    [(MODELS[0], 0.4), (MODELS[1], 0.36), (MODELS[2], 0.2), (MODELS[4], 0.45), (SymmetricNoise(0.8, True), 0.72)],
    ids=repr,
)
def test_realised_rate_is_what_the_docstring_says(noise, expected):
    clean = balanced()
    rates = torch.tensor([noise_rate(clean, noise.corrupt(clean, 10, seed)) for seed in range(20)]).double()

    deviation = math.sqrt(expected * (1 - expected) / 50_000)
    assert ((rates - expected).abs() < 4.5 * deviation).all()
    assert abs(float(rates.mean()) - expected) < 4 * deviation / math.sqrt(20)


def test_wrong_labels_are_independent_of_each_other():
    """The number of wrong labels spreads like a binomial: neither a fixed count nor clumps."""
    clean = balanced(2000)
    counts = torch.tensor([noise_rate(clean, SymmetricNoise(0.4).corrupt(clean, 10, s)) * 2000 for s in range(400)])

    assert 0.8 < float(counts.double().var()) / (2000 * 0.4 * 0.6) < 1.25


@each_model
def test_rate_zero_changes_nothing_and_rate_one_everything_it_can(noise):
    clean, none, full = balanced(2000), copy.copy(noise), copy.copy(noise)
    none.rate, full.rate = 0.0, 1.0

    assert torch.equal(none.corrupt(clean, 10, 0), clean)
    keeps = full.transition_matrix(10).diagonal()[clean] == 1
    noisy = full.corrupt(clean, 10, 0)
    assert torch.equal(noisy[keeps], clean[keeps])
    if not getattr(noise, "include_true_class", False):
        assert (noisy[~keeps] != clean[~keeps]).all()


@each_model
def test_a_label_depends_on_seed_position_and_class_alone(noise, monkeypatch):
    clean = balanced(3000)
    noisy = noise.corrupt(clean, 10, 5)

    for length in (0, 1, 1234):
        assert torch.equal(noise.corrupt(clean[:length], 10, 5), noisy[:length])
    others = (clean + torch.arange(3000) % 10) % 10
    same = others == clean
    assert torch.equal(noise.corrupt(others, 10, 5)[same], noisy[same])
    for chunk in (1, 70, 12345):
        monkeypatch.setattr(module, "_CHUNK", chunk)
        assert torch.equal(noise.corrupt(clean, 10, 5), noisy)


@each_model
def test_targets_and_global_stream_are_left_alone(noise):
    clean, state = balanced(100), torch.get_rng_state()

    noisy = noise.corrupt(clean, 10, 0)

    assert torch.equal(clean, balanced(100))
    assert noisy.dtype == torch.int64
    assert noisy.data_ptr() != clean.data_ptr()
    assert torch.equal(torch.get_rng_state(), state)


@each_model
def test_the_seed_decides(noise):
    clean = balanced(2000)
    labels = [noise.corrupt(clean, 10, seed) for seed in (0, 1, -1, 2**63, 0)]

    assert torch.equal(labels[0], labels[4])
    assert len({labels_hash(noisy) for noisy in labels}) == 4
    flips = torch.stack([(noisy != clean).double() for noisy in labels[:2]])
    moved = noise.transition_matrix(10).diagonal()[clean] < 1
    assert abs(float(torch.corrcoef(flips[:, moved])[0, 1])) < 5 / math.sqrt(int(moved.sum()))


@pytest.mark.parametrize(
    ("noise", "recorded"), list(zip(MODELS, HASHES, strict=True)), ids=[repr(noise) for noise in MODELS]
)
def test_labels_are_the_same_on_every_machine(noise, recorded):
    assert labels_hash(noise.corrupt(balanced(), 10, 42)) == recorded


def test_cifar10_is_the_published_mapping():
    clean = balanced(5000)

    named = AsymmetricNoise(0.4, "cifar10").corrupt(clean, 10, 0)

    assert torch.equal(named, AsymmetricNoise(0.4, CIFAR10).corrupt(clean, 10, 0))
    assert {(int(i), int(j)) for i, j in zip(clean, named, strict=True) if i != j} == set(CIFAR10.items())


def test_memory_stays_bounded_for_many_classes(monkeypatch):
    rows = []
    original = module.sample_categorical

    def watch(weights, uniform):
        rows.append(weights.numel())
        return original(weights, uniform)

    monkeypatch.setattr(module, "sample_categorical", watch)
    SymmetricNoise(0.2).corrupt(balanced(5000, 1000), 1000, 0)

    assert len(rows) == 3
    assert max(rows) <= 2**21


@each_model
def test_models_describe_themselves_by_plain_values(noise):
    description = noise.describe()

    assert description["class"] == type(noise).__name__
    assert description["rate"] == noise.rate
    assert json.loads(json.dumps(description)) == description
    assert torch.equal(
        pickle.loads(pickle.dumps(noise)).corrupt(balanced(99), 10, 0), noise.corrupt(balanced(99), 10, 0)
    )


def test_descriptions_hold_the_arguments():
    assert MODELS[1].describe() == {"class": "SymmetricNoise", "rate": 0.4, "include_true_class": True}
    assert MODELS[2].describe() == {"class": "AsymmetricNoise", "rate": 0.4, "mapping": "cifar10"}
    assert MODELS[3].describe() == {"class": "AsymmetricNoise", "rate": 0.3, "mapping": {"0": 9, "7": 1}}
    assert FileNoise(Path("labels.npz"), "worse").describe() == {
        "class": "FileNoise",
        "path": "labels.npz",
        "key": "worse",
    }
    assert FileNoise("labels.npy").rate is None
    assert repr(MODELS[1]) == "SymmetricNoise(rate=0.4, include_true_class=True)"


MAKERS = [SymmetricNoise, PairFlipNoise, lambda rate: AsymmetricNoise(rate, "cifar10")]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("rate", [1.2, -0.1, float("nan"), "0.4", None])
def test_a_rate_outside_its_range_is_refused_at_once(make, rate):
    with pytest.raises(NoisyLabelError) as error:
        make(rate)
    assert str(error.value) == f"Expected argument `rate` to be a float in [0, 1], but got {rate!r}."


@pytest.mark.parametrize("mapping", ["cifar100", "", None, [(0, 1)], {}, {2: 2}, {-1: 0}, {"0": "1"}, {0: 1.5}])
def test_a_mapping_that_cannot_be_is_refused_at_once(mapping):
    with pytest.raises(NoisyLabelError, match=r"^Expected argument `mapping` to be a .*dict .*, but got ") as error:
        AsymmetricNoise(0.4, mapping)
    assert str(error.value).endswith(f"but got {mapping!r}.")


@pytest.mark.parametrize("mapping", [{0: 3}, {3: 0}])
def test_a_mapping_outside_the_classes_is_refused(mapping):
    noise = AsymmetricNoise(0.4, mapping)

    with pytest.raises(NoisyLabelError, match=r"^Expected argument `mapping` to be .*classes in \[0, 3\) .* but got {"):
        noise.corrupt(torch.zeros(4).long(), 3, 0)


def test_a_named_mapping_is_for_its_number_of_classes():
    with pytest.raises(NoisyLabelError, match=r"^Expected 10 classes for `mapping='cifar10'`, but got 100: "):
        MODELS[2].corrupt(torch.zeros(4).long(), 100, 0)


@each_model
@pytest.mark.parametrize(
    ("targets", "match"),
    [
        (torch.tensor([0, 10]), r"`targets` to lie in \[0, 10\), but sample 1 has label 10 "),
        (torch.tensor([-1, 0]), r"`targets` to lie in \[0, 10\), but sample 0 has label -1 "),
        (torch.zeros(3), r"`targets` to be an int64 tensor of shape \(N,\), but got torch\.float32 of shape \(3,\)\.$"),
        (torch.zeros(3, 1).long(), r"`targets` to be an int64 tensor .* but got torch\.int64 of shape \(3, 1\)\.$"),
    ],
)
def test_targets_that_are_no_classes_are_refused(noise, targets, match):
    with pytest.raises(NoisyLabelError, match=match) as error:
        noise.corrupt(targets, 10, 0)
    assert "\n" not in str(error.value)


class OwnNoise(TransitionMatrixNoise):
    def __init__(self, rows):
        self.rows = rows

    def transition_matrix(self, num_classes):
        return torch.tensor(self.rows)


def test_a_noise_of_ones_own_needs_the_matrix_only():
    noise = OwnNoise([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])

    assert noise.corrupt(torch.tensor([0, 1, 2, 0]), 3, 0).tolist() == [1, 2, 0, 1]
    assert noise.describe() == {"class": "OwnNoise", "rows": noise.rows}
    assert noise.rate is None


@pytest.mark.parametrize(
    ("rows", "came"),
    [
        ([[0.5, 0.5]], r"shape \(1, 2\)"),
        ([[1.5, -0.5], [0.0, 1.0]], "a negative entry"),
        ([[0.5, 0.4], [0.0, 1.0]], "a row with another sum"),
        ([[float("nan"), 0.5], [0.0, 1.0]], "a NaN"),
        ([[float("inf"), 0.5], [0.0, 1.0]], "a row with another sum"),
    ],
)
def test_a_matrix_that_is_none_is_refused(rows, came):
    match = rf"^Expected `OwnNoise\.transition_matrix\(2\)` to be non-negative of shape \(2, 2\) .* but got .*{came}"
    with pytest.raises(NoisyLabelError, match=match):
        OwnNoise(rows).corrupt(torch.tensor([0, 1]), 2, 0)


def test_the_base_cannot_be_made():
    for base in (LabelNoise, TransitionMatrixNoise):
        with pytest.raises(TypeError):
            base()


# Labels from a file

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


# From YAML

YAML = [
    ("{class_path: SymmetricNoise, init_args: {rate: 0.4}}", MODELS[0]),
    ("{class_path: SymmetricNoise, init_args: {rate: 0.4, include_true_class: true}}", MODELS[1]),
    ("{class_path: AsymmetricNoise, init_args: {rate: 0.4, mapping: cifar10}}", MODELS[2]),
    ("{class_path: AsymmetricNoise, init_args: {rate: 0.3, mapping: {0: 9, 7: 1}}}", MODELS[3]),
    ("{class_path: AsymmetricNoise, init_args: {rate: 0.3, mapping: {'0': 9, '7': 1}}}", MODELS[3]),
    ("{class_path: PairFlipNoise, init_args: {rate: 0.45}}", MODELS[4]),
    ("{class_path: FileNoise, init_args: {path: labels.npz, key: worse}}", FileNoise("labels.npz", "worse")),
    ("{class_path: FileNoise, init_args: {path: labels.npy}}", FileNoise("labels.npy")),
]


@pytest.mark.parametrize(("text", "expected"), YAML)
def test_models_come_from_yaml_and_survive_the_saved_config(text, expected):
    jsonargparse = pytest.importorskip("jsonargparse")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--noise", type=LabelNoise | None, default=None)
    text = text.replace("class_path: ", "class_path: lightning_noisy.data.noise.")

    config = parser.parse_args([f"--noise={text}"])
    again = parser.parse_string(parser.dump(config))

    instantiate = getattr(parser, "instantiate", parser.instantiate_classes)  # the name before jsonargparse 4.49
    for parsed in (config, again):
        assert instantiate(parsed).noise.describe() == expected.describe()
