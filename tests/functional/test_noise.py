import hashlib
import struct

import pytest
import torch

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.functional.label_statistics import labels_hash, noise_rate, transition_counts
from lightning_noisy.functional.noise import asymmetric_matrix, pair_flip_matrix, symmetric_matrix

MAPPING = {3: 1, 0: 2}
RATES = [0.0, 0.1, 0.4, 1 / 3, 1.0, 1]


def brute_force(num_classes, probability):
    rows = [[probability(i, j) for j in range(num_classes)] for i in range(num_classes)]
    return torch.tensor(rows, dtype=torch.float64)


def close(matrix, expected):
    torch.testing.assert_close(matrix, expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(matrix.sum(1), torch.ones(len(matrix), dtype=torch.float64), rtol=0, atol=1e-13)
    assert (matrix >= 0).all()


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("num_classes", [2, 3, 10, 1000])
def test_symmetric_matrix(num_classes, rate):
    others = brute_force(num_classes, lambda i, j: 1 - rate if i == j else rate / (num_classes - 1))
    everyone = brute_force(num_classes, lambda i, j: (1 - rate) * (i == j) + rate / num_classes)

    close(symmetric_matrix(num_classes, rate), others)
    close(symmetric_matrix(num_classes, rate, include_true_class=True), everyone)


@pytest.mark.parametrize("rate", RATES)
def test_asymmetric_matrix(rate):
    def probability(i, j):
        if i not in MAPPING:
            return float(i == j)
        return 1 - rate if i == j else rate if j == MAPPING[i] else 0.0

    close(asymmetric_matrix(5, rate, MAPPING), brute_force(5, probability))


def test_asymmetric_matrix_of_a_swap_flips_simultaneously():
    assert asymmetric_matrix(3, 1.0, {0: 1, 1: 0}).tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_pair_flip_matrix(num_classes, rate):
    def probability(i, j):
        return 1 - rate if i == j else rate if j == (i + 1) % num_classes else 0.0

    close(pair_flip_matrix(num_classes, rate), brute_force(num_classes, probability))


BUILDERS = [symmetric_matrix, pair_flip_matrix, lambda num_classes, rate: asymmetric_matrix(num_classes, rate, {0: 1})]


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("rate", [1.2, -0.1, float("nan"), "0.4", True, None])
def test_a_rate_outside_its_range_is_refused(build, rate):
    with pytest.raises(NoisyLabelError) as error:
        build(4, rate)
    assert str(error.value) == f"Expected argument `rate` to be a float in [0, 1], but got {rate!r}."


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("num_classes", [1, 0, -3, 2.0, True])
def test_fewer_than_two_classes_are_refused(build, num_classes):
    with pytest.raises(NoisyLabelError, match=r"^Expected argument `num_classes` to be an integer of at least 2, but"):
        build(num_classes, 0.2)


@pytest.mark.parametrize("mapping", [{}, {4: 0}, {0: 4}, {-1: 0}, {0: -1}, {2: 2}, {"0": 1}, {0: 1.0}, {True: 0}])
def test_a_mapping_that_cannot_be_is_refused(mapping):
    with pytest.raises(NoisyLabelError) as error:
        asymmetric_matrix(4, 0.2, mapping)
    assert str(error.value) == (
        f"Expected argument `mapping` to be a non-empty dict from classes in [0, 4) to other classes in it, "
        f"but got {mapping!r}."
    )


def test_transition_counts_and_noise_rate_equal_a_loop():
    generator = torch.Generator().manual_seed(0)
    clean, noisy = torch.randint(7, (2, 500), generator=generator)
    noisy[noisy == 6] = 0  # a class that never comes out
    expected = [[0] * 7 for _ in range(7)]
    for i, j in zip(clean.tolist(), noisy.tolist(), strict=True):
        expected[i][j] += 1

    counts = transition_counts(clean, noisy, 7)

    assert counts.dtype == torch.int64
    assert counts.tolist() == expected
    assert noise_rate(clean, noisy) == 1 - int(counts.trace()) / 500
    assert noise_rate(clean, clean) == 0.0


def test_clean_classes_may_be_more_than_labels():
    counts = transition_counts(torch.tensor([4, 0, 4, 2]), torch.tensor([1, 0, 2, 2]), 3, 6)

    expected = [[1, 0, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 1], [0, 0, 0]]
    assert counts.tolist() == expected
    with pytest.raises(NoisyLabelError, match=r"`clean` to lie in \[0, 4\), but sample 0 has label 4 "):
        transition_counts(torch.tensor([4]), torch.tensor([1]), 3, 4)


@pytest.mark.parametrize(
    ("clean", "noisy", "match"),
    [
        (torch.zeros(3).long(), torch.zeros(1).long(), r"one shape \(N,\), but got \(3,\) and \(1,\)\.$"),
        (torch.zeros(0).long(), torch.zeros(0).long(), r"non-empty tensors .* but got \(0,\) and \(0,\)\.$"),
        (torch.zeros(2, 2).long(), torch.zeros(2, 2).long(), r"but got \(2, 2\) and \(2, 2\)\.$"),
        (torch.zeros(3), torch.zeros(3).long(), r"`clean` to be an int64 tensor .* but got torch\.float32 of shape"),
        (
            torch.zeros(3).long(),
            torch.zeros(3).int(),
            r"`noisy` to be an int64 tensor .* but got torch\.int32 of shape",
        ),
        (torch.tensor([0, 4]), torch.tensor([0, 1]), r"`clean` to lie in \[0, 4\), but sample 1 has label 4 "),
        (torch.tensor([0, 1]), torch.tensor([-1, 1]), r"`noisy` to lie in \[0, 4\), but sample 0 has label -1 "),
    ],
)
def test_labels_that_cannot_be_counted_are_refused(clean, noisy, match):
    with pytest.raises(NoisyLabelError, match=match) as error:
        transition_counts(clean, noisy, 4)
    assert "\n" not in str(error.value)


def test_noise_rate_does_not_broadcast():
    with pytest.raises(NoisyLabelError, match=r"but got \(4,\) and \(1,\)\.$"):
        noise_rate(torch.zeros(4), torch.zeros(1))


def test_labels_hash_is_that_of_little_endian_int64():
    labels = [0, 3, 255, 2**40]
    expected = hashlib.sha256(struct.pack("<4q", *labels)).hexdigest()

    assert labels_hash(torch.tensor(labels)) == expected
    assert labels_hash(torch.tensor([labels, labels]).t()[:, 0]) == expected
    assert labels_hash(torch.tensor([3, 1], dtype=torch.uint8)) == labels_hash(torch.tensor([3, 1]))
    assert labels_hash(torch.tensor([1, 3])) != labels_hash(torch.tensor([3, 1]))


@pytest.mark.parametrize("labels", [torch.zeros(2), torch.zeros(2, dtype=torch.bool), torch.zeros(2).cfloat()])
def test_labels_hash_refuses_what_is_no_label(labels):
    with pytest.raises(NoisyLabelError, match=r"^Expected argument `labels` to be an integer tensor, but got torch\."):
        labels_hash(labels)
