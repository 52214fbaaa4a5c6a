from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.functional.noise import pair_flip_matrix, symmetric_matrix
from lightning_noisy.losses import BackwardCorrection, ForwardCorrection, NoisyLabelLoss

LOGITS = torch.tensor(np.random.default_rng(0).standard_normal((4, 3)))
LABELS = torch.tensor([0, 1, 2, 0])
TRANSITION = [[0.7, 0.2, 0.1], [0.0, 0.9, 0.1], [0.3, 0.1, 0.6]]
LOSSES = [ForwardCorrection, BackwardCorrection]


def expected(kind: type[NoisyLabelLoss]) -> np.ndarray:
    p = np.exp(LOGITS.numpy()) / np.exp(LOGITS.numpy()).sum(1, keepdims=True)
    if kind is ForwardCorrection:
        return -np.log((p @ np.array(TRANSITION))[np.arange(4), LABELS])
    return -(np.linalg.inv(TRANSITION)[LABELS] * np.log(p)).sum(1)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("kind", LOSSES)
def test_formula(kind: Any, reduction: str) -> None:
    each = expected(kind)
    wanted = {"mean": each.mean(), "sum": each.sum(), "none": each}[reduction]
    np.testing.assert_allclose(kind(TRANSITION, reduction=reduction)(LOGITS, LABELS), wanted, rtol=1e-10)


@pytest.mark.parametrize("kind", LOSSES)
def test_a_float32_call_takes_no_digits_of_a_later_one(kind: Any) -> None:
    loss = kind(TRANSITION)
    assert loss(LOGITS.float(), LABELS).dtype == torch.float32
    assert loss.half()(LOGITS.half(), LABELS).dtype == torch.float32
    np.testing.assert_allclose(loss(LOGITS, LABELS), expected(kind).mean(), rtol=1e-10)
    np.testing.assert_allclose(copy.deepcopy(loss)(LOGITS, LABELS), expected(kind).mean(), rtol=1e-10)
    assert loss.state_dict() == {}


@pytest.mark.parametrize("kind", LOSSES)
def test_files(kind: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.array(TRANSITION))
    np.savez(tmp_path / "t.npz", anything=np.array(TRANSITION))
    for name in ("t.npy", "t.npz"):
        np.testing.assert_allclose(kind(str(tmp_path / name))(LOGITS, LABELS), expected(kind).mean(), rtol=1e-10)
    assert kind(torch.tensor(TRANSITION, requires_grad=True))(LOGITS, LABELS).grad_fn is None


@pytest.mark.parametrize("kind", LOSSES)
def test_files_that_cannot_be_read(kind: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=np.eye(3), b=np.eye(3))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04broken")
    (tmp_path / "empty.npy").write_bytes(b"")
    for name in ("two.npz", "objects.npy", "broken.npz", "empty.npy", "missing.npy"):
        path = str(tmp_path / name)
        with pytest.raises(NoisyLabelError) as caught:
            kind(path)
        assert str(caught.value).startswith("Expected argument `transition` to be a square matrix of numbers >= 0, ")
        assert f"but got {path}: " in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize(
    "transition",
    [
        [[1.0]],
        [[1.0, 0.0]],
        [[0.9, 0.2], [0.0, 1.0]],
        [[1.1, -0.1], [0.0, 1.0]],
        [[math.nan, 1.0], [0.0, 1.0]],
        [[1.0, 0.0], [1.0]],
        [["a", "b"], ["c", "d"]],
        torch.eye(3)[0],
    ],
)
def test_no_matrix_of_distributions(kind: Any, transition: Any) -> None:
    with pytest.raises(NoisyLabelError, match=r"^Expected argument `transition` to be a square matrix of numbers >= 0"):
        kind(transition)


def test_labels_that_never_occur() -> None:
    with pytest.raises(NoisyLabelError) as caught:
        ForwardCorrection([[0.0, 1.0], [0.0, 1.0]])
    assert str(caught.value) == (
        "Expected argument `transition` to be a matrix without a column of zeros, but got 'zeros in columns [0]'."
    )


@pytest.mark.parametrize("matrix", [symmetric_matrix(5, 0.8), pair_flip_matrix(4, 0.5)])
def test_singular_matrices_have_no_inverse(matrix: torch.Tensor) -> None:
    ForwardCorrection(matrix)
    with pytest.raises(NoisyLabelError, match=r"^Expected argument `transition` to be invertible, .* of rank \d for"):
        BackwardCorrection(matrix)


@pytest.mark.parametrize("kind", LOSSES)
def test_refused(kind: Any) -> None:
    with pytest.raises(NoisyLabelError) as caught:
        kind(TRANSITION)(torch.zeros(2, 4), torch.tensor([0, 1]))
    assert str(caught.value) == (
        "Expected argument `transition` to be for K = 4 classes, those of the logits, but got 'one for 3'."
    )
    with pytest.raises(NoisyLabelError, match=r"^\w+ expects int64 labels \(B,\) for"):
        kind(TRANSITION)(torch.zeros(3, 3), torch.eye(3))
    for eps in (0.0, 0.5, math.nan):
        with pytest.raises(NoisyLabelError, match=r"^Expected argument `eps` to be a float in \(0, 0.5\), but got"):
            kind(TRANSITION, eps=eps)
    assert (kind(TRANSITION).eps, kind(TRANSITION).requires, kind(TRANSITION).soft_targets) == (1e-7, (), False)
