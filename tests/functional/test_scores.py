"""Every score and the masks from it against a float64 oracle that builds every activation (B, K, D)."""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from lightning_noisy.functional import scores as scores_module
from lightning_noisy.functional.masks import edge_mask, node_mask
from lightning_noisy.functional.scores import (
    activation_scores,
    dense_gradient,
    gradient_scores,
    magnitude_scores,
    obd_scores,
    signed_scores,
    std_scores,
)
from lightning_noisy.heads import CosineHead, KANHead, LinearHead
from tests.largest_tensor import LargestTensor
from tests.textbook_kan import textbook_basis

HEADS = ("linear", "cosine", "kan")
SCORES = ("std", "activation", "obd", "magnitude", "signed", "gradient")
STEP = 0.4
KNOTS = [-1 + j * STEP for j in range(-3, 9)]
"""The default grid in Python's floats: a float64 head's own knots would be rounded to float32."""


@dataclass
class Case:
    """A head, its features, and what an oracle needs: all in float64."""

    kind: str
    head: torch.nn.Module
    features: torch.Tensor
    logits_gradient: torch.Tensor

    @property
    def dead(self):
        x = self.features.numpy()
        return (x == x[:1]).all(axis=0)

    def coefficients(self):
        """(K, F, D) by the definition."""
        if self.kind == "kan":
            splines = self.head.spline_weight * self.head.spline_scaler.unsqueeze(2)
            return torch.cat([splines, self.head.base_weight.unsqueeze(2)], dim=2).mT.detach().numpy()
        weight = self.head.weight.detach().numpy()
        if self.kind == "cosine":
            weight = self.head.temperature * weight / np.maximum(np.linalg.norm(weight, axis=1, keepdims=True), 1e-12)
        return weight[:, None, :]

    def basis(self):
        """(B, F, D), point by point."""
        x = self.features.numpy()
        if self.kind == "kan":
            columns = [[[*textbook_basis(p, KNOTS, 3), p / (1 + math.exp(-p))] for p in row] for row in x.tolist()]
            return np.array(columns).transpose(0, 2, 1)
        if self.kind == "cosine":
            x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        return x[:, None, :]

    def terms(self):
        """What an edge's activation is the sum of: (B, K, F, D)."""
        return self.coefficients()[None] * self.basis()[:, None]

    def probabilities(self):
        logits = self.terms().sum(axis=(2, 3))
        if self.kind == "linear":
            logits = logits + self.head.bias.detach().numpy()
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)

    def oracle(self, score):
        """Scores (K, D) from all activations."""
        activations, coefficients = self.terms().sum(axis=2), self.coefficients()
        if score == "std":
            size = np.linalg.norm(coefficients, axis=1)
            return np.where(self.constant_terms(), 1e-100 * size, activations.std(axis=0))
        if score == "activation":
            return np.sqrt((activations**2).mean(axis=0))
        if score == "obd":
            p = self.probabilities()[:, :, None]
            return 0.5 * (p * (1 - p) * activations**2).mean(axis=0)
        if score == "gradient":
            return np.abs((self.logits_gradient.numpy()[:, :, None] * activations).sum(axis=0))
        return np.linalg.norm(coefficients, axis=1) if score == "magnitude" else coefficients.sum(axis=1)

    def constant_terms(self):
        """Features all of whose terms are constant: the dead ones, and in a cosine head those of equal shares."""
        basis = self.basis()
        return (np.ptp(basis, axis=0) <= 1e-14 * np.abs(basis).max(axis=0)).all(axis=0)

    def error(self, score):
        """What rounding may do to the score of an edge whose terms cancel, (K, D)."""
        if self.kind != "kan" or score == "magnitude":
            return np.zeros(self.coefficients().shape[::2])
        size = np.abs(self.terms()).sum(axis=2).max(axis=0)
        return {
            "std": 1e-7 * size * ~self.constant_terms(),  # the root of float64's rounding: a quadratic form
            "activation": 1e-7 * size,
            "obd": 1e-14 * size**2,
            "gradient": 1e-14 * size * np.abs(self.logits_gradient.numpy()).sum(axis=0)[:, None],
            "signed": 1e-14 * np.abs(self.coefficients()).sum(axis=1),
        }[score]

    def scores(self, score):
        """The package's."""
        if score == "gradient":
            basis = self.head.basis(self.features).detach()
            return gradient_scores(dense_gradient(self.logits_gradient, basis), self.head.coefficients().detach())
        return self.head.edge_scores(self.features, score)


