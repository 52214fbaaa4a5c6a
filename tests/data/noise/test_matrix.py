import copy
import json
import math
import pickle

import numpy as np
import pytest
import torch

from lightning_noisy.data.labeled_images import LabeledImages
from lightning_noisy.data.noise import (
    AsymmetricNoise,
    LabelNoise,
    PairFlipNoise,
    SymmetricNoise,
    TransitionMatrixNoise,
    TransitionNoise,
)
from lightning_noisy.data.noise import matrix as module
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.functional.label_statistics import labels_hash, noise_rate, transition_counts

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
def test_realized_transitions_are_those_of_the_matrix(noise):
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
def test_realized_rate_is_what_the_docstring_says(noise, expected):
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
    plain = {"sequential": False, "exact": False}
    symmetric = {"class": "SymmetricNoise", "rate": 0.4, "include_true_class": True, "exact": False}
    assert MODELS[1].describe() == symmetric
    assert MODELS[2].describe() == {"class": "AsymmetricNoise", "rate": 0.4, "mapping": "cifar10"} | plain
    assert MODELS[3].describe() == {"class": "AsymmetricNoise", "rate": 0.3, "mapping": {"0": 9, "7": 1}} | plain
    assert repr(MODELS[1]) == "SymmetricNoise(rate=0.4, include_true_class=True, exact=False)"


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


@pytest.mark.parametrize(
    ("name", "wanted", "got"), [("cifar10", 10, 100), ("mnist", 10, 9), ("cifar100-superclass", 100, 10)]
)
@pytest.mark.parametrize("ordered", [True, False])
def test_a_named_mapping_is_for_its_number_of_classes(name, wanted, got, ordered):
    noise = AsymmetricNoise(0.4, name, sequential=ordered, exact=ordered)
    with pytest.raises(NoisyLabelError, match=rf"^Expected {wanted} classes for `mapping='{name}'`, but got {got}: "):
        noise.corrupt(torch.zeros(4).long(), got, 0)


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


# Named mappings

SUPERCLASSES = """
beaver, dolphin, otter, seal, whale
aquarium_fish, flatfish, ray, shark, trout
orchid, poppy, rose, sunflower, tulip
bottle, bowl, can, cup, plate
apple, mushroom, orange, pear, sweet_pepper
clock, keyboard, lamp, telephone, television
bed, chair, couch, table, wardrobe
bee, beetle, butterfly, caterpillar, cockroach
bear, leopard, lion, tiger, wolf
bridge, castle, house, road, skyscraper
cloud, forest, mountain, plain, sea
camel, cattle, chimpanzee, elephant, kangaroo
fox, porcupine, possum, raccoon, skunk
crab, lobster, snail, spider, worm
baby, boy, girl, man, woman
crocodile, dinosaur, lizard, snake, turtle
hamster, mouse, rabbit, shrew, squirrel
maple_tree, oak_tree, palm_tree, pine_tree, willow_tree
bicycle, bus, motorcycle, pickup_truck, train
lawn_mower, rocket, streetcar, tank, tractor
"""


def flips_of(name, num_classes):
    """Where each class goes when all flip."""
    return AsymmetricNoise(1.0, name).corrupt(torch.arange(num_classes), num_classes, 0).tolist()


@pytest.mark.parametrize(("mapping", "classes"), [("cifar100-superclass", 100), ("cifar80-superclass", 80)])
def test_superclasses_are_cycles_of_the_published_names(mapping, classes):
    """Fine labels are the positions of the names in alphabetical order; CIFAR80N-O knows the first 80 of them."""
    groups = [line.split(", ") for line in SUPERCLASSES.strip().splitlines()]
    names = sorted(name for group in groups for name in group)
    expected = [0] * classes
    for group in groups:
        labels = sorted(label for name in group if (label := names.index(name)) < classes)
        for place, label in enumerate(labels):
            expected[label] = labels[(place + 1) % len(labels)]

    assert len(set(names)) == 100
    assert [names[label] for label in (0, 2, 47, 58, 99)] == ["apple", "baby", "maple_tree", "pickup_truck", "worm"]
    assert flips_of(mapping, classes) == expected
    assert sorted(expected) == list(range(classes))
    assert all(label != flipped for label, flipped in enumerate(expected))


