"""What holds for every head: masked edges are as if they were zero, scores are told apart, errors are one line."""

import copy
import pickle

import pytest
import torch
from torch import nn

from lightning_noisy import NoisyLabelError
from lightning_noisy.heads import CosineHead, DropConnectHead, DropoutHead, KANHead, LinearHead
from tests.textbook_kan import KANLinear

K, D = 4, 3
HEADS = {
    "linear": LinearHead,
    "no bias": lambda inputs, classes: LinearHead(inputs, classes, bias=False),
    "dropout": lambda inputs, classes: DropoutHead(inputs, classes).eval(),
    "dropconnect": lambda inputs, classes: DropConnectHead(inputs, classes).eval(),
    "kan": KANHead,
    "kan, order 2": lambda inputs, classes: KANHead(inputs, classes, spline_order=2),
}
PLAIN = {"linear": nn.Linear, "dropout": nn.Linear, "dropconnect": nn.Linear, "kan": KANLinear}
MASK = torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 0], [0, 1, 1]])


def make(name):
    """A head whose parameters are all of size one."""
    torch.manual_seed(0)
    head = {**HEADS, "cosine": CosineHead}[name](D, K)
    for parameter in head.parameters():
        parameter.data = torch.randn_like(parameter)
    return head


def edge_parameters(head):
    """The parameters that belong to edges: all but a bias."""
    return {name: parameter for name, parameter in head.named_parameters() if name != "bias"}


def zeroed(head):
    """The head with the masked edges' parameters set to zero instead of a mask."""
    twin = copy.deepcopy(head)
    twin.edge_mask = None
    for parameter in edge_parameters(twin).values():
        parameter.data *= MASK.to(parameter).reshape(K, D, *[1] * (parameter.ndim - 2))
    return twin


@pytest.mark.parametrize("shape", [(7,), (), (2, 3), (1,), (0,)])
@pytest.mark.parametrize("name", HEADS)
def test_a_masked_head_computes_as_if_its_edges_were_zero(name, shape):
    head = make(name).double()
    head.edge_mask = MASK.double()
    x = torch.randn(*shape, D, dtype=torch.float64)
    logits = head(x)
    assert logits.shape == (*shape, K)
    torch.testing.assert_close(logits, zeroed(head)(x), rtol=1e-12, atol=1e-12)
    head.edge_mask = None
    assert 0 in shape or not torch.allclose(logits, head(x))


@pytest.mark.parametrize("name", HEADS)
def test_masked_edges_have_no_gradient_and_the_others_their_own(name):
    head = make(name).double()
    head.edge_mask = MASK.double()
    twin = zeroed(head)
    upstream = torch.randn(9, K, dtype=torch.float64)
    gradients = []
    for model in (head, twin):
        torch.manual_seed(1)
        x = torch.randn(9, D, dtype=torch.float64, requires_grad=True)
        (model(x) * upstream).sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)
    for key, parameter in edge_parameters(head).items():
        gone = MASK == 0
        assert (parameter.grad[gone] == 0).all()
        assert (parameter.grad[~gone] != 0).all()
        torch.testing.assert_close(parameter.grad[~gone], twin.get_parameter(key).grad[~gone], rtol=1e-12, atol=1e-12)
    if getattr(head, "bias", None) is not None:
        torch.testing.assert_close(head.bias.grad, upstream.sum(dim=0))


@pytest.mark.parametrize("name", HEADS)
def test_masked_edges_keep_their_value_in_a_step(name):
    head = make(name)
    head.edge_mask = MASK
    before = copy.deepcopy(head)
    head(torch.randn(9, D)).square().sum().backward()
    torch.optim.SGD(head.parameters(), lr=0.1).step()
    for key, parameter in edge_parameters(head).items():
        assert torch.equal(parameter[MASK == 0], before.get_parameter(key)[MASK == 0])


@pytest.mark.parametrize("name", PLAIN)
def test_checkpoints_fit_the_plain_layer_masked_or_not(name):
    head, plain = make(name), PLAIN[name](D, K)
    assert set(head.state_dict()) == set(plain.state_dict())
    head.edge_mask = MASK
    assert set(head.state_dict()) == set(plain.state_dict())
    plain.load_state_dict(head.state_dict(), strict=True)
    head.edge_mask = None
    x = torch.randn(5, D)
    torch.testing.assert_close(head(x), plain(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [*HEADS, "cosine"])
@pytest.mark.parametrize("masked", [False, True])
def test_bfloat16_autocast(name, masked):
    head, x = make(name), torch.randn(6, D)
    head.edge_mask = MASK if masked else None
    expected = head(x)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(x)
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), expected, rtol=0.03, atol=0.1)
    logits.float().square().sum().backward()
    for parameter in edge_parameters(head).values():
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()
        if masked and name != "cosine":
            assert (parameter.grad[MASK == 0] == 0).all()