@st.composite
def cases(draw, kinds=HEADS):
    """Heads with ties, zero weights, nearly constant splines; features with dead columns; batches of one."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind, classes, inputs = draw(st.sampled_from(kinds)), draw(st.integers(2, 7)), draw(st.integers(1, 4))
    batch, integers = draw(st.integers(1, 6)), draw(st.booleans())
    head = {"linear": LinearHead, "cosine": CosineHead, "kan": KANHead}[kind](inputs, classes).double()
    for parameter in head.parameters():
        whole = generator.integers(-2, 3, parameter.shape) / 2
        parameter.data = torch.from_numpy(whole if integers else generator.standard_normal(parameter.shape))
    if kind == "kan":
        head.grid.copy_(torch.tensor([KNOTS] * inputs, dtype=torch.float64))
        if draw(st.booleans()):
            head.spline_weight.data = 1 + 1e-4 * torch.from_numpy(generator.standard_normal(head.spline_weight.shape))
            head.base_weight.data *= 1e-5
    features = generator.standard_normal((batch, inputs)) * 10.0 ** draw(st.integers(-2, 1))
    dead = generator.random(inputs) < 0.3
    features[:, dead] = generator.choice([0.0, 0.3, -1.7], inputs)[dead]
    features = torch.from_numpy(features)
    return Case(kind, head, features, torch.from_numpy(generator.standard_normal((batch, classes))))


def assert_ranked(mask, oracle, error, ratio, drop):
    """Exactly the floor is dropped of each column, and by the oracle nothing kept should have gone before it."""
    count = math.floor(Fraction(str(ratio)) * len(mask))
    assert ((mask == 0).sum(axis=0) == count).all()
    assert ((mask == 0) | (mask == 1)).all()
    sign = 1 if drop == "unimportant" else -1
    slack = error + 1e-9 * np.abs(oracle)
    lowest = np.where(mask == 0, sign * oracle - slack, -np.inf).max(axis=0)
    highest = np.where(mask == 1, sign * oracle + slack, np.inf).min(axis=0)
    assert (lowest <= highest).all()


def assert_lower_index_goes_first(mask, coefficients, signed):
    """Of two edges of an input with the same coefficients the lower output is dropped, if one is."""
    same = coefficients if signed else np.abs(coefficients) if coefficients.shape[1] == 1 else coefficients
    for i in range(mask.shape[1]):
        for low in range(len(mask)):
            for high in range(low + 1, len(mask)):
                if (same[low, :, i] == same[high, :, i]).all():
                    assert mask[low, i] <= mask[high, i]


@pytest.mark.parametrize("score", SCORES)
@settings(max_examples=100)
@given(
    case=cases(),
    ratio=st.sampled_from([0.0, 0.29, 0.5, 0.7, 0.9]),
    drop=st.sampled_from(["unimportant", "important"]),
    chunk=st.sampled_from([1, 5, 1 << 16]),
)
def test_scores_and_masks_equal_the_oracle(score, case, ratio, drop, chunk):
    oracle, error = case.oracle(score), case.error(score)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores_module, "_CHUNK", chunk)
        scores = case.scores(score)
    assert scores.dtype == torch.float64
    assert not scores.requires_grad
    np.testing.assert_allclose(scores.numpy(), oracle, rtol=1e-9, atol=error.max() + 1e-300)

    node, edge = node_mask(scores, ratio, drop).numpy(), edge_mask(scores, ratio, drop).numpy()
    assert node.shape == edge.shape == oracle.shape
    assert_ranked(node, oracle, error, ratio, drop)
    assert_ranked(edge.reshape(-1, 1), oracle.reshape(-1, 1), error.reshape(-1, 1), ratio, drop)
    if score not in ("obd", "gradient"):
        coefficients = case.head.coefficients().detach().numpy()
        assert_lower_index_goes_first(node, coefficients, score == "signed")
        assert_lower_index_goes_first(edge, coefficients, score == "signed")


@settings(max_examples=60)
@given(cases(("linear", "cosine")), st.sampled_from(["std", "activation"]), st.sampled_from([0.3, 0.5, 0.8]))
def test_within_an_input_a_head_of_one_term_ranks_by_weight(case, score, ratio):
    assert case.head.ranks_by_magnitude(score)
    mask = node_mask(case.head.edge_scores(score=score), ratio).numpy()
    assert_ranked(mask, case.oracle(score), case.error(score), ratio, "unimportant")
    assert_ranked(mask, case.oracle("magnitude"), case.error("magnitude"), ratio, "unimportant")


@settings(max_examples=100)
@given(cases(), st.sampled_from(["std", "activation", "obd"]))
def test_float32_heads_score_as_their_float64_twin(case, score):
    expected, size = case.oracle(score), np.abs(case.terms()).sum(axis=2).max(axis=0)
    scores = case.head.float().edge_scores(case.features.float(), score).double().numpy()
    tolerance = 1e-4 * size**2 if score == "obd" else 1e-5 * size
    assert (np.abs(scores - expected) <= tolerance + 1e-5 * expected).all()


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("value", [0.0, 0.3, -1.7, 41.0])
def test_edges_of_a_dead_feature_go_first_and_by_their_size(kind, value):
    torch.manual_seed(0)
    head = {"linear": LinearHead, "cosine": CosineHead, "kan": KANHead}[kind](3, 6)
    features = torch.randn(7, 3)
    if kind == "cosine":
        features = features[:1].repeat(7, 1) * torch.rand(7, 1)  # of one direction: constant once normalized
    features[:, 1] = value * (features.norm(dim=1) if kind == "cosine" else 1)
    basis, coefficients = head.basis(features).detach(), head.coefficients().detach()
    scores = std_scores(basis, coefficients)
    size = coefficients.double().norm(dim=1)
    assert scores[:, 1].argsort().tolist() == size[:, 1].argsort().tolist()
    assert (scores[:, 1] > 0).all()
    if kind != "cosine":
        assert scores[:, 1].max() < scores[:, [0, 2]].min()
        mask = edge_mask(scores, 1 / 3)
        assert mask[:, 1].sum() == 0


def test_a_nearly_constant_edge_keeps_its_rank():
    torch.manual_seed(0)
    head = KANHead(16, 40).double()
    with torch.no_grad():
        head.spline_weight.copy_(1 + 1e-4 * torch.randn_like(head.spline_weight))
        head.spline_scaler.fill_(1.0)
        head.base_weight.zero_()
    features = torch.empty(128, 16, dtype=torch.float64).uniform_(-1, 1)
    basis, coefficients = head.basis(features).detach(), head.coefficients().detach()
    direct = torch.einsum("bfi,kfi->bki", basis, coefficients).std(dim=0, correction=0)
    assert direct.max() < 1e-3
    torch.testing.assert_close(std_scores(basis, coefficients), direct, rtol=1e-5, atol=0)
    torch.testing.assert_close(std_scores(basis.float(), coefficients.float()), direct, rtol=2e-2, atol=0)


@pytest.mark.parametrize("size", [1.0, 1e4])
def test_an_edge_whose_terms_cancel_has_no_spread_rather_than_nan(size):
    torch.manual_seed(0)
    basis = KANHead(64, 1).double().basis(torch.empty(50, 64, dtype=torch.float64).uniform_(-1, 1))
    coefficients = size * torch.ones(3, 9, 64, dtype=torch.float64)
    coefficients[:, 8] = 0.0  # splines alone, which sum to one
    scores = std_scores(basis, coefficients)
    assert ((scores >= 0) & (scores < 1e-6 * size)).all()
    parts = [(part, coefficients) for part in basis.split([20, 30])]
    assert ((merged := in_parts(std_scores, parts, 54 * 64 + 1)) >= 0).all()
    assert (merged < 1e-6 * size).all()


def in_parts(score, parts, expected_size):
    """A score as processes would compute it that hold a part each, and add up what they pack in one call."""
    packed = []

    def keep(statistics):
        packed.append(statistics.clone())
        return statistics

    for part in parts:
        score(*part, all_reduce=keep)
    assert len(packed) == len(parts)
    assert [tuple(statistics.shape) for statistics in packed] == [(expected_size,)] * len(parts)
    results = [score(*part, all_reduce=lambda own: sum(packed)) for part in parts]
    for result in results[1:]:
        assert torch.equal(result, results[0])
    return results[0]


@settings(max_examples=60)
@given(cases(), st.lists(st.integers(0, 5), min_size=2, max_size=3).filter(any), st.integers(0, 2**32 - 1))
def test_statistics_of_parts_add_up_to_those_of_the_whole(case, sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    more = torch.randn(sum(sizes), case.features.shape[1], generator=generator, dtype=torch.float64)
    case.features = torch.where(torch.from_numpy(case.dead), case.features[0], more)
    coefficients = case.head.coefficients().detach()
    basis = case.head.basis(case.features).detach()
    p = case.head.logits(basis).detach().softmax(dim=1)
    (classes, terms, inputs), size = coefficients.shape, np.abs(case.terms()).sum(axis=2).max(axis=0)

    parts = [(b, coefficients) for b in basis.split(sizes)]
    moments = (terms * (terms + 1) // 2 + terms) * inputs + 1
    for function in (std_scores, activation_scores):
        merged, whole = in_parts(function, parts, moments).numpy(), function(basis, coefficients).numpy()
        assert (np.abs(merged**2 - whole**2) <= 1e-12 * whole**2 + 1e-13 * size**2).all()
    constant = torch.from_numpy(case.constant_terms())
    assert constant.sum() >= case.dead.sum() * (case.kind != "cosine")
    merged, whole = in_parts(std_scores, parts, moments)[:, constant], std_scores(basis, coefficients)[:, constant]
    torch.testing.assert_close(merged, whole, rtol=1e-9, atol=0)

    parts = [(b, coefficients, q) for b, q in zip(basis.split(sizes), p.split(sizes), strict=True)]
    merged = in_parts(obd_scores, parts, classes * inputs + 1)
    torch.testing.assert_close(merged, obd_scores(basis, coefficients, p), rtol=1e-12, atol=1e-300)


def test_masks_of_parts_are_those_of_the_whole():
    torch.manual_seed(0)
    head = KANHead(24, 20)
    features = torch.randn(65, 24).relu()
    features[:, :4] = torch.tensor([0.0, 0.3, -1.7, 0.77])
    basis, coefficients = head.basis(features).detach(), head.coefficients().detach()
    sizes = [3, 41, 21]
    merged = in_parts(std_scores, [(b, coefficients) for b in basis.split(sizes)], 54 * 24 + 1)
    whole = std_scores(basis, coefficients)
    for mask in (node_mask, edge_mask):
        for ratio in (0.15, 0.5, 0.8):
            assert torch.equal(mask(merged, ratio), mask(whole, ratio))


def test_a_large_common_value_does_not_swallow_the_spread():
    torch.manual_seed(0)
    features = (1e4 + torch.randn(50, 1, 3)).float()
    scores = std_scores(features, torch.ones(2, 1, 3))
    expected = features.double().std(dim=0, correction=0).expand(2, 3)
    torch.testing.assert_close(scores, expected, rtol=1e-12, atol=0)
    merged = in_parts(std_scores, [(part, torch.ones(2, 1, 3)) for part in features.split([20, 30])], 2 * 3 + 1)
    torch.testing.assert_close(merged, expected, rtol=1e-6, atol=0)


def test_optimal_brain_damage_of_a_linear_head_is_the_diagonal_of_its_hessian():
    torch.manual_seed(0)
    head, features, target = LinearHead(3, 4).double(), torch.randn(5, 3).double(), torch.tensor([0, 1, 2, 3, 0])

    def loss(weight):
        return F.cross_entropy(F.linear(features, weight, head.bias.detach()), target)

    hessian = torch.autograd.functional.hessian(loss, head.weight.detach()).view(12, 12).diag().view(4, 3)
    expected = 0.5 * hessian * head.weight.detach() ** 2
    torch.testing.assert_close(head.edge_scores(features, "obd"), expected)


def test_gradient_score_is_the_slope_of_the_loss_along_the_edge():
    torch.manual_seed(0)
    head, features, target = KANHead(3, 4).double(), torch.randn(5, 3).double(), torch.tensor([0, 1, 2, 3, 0])
    strength = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    logits = torch.einsum("bfi,kfi,ki->bk", head.basis(features), head.coefficients(), strength)
    logits.retain_grad()
    F.cross_entropy(logits, target).backward()
    scores = gradient_scores(dense_gradient(logits.grad, head.basis(features).detach()), head.coefficients().detach())
    torch.testing.assert_close(scores, strength.grad.abs())


def test_dense_gradient_is_at_least_float32():
    basis, gradient = torch.randn(5, 2, 3), torch.randn(5, 4)
    expected = torch.einsum("bk,bfi->kfi", gradient.bfloat16().double(), basis.bfloat16().double())
    dense = dense_gradient(gradient.bfloat16(), basis.bfloat16())
    assert dense.dtype == torch.float32
    torch.testing.assert_close(dense.double(), expected, rtol=1e-5, atol=1e-5)
    assert dense_gradient(gradient.double(), basis).dtype == torch.float64


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("score", [None, *SCORES, "parts"])
def test_no_tensor_has_the_size_of_all_activations(kind, score, monkeypatch):
    batch, classes, inputs = 48, 40, 24
    monkeypatch.setattr(scores_module, "_CHUNK", 512)
    head = {"linear": LinearHead, "cosine": CosineHead, "kan": KANHead}[kind](inputs, classes)
    features = torch.randn(batch, inputs, requires_grad=True)
    gradient = torch.randn(batch, classes)
    with LargestTensor() as largest:
        if score is None:
            head.edge_mask = (torch.rand(classes, inputs) < 0.5).float()
            head(features).square().sum().backward()
        elif score == "gradient":
            dense = dense_gradient(gradient, head.basis(features).detach())
            gradient_scores(dense, head.coefficients().detach())
        elif score == "parts":
            for name in ("std", "activation", "obd"):
                head.batch_scores(head.basis(features).detach(), name, all_reduce=torch.clone)
        else:
            edge_mask(head.edge_scores(features, score), 0.5)
    assert 0 < largest.elements < batch * classes * inputs / 2


@pytest.mark.parametrize(("batch", "classes", "inputs"), [(128, 400, 96), (128, 40, 96), (32, 20, 64)])
def test_at_a_real_size_no_tensor_has_the_size_of_all_activations(batch, classes, inputs):
    head, features = KANHead(inputs, classes), torch.randn(batch, inputs)
    with LargestTensor() as largest:
        for score in ("std", "activation", "obd"):
            head.edge_scores(features, score)
    assert largest.elements < batch * classes * inputs / 2


@pytest.mark.parametrize("score", ["std", "activation"])
def test_a_batch_of_one_has_scores(score):
    head = KANHead(3, 4)
    scores = head.edge_scores(torch.randn(1, 3), score)
    assert scores.isfinite().all()
    assert (node_mask(scores, 0.5).sum(dim=0) == 2).all()


def test_scores_of_weights():
    coefficients = torch.tensor([[[3.0, -1.0], [-4.0, 2.0]]])
    assert magnitude_scores(coefficients).tolist() == [[5.0, pytest.approx(5**0.5)]]
    assert signed_scores(coefficients).tolist() == [[-1.0, 1.0]]
    assert magnitude_scores(coefficients[:, :1]).tolist() == [[3.0, 1.0]]
    assert signed_scores(coefficients[:, :1]).tolist() == [[3.0, -1.0]]


def test_scores_from_processes_need_one_call():
    calls = []

    def count(packed):
        calls.append(packed)
        return packed

    head, features = KANHead(3, 4), torch.randn(5, 3)
    for score in ("std", "activation", "obd"):
        head.batch_scores(head.basis(features).detach(), score, all_reduce=count)
    assert len(calls) == 3