def test_blocks_of_cifar100_are_cycles_of_five():
    assert flips_of("cifar100-blocks", 100) == [5 * (i // 5) + (i + 1) % 5 for i in range(100)]


def test_mnist_is_the_published_mapping():
    assert flips_of("mnist", 10) == [0, 1, 7, 8, 4, 6, 5, 1, 8, 9]


def test_superclass_noise_has_the_rate():
    clean = balanced(50_000, 100)
    counts = transition_counts(clean, AsymmetricNoise(0.4, "cifar100-superclass").corrupt(clean, 100, 0), 100)

    assert abs(int(counts.trace()) - 30_000) < 4 * math.sqrt(50_000 * 0.24)
    assert (counts > 0).sum() == 200


# Matrices of one's own

ROWS = [[0.7, 0.2, 0.1], [0.0, 1.0, 0.0], [0.25, 0.25, 0.5]]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_matrix_is_drawn_from_by_rows_or_file(tmp_path, dtype):
    np.save(tmp_path / "matrix.npy", np.array(ROWS, dtype=dtype))
    clean = balanced(30_000, 3)
    given = TransitionNoise(ROWS)
    counts = transition_counts(clean, given.corrupt(clean, 3, 0), 3)

    expected = 10_000 * torch.tensor(ROWS, dtype=torch.float64)
    assert ((counts - expected).abs() <= 5 * (expected * (1 - expected / 10_000)).sqrt() + 1e-9).all()
    loaded = TransitionNoise(tmp_path / "matrix.npy").corrupt(clean, 3, 0)
    assert noise_rate(loaded, given.corrupt(clean, 3, 0)) < 1e-3
    assert given.rate is None
    assert given.describe() == {"class": "TransitionNoise", "matrix": ROWS, "exact": False}


def test_rows_are_normalized():
    matrix = TransitionNoise([[0.5, 0.49995], [0.0, 1.00009]]).transition_matrix(2)

    torch.testing.assert_close(matrix.sum(1), torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("rows", "came"),
    [
        ([[0.5, 0.5]], r"shape \(1, 2\)"),
        ([[1.0]], r"shape \(1, 1\)"),
        ([1.0, 0.0], r"shape \(2,\)"),
        ([[1.0, 0.0], [1.0]], r"\[\[1\.0, 0\.0\], \[1\.0\]\]"),
        ([["a", "b"], ["c", "d"]], r"\[\['a', 'b'\]"),
        ([[1.0, 0.0], [1.5, -0.5]], "row 1 with sum 1 and minimum -0.5"),
        ([[0.5, 0.4], [0.0, 1.0]], "row 0 with sum 0.9 and minimum 0.4"),
        ([[1.0, 0.0], [float("nan"), 0.5]], "row 1 with sum nan"),
    ],
)
def test_a_matrix_of_ones_own_that_is_none_is_refused(tmp_path, rows, came):
    match = rf"^Expected argument `matrix` to be K rows of K non-negative numbers that sum to 1, .* but got {came}"
    with pytest.raises(NoisyLabelError, match=match) as error:
        TransitionNoise(rows)
    assert "\n" not in str(error.value)
    if came.startswith(("shape", "row")):
        np.save(tmp_path / "matrix.npy", np.array(rows))
        with pytest.raises(NoisyLabelError, match=match):
            TransitionNoise(tmp_path / "matrix.npy").corrupt(torch.tensor([0, 1]), 2, 0)


def test_a_matrix_for_another_number_of_classes_is_refused():
    with pytest.raises(NoisyLabelError, match=r"`matrix` to have a row for each of the 4 classes, but got 3: "):
        TransitionNoise(ROWS).corrupt(torch.tensor([0, 1]), 4, 0)


def test_a_matrix_file_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(NoisyLabelError, match=r"^Expected argument `matrix` to be rows or a .npy file, but got 'm"):
        TransitionNoise("m.csv")
    with pytest.raises(NoisyLabelError, match=r"to hold a transition matrix, but got no such file: check `matrix`"):
        TransitionNoise(tmp_path / "m.npy").corrupt(torch.tensor([0, 1]), 2, 0)
    (tmp_path / "m.npy").write_bytes(b"0 1")
    with pytest.raises(NoisyLabelError, match=r"to hold a plain array of numbers, but got '"):
        TransitionNoise(tmp_path / "m.npy").corrupt(torch.tensor([0, 1]), 2, 0)


@pytest.mark.parametrize("noise", MODELS)
def test_labels_of_numpy_are_taken(noise):
    labels = torch.arange(1000) % 10
    assert torch.equal(noise.corrupt(labels.numpy(), 10, 3), noise.corrupt(labels, 10, 3))
    assert LabeledImages(None, labels.numpy()).labels.equal(labels)
    with pytest.raises(NoisyLabelError, match=r"`targets` to be an int64 tensor of .*, but got torch.int32 of"):
        noise.corrupt(labels.numpy().astype(np.int32), 10, 3)
    with pytest.raises(NoisyLabelError, match=r"shape \(N,\), but got a list"):
        noise.corrupt([0, 1], 10, 3)
