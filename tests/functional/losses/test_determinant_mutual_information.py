from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_noisy.functional import losses as F
from tests.functional.losses.oracle import (
    Array,
    Batch,
    close,
    numpy_softmax,
    quick,
    through_softmax,
)


def oracle(logits: Array, labels: Array, eps: float, scale: float) -> tuple[float, Array]:
    """By the adjugate, so that singular matrices have a gradient as well."""
    p, rows = numpy_softmax(logits), np.eye(logits.shape[1])[labels]
    u = scale * rows.T @ p
    size = len(u)
    cofactors = np.array(
        [
            [(-1) ** (i + j) * np.linalg.det(np.delete(np.delete(u, i, 0), j, 1)) for j in range(size)]
            for i in range(size)
        ]
    )
    determinant = np.linalg.det(u)
    by_u = -np.sign(determinant) * cofactors / (abs(determinant) + eps)
    return -np.log(abs(determinant) + eps), through_softmax(p, scale * rows @ by_u)


class TestDeterminantMutualInformation:
    @given(
        st.integers(2, 5),
        st.integers(0, 1000),
        st.sampled_from([0.1, 1.0, 5.0, 1e3]),
        st.sampled_from([1e-3, 1e-6]),
        st.booleans(),
    )
    @quick
    def test_oracle(self, classes: int, seed: int, spread: float, eps: float, average: bool) -> None:
        batch = Batch(4 * classes, classes, spread, seed)
        labels = np.concatenate([np.arange(classes), batch.labels[classes:]])
        scale = 1 / len(labels) if average else 1.0
        leaf = torch.tensor(batch.logits, requires_grad=True)
        joint = F.joint_distribution(leaf, torch.tensor(labels)) * (1.0 if average else len(labels))
        value = F.determinant_mutual_information(joint, eps)
        value.backward()
        expected, gradient = oracle(batch.logits, labels, eps, scale)
        np.testing.assert_allclose(value.item(), expected, rtol=1e-8, atol=1e-10)
        assert leaf.grad is not None
        np.testing.assert_allclose(leaf.grad.numpy(), gradient, rtol=1e-6, atol=1e-8)

    def test_joint_distribution(self) -> None:
        batch = Batch(9, 4, 1.0, 0)
        joint = F.joint_distribution(torch.tensor(batch.logits), torch.tensor(batch.labels))
        np.testing.assert_allclose(joint.numpy(), batch.one_hot.T @ numpy_softmax(batch.logits) / 9, **close)

    def test_a_class_without_a_sample(self) -> None:
        leaf = torch.tensor(Batch(6, 4, 1.0, 0).logits, requires_grad=True)
        labels = torch.tensor([0, 1, 2, 0, 1, 2])
        value = F.determinant_mutual_information(F.joint_distribution(leaf, labels), 1e-3)
        value.backward()
        assert value.item() == pytest.approx(-np.log(1e-3))
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()

    def test_constant_under_class_conditional_noise(self) -> None:
        joint = torch.tensor(np.random.default_rng(0).dirichlet(np.ones(9)).reshape(3, 3))
        noise = torch.tensor([[0.8, 0.2, 0.0], [0.1, 0.7, 0.2], [0.0, 0.3, 0.7]], dtype=torch.float64)
        shift = F.determinant_mutual_information(noise.t() @ joint, 1e-30) - F.determinant_mutual_information(
            joint, 1e-30
        )
        torch.testing.assert_close(shift, -torch.linalg.det(noise).log())

    def test_many_classes_do_not_overflow(self) -> None:
        counts = 30.0 * torch.eye(100)
        value = F.determinant_mutual_information(counts)
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(-100 * np.log(30.0), rel=1e-6)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype: torch.dtype) -> None:
        logits = torch.tensor([[6e4, -6e4, 0.0], [0.0, 0.0, 0.0]], dtype=dtype, requires_grad=True)
        value = F.determinant_mutual_information(F.joint_distribution(logits, torch.tensor([1, 0])))
        value.backward()
        assert value.dtype == torch.float32
        assert value.isfinite()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
