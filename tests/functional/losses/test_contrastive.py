import numpy as np
import pytest
import torch

from lightning_noisy.functional.losses.contrastive import view_contrast


def test_against_the_formula():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 5, 3))
    unit = np.concatenate([first, second])
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    powers = np.exp(unit @ unit.T / 0.3)
    np.fill_diagonal(powers, 0)
    expected = [-np.log(powers[i, (i + 5) % 10] / powers[i].sum()) for i in range(10)]
    losses = view_contrast(torch.tensor(first), torch.tensor(second), 0.3)
    np.testing.assert_allclose(losses, expected, rtol=1e-10)


def test_a_single_sample_has_nothing_to_be_unlike_of():
    first = torch.tensor([[1.0, 0.0]], requires_grad=True)
    losses = view_contrast(first, torch.tensor([[0.0, 1.0]]), 0.05)
    assert losses.tolist() == [0.0, 0.0]
    losses.sum().backward()
    assert first.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype):
    assert view_contrast(torch.randn(3, 2, dtype=dtype), torch.randn(3, 2, dtype=dtype), 0.05).dtype == torch.float32
