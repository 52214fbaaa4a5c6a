"""The divergence of two predictions against its sum in float64."""

import numpy as np
import torch

from lightning_noisy.functional.losses import symmetric_divergence


def probabilities(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_it_is_both_kullback_leibler_divergences():
    first, second = np.random.default_rng(0).normal(scale=3, size=(2, 5, 4))
    p, q = probabilities(first), probabilities(second)
    expected = (p * np.log(p / q)).sum(axis=1) + (q * np.log(q / p)).sum(axis=1)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        both = [torch.from_numpy(logits).to(dtype) for logits in (first, second)]
        np.testing.assert_allclose(symmetric_divergence(*both).numpy(), expected, rtol=tolerance)
        assert torch.equal(symmetric_divergence(*both), symmetric_divergence(*both[::-1]))
        assert not symmetric_divergence(both[0], both[0] + 1).abs().max() > 1e-5


def test_gradients_reach_both_and_are_finite_for_any_size():
    first = torch.tensor([[1e4, -1e4, 0.0], [1.0, 2.0, 3.0]], requires_grad=True)
    second = torch.tensor([[-1e4, 1e4, 0.0], [3.0, 2.0, 1.0]], requires_grad=True)
    losses = symmetric_divergence(first, second)
    losses.sum().backward()
    assert losses.isfinite().all()
    for logits in (first, second):
        assert logits.grad.isfinite().all()
        assert logits.grad[1].abs().max() > 0.1
    double = [torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(symmetric_divergence, double)


def test_half_precision_is_computed_in_full():
    first, second = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    torch.testing.assert_close(
        symmetric_divergence(first, second), symmetric_divergence(first.float(), second.float()), check_dtype=False
    )