@pytest.mark.parametrize("name", [*HEADS, "cosine"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_parameters_and_mask_change_their_dtype_together(name, dtype):
    head = make(name)
    head.edge_mask = MASK
    x = torch.randn(6, D).to(dtype)
    assert head.to(dtype) is head
    assert head.edge_mask.dtype == dtype
    logits = head(x)
    assert logits.dtype == dtype
    logits.float().square().sum().backward()
    for parameter in edge_parameters(head).values():
        assert parameter.grad.dtype == dtype
        assert parameter.grad.isfinite().all()
    head.edge_mask = None
    wide = copy.deepcopy(head).double()
    torch.testing.assert_close(head(x).double(), wide(x.double()), rtol=0.05, atol=0.1)
    for score in ("std", "activation", "obd", "magnitude", "signed"):
        scores = head.edge_scores(x, score)
        assert scores.dtype in (torch.float32, torch.float64)
        torch.testing.assert_close(scores.double(), wide.edge_scores(x.double(), score).double(), rtol=0.1, atol=0.1)


@pytest.mark.parametrize("name", [*HEADS, "cosine"])
def test_the_mask_moves_and_is_copied_with_the_head(name):
    head, x = make(name), torch.randn(5, D)
    head.edge_mask = MASK
    expected = head(x)
    assert copy.deepcopy(nn.Sequential(head)).to("meta")[0].edge_mask.is_meta
    for twin in (copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
        assert torch.equal(twin(x), expected)
        twin.edge_mask.zero_()
    assert torch.equal(head(x), expected)
    assert not [key for key in head.state_dict() if "mask" in key]


@pytest.mark.parametrize("name", [*HEADS, "cosine"])
def test_the_basis_is_shown_before_the_mask_is_used(name):
    head, seen = make(name), []

    def watch(basis):
        seen.append(basis)
        head.edge_mask = torch.zeros(K, D)

    head.on_basis = watch
    x = torch.randn(2, 5, D, requires_grad=True)
    logits = head(x)
    bias = head.bias if getattr(head, "bias", None) is not None else torch.zeros(K)
    assert torch.equal(logits, bias.expand(2, 5, K))
    assert [tuple(basis.shape) for basis in seen] == [(10, head.num_terms, D)]
    assert not seen[0].requires_grad
    assert torch.equal(seen[0], head.basis(x.detach().reshape(10, D)))
    assert head.num_terms == {"kan": 9, "kan, order 2": 8}.get(name, 1)


@pytest.mark.parametrize("name", [*HEADS, "cosine"])
def test_logits_are_the_sum_of_the_terms(name):
    head, x = make(name).double(), torch.randn(6, D, dtype=torch.float64)
    terms = torch.einsum("bfi,kfi->bki", head.basis(x), head.coefficients(MASK.double()))
    assert (terms[:, MASK == 0] == 0).all()
    bias = head.bias if getattr(head, "bias", None) is not None else 0
    torch.testing.assert_close(head.logits(head.basis(x), MASK.double()), terms.sum(dim=2) + bias)


def test_scores_without_features_are_those_of_the_weights():
    x = torch.randn(6, D)
    for name in ("linear", "cosine"):
        head = make(name)
        for score in ("std", "activation", "magnitude"):
            assert torch.equal(head.edge_scores(score=score), head.coefficients().squeeze(1).abs())
        assert torch.equal(head.edge_scores(score="signed"), head.coefficients().squeeze(1))
    head = make("kan")
    coefficients = head.coefficients()
    assert coefficients.shape == (K, 9, D)
    torch.testing.assert_close(coefficients[:, 8], head.base_weight)
    torch.testing.assert_close(coefficients[:, 2], head.spline_weight[:, :, 2] * head.spline_scaler)
    torch.testing.assert_close(head.edge_scores(score="magnitude"), coefficients.norm(dim=1))
    assert torch.equal(head.edge_scores(x, "magnitude"), head.edge_scores(score="magnitude"))
    assert [make(name).ranks_by_magnitude("std") for name in ("linear", "cosine", "kan")] == [True, True, False]
    assert not make("linear").ranks_by_magnitude("obd")


@pytest.mark.parametrize("name", [*HEADS, "cosine"])
@pytest.mark.parametrize("score", ["std", "activation", "obd", "magnitude", "signed"])
def test_scores_look_at_all_edges_and_leave_no_trace(name, score):
    head, x = make(name), torch.randn(6, D, requires_grad=True)
    expected = head.edge_scores(x, score)
    head.edge_mask = MASK
    assert torch.equal(head.edge_scores(x, score), expected)
    assert not expected.requires_grad
    assert expected.shape == (K, D)
    assert x.grad is None
    assert head.edge_scores(x).equal(head.edge_scores(x, "std"))


def test_refuses_unknown_scores_and_scores_without_a_batch():
    names = "'std', 'activation', 'obd', 'magnitude', 'signed'"
    with pytest.raises(NoisyLabelError) as caught:
        make("linear").edge_scores(score="loudness")
    assert str(caught.value) == f"Expected argument `score` to be one of {names}, but got 'loudness'."
    for name, scores in {"linear": ["obd"], "kan": ["std", "activation", "obd"]}.items():
        for score in scores:
            head = make(name)
            with pytest.raises(NoisyLabelError) as caught:
                head.edge_scores(score=score)
            expected = f"The score '{score}' of a {type(head).__name__} looks at a batch: give `features` (B, D)."
            assert str(caught.value) == expected


@pytest.mark.parametrize("name", ["linear", "cosine", "kan"])
@pytest.mark.parametrize("score", ["std", "activation", "obd"])
@pytest.mark.parametrize("shape", [(6, D + 1), (6, 1), (2, 6, D), (D,), (0, D)])
def test_refuses_to_score_features_of_another_shape(name, score, shape):
    with pytest.raises(NoisyLabelError) as caught:
        make(name).edge_scores(torch.randn(shape), score)
    wanted = f"features (B, {D}), at least one row"
    assert str(caught.value) == f"Expected argument `features` to be {wanted}, but got {shape}."


@pytest.mark.parametrize("name", [*HEADS, "cosine"])
@pytest.mark.parametrize("shape", [(4, 2 * D), (5, 1), (D, 2), ()])
def test_refuses_features_of_another_width(name, shape):
    with pytest.raises(NoisyLabelError) as caught:
        make(name)(torch.randn(shape))
    assert str(caught.value) == f"Expected argument `input` to be features (..., {D}), but got {shape}."
