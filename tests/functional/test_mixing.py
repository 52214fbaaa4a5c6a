"""Mixing against arithmetic written out."""

import numpy as np
import pytest
import torch

from lightning_noisy.functional.mixing import guess, mix, mix_match, mixing_partners, mixing_share, refine, sharpen
from lightning_noisy.functional.random import hash_bits, hash_seed

P = torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.5, 0.0]], dtype=torch.float64)


@pytest.mark.parametrize("alpha", [0.5, 4.0])
def test_shares_follow_the_beta_distribution_and_their_keys(alpha):
    drawn = np.array([mixing_share(alpha, 7, step) for step in range(2000)])
    variance = 1 / (4 * (2 * alpha + 1))
    assert drawn.mean() == pytest.approx(0.5, abs=4 * (variance / 2000) ** 0.5)
    assert drawn.var() == pytest.approx(variance, rel=0.15)
    assert mixing_share(alpha, 7, 3) == drawn[3] == np.random.default_rng(hash_seed(7, 3)).beta(alpha, alpha)
    dominant = [mixing_share(alpha, 7, step, dominant=True) for step in range(2000)]
    assert dominant == np.maximum(drawn, 1 - drawn).tolist()


def test_partners_are_a_permutation_by_keys_and_indices():
    index = torch.tensor([30, 10, 20, 10])
    partners = mixing_partners(index, 5, 6)
    assert sorted(partners.tolist()) == [0, 1, 2, 3]
    hashes = [int(hash_bits(5, 6, i)) for i in index.tolist()]
    assert partners.tolist() == sorted(range(4), key=hashes.__getitem__)
    orders = {tuple(mixing_partners(torch.arange(6), seed).tolist()) for seed in range(30)}
    assert len(orders) > 25


def test_mixture_by_hand():
    mixed = mix(torch.tensor([[1.0, 2.0], [5.0, 10.0]]), torch.tensor([1, 0]), 0.75)
    assert mixed.tolist() == [[2.0, 4.0], [4.0, 8.0]]


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 2.0])
def test_sharpening_by_its_formula(temperature):
    powers = P.numpy() ** (1 / temperature)
    np.testing.assert_allclose(sharpen(P, temperature), powers / powers.sum(1, keepdims=True), rtol=1e-12)
    torch.testing.assert_close(sharpen(10 * P, temperature), sharpen(P, temperature))


@pytest.mark.parametrize("temperature", [0, 1e-320, 1e-6])
def test_sharpening_at_zero_is_the_arg_max(temperature):
    assert sharpen(P, temperature).tolist() == [[0.0, 1.0, 0.0], [0.5, 0.5, 0.0]]
    low = torch.tensor([[1e-30, 2e-30]])
    assert sharpen(low, temperature).tolist() == [[0.0, 1.0]]


def test_refined_and_guessed_by_hand():
    given = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    refined = refine(torch.tensor([0.25, 1.0], dtype=torch.float64), given, P)
    np.testing.assert_allclose(refined, [[0.325, 0.45, 0.225], [0.0, 0.0, 1.0]])
    assert guess([P, P.flip(1)])[0].tolist() == pytest.approx([0.2, 0.6, 0.2])


def make_mix_match(unlabeled=3, **options):
    torch.manual_seed(0)
    labeled, rest = [torch.rand(2, 4) for _ in range(2)], [torch.rand(unlabeled, 4) for _ in range(2)]
    refined, guessed = torch.rand(2, 5).softmax(1), torch.rand(unlabeled, 5).softmax(1)
    mixed = mix_match(labeled, refined, rest, guessed, 4.0, 1, 2)
    return mixed, torch.cat([*labeled, *rest]), torch.cat([refined, refined, guessed, guessed])


def test_mix_match_mixes_all_views_of_both_parts_mostly_with_themselves():
    mixed, inputs, targets = make_mix_match()
    share, partners = mixing_share(4.0, 1, 2, dominant=True), mixing_partners(torch.arange(10), 1, 2)
    assert 0.5 < share < 1
    assert mixed.labeled == 4
    for got, whole in ((mixed.inputs, inputs), (mixed.targets, targets)):
        np.testing.assert_allclose(got, share * whole + (1 - share) * whole[partners], atol=1e-6)
    assert {i < 4 for i in partners[:4].tolist()} == {True, False}  # over the border of the parts
    np.testing.assert_allclose(mixed.targets.sum(1), 1.0, atol=1e-6)


def test_mix_match_losses_in_numpy():
    mixed, *_ = make_mix_match()
    logits = torch.randn(10, 5, dtype=torch.float64)
    supervised, unsupervised = mixed.losses(logits)
    p = np.exp(logits.numpy())
    p, t = p / p.sum(1, keepdims=True), mixed.targets.double().numpy()
    assert supervised.item() == pytest.approx(-(t[:4] * np.log(p[:4])).sum() / 4)
    assert unsupervised.item() == pytest.approx(((p[4:] - t[4:]) ** 2).sum() / (6 * 5))
    assert torch.equal(mixed.losses(logits[:4])[0], supervised)


def test_parts_without_rows_have_a_zero_loss_with_a_gradient():
    mixed, *_ = make_mix_match(unlabeled=0)
    logits = torch.randn(4, 5, requires_grad=True)
    supervised, unsupervised = mixed.losses(logits)
    assert supervised > 0
    assert unsupervised.item() == 0.0
    unsupervised.backward()
    assert not logits.grad.any()
