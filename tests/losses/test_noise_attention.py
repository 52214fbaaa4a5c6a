from __future__ import annotations

import copy
import math

import pytest
import torch

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses import NoiseAttentionLoss

CLASSES, WIDTH = 4, 5


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "logits": torch.randn(6, CLASSES, generator=generator, dtype=torch.float64),
        "target": torch.tensor([0, 1, 2, 3, 0, 1]),
        "features": torch.randn(6, WIDTH, generator=generator, dtype=torch.float64),
    }


def naive(loss: NoiseAttentionLoss, logits: torch.Tensor, target: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """The paper's Eq. (3) and RNAL's term, without clips: the batch keeps away from them."""
    assert loss.branch is not None
    tau = torch.sigmoid(features @ loss.branch.weight[0] + loss.branch.bias)[:, None]
    mixture = tau * logits.softmax(1) + (1 - tau) * target
    losses = -(target * mixture.log()).sum(1) - loss.lam * tau[:, 0].log()
    return losses - loss.beta * (mixture * target.clamp(min=loss.target_eps).log()).sum(1)


def make(**arguments: object) -> NoiseAttentionLoss:
    torch.manual_seed(0)
    return NoiseAttentionLoss(WIDTH, **arguments).double()  # type: ignore[arg-type]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_labels_are_exact_one_hot_rows(batch: dict[str, torch.Tensor], reduction: str, beta: float) -> None:
    loss = make(lam=10.0, beta=beta, reduction=reduction)
    rows = torch.nn.functional.one_hot(batch["target"], CLASSES).double()
    expected = naive(loss, batch["logits"], rows, batch["features"])
    expected = getattr(expected, reduction)() if reduction != "none" else expected
    torch.testing.assert_close(loss(**batch), expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(loss(**{**batch, "target": rows}), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_soft_targets(batch: dict[str, torch.Tensor], beta: float) -> None:
    loss = make(beta=beta)
    batch["target"] = batch["logits"].flip(1).softmax(1)
    torch.testing.assert_close(loss(**batch), naive(loss, **batch).mean(), rtol=1e-10, atol=0)


@pytest.mark.parametrize("floor", [1e-4, 0.1])
def test_label_floor_is_the_weight_of_the_other_classes(batch: dict[str, torch.Tensor], floor: float) -> None:
    rows = torch.full((6, CLASSES), floor, dtype=torch.float64)
    rows[torch.arange(6), batch["target"]] = 1.0
    loss = make(label_floor=floor, beta=0.1)
    expected = naive(loss, batch["logits"], rows, batch["features"]).mean()
    torch.testing.assert_close(loss(**batch), expected, rtol=1e-10, atol=0)


def test_floors_are_the_arguments() -> None:
    hopeless = {
        "logits": torch.tensor([[-100.0, 0.0]], dtype=torch.float64),
        "target": torch.tensor([0]),
        "features": torch.full((1, WIDTH), 1e4, dtype=torch.float64),
    }
    loss = make(lam=0.0, eps=0.01)
    assert loss.branch is not None
    torch.nn.init.ones_(loss.branch.weight)
    assert loss(**hopeless).item() == pytest.approx(-math.log(0.01))
    loss.eps, loss.attention_eps = 1e-7, 0.2
    assert loss(**hopeless).item() == pytest.approx(-math.log(0.8 * 0.2 + 0.2))
    loss.beta, loss.target_eps = 1.0, 0.1
    other = -(0.8 * 0.8) * math.log(0.1)
    assert loss(**hopeless).item() == pytest.approx(-math.log(0.8 * 0.2 + 0.2) + other)


def test_sample_attention_is_the_tau_of_the_loss(batch: dict[str, torch.Tensor]) -> None:
    loss = make(attention_eps=0.4)
    assert loss.branch is not None
    raw = torch.sigmoid(batch["features"] @ loss.branch.weight[0] + loss.branch.bias)
    assert raw.min() < 0.4 < raw.max()
    tau = loss.sample_attention(batch["logits"], features=batch["features"])
    torch.testing.assert_close(tau, raw.clamp(0.4, 0.6), rtol=1e-12, atol=0)
    assert tau.shape == (6,)
    confident = NoiseAttentionLoss(attention="confidence")
    found = confident.sample_attention(batch["logits"])
    torch.testing.assert_close(found, batch["logits"].softmax(1).max(1).values, rtol=1e-12, atol=0)
    half = confident.sample_attention(batch["logits"].bfloat16(), features=batch["features"])
    assert half.dtype == torch.float32
    sure = torch.tensor([[-300.0, 300.0], [0.0, 0.0]])
    assert confident.sample_attention(sure).tolist() == [1.0, 0.5]
    with pytest.raises(NoisyLabelError, match="no attention branch yet"):
        NoiseAttentionLoss().sample_attention(batch["logits"], features=batch["features"])


def test_defaults() -> None:
    loss = NoiseAttentionLoss()
    assert (loss.lam, loss.beta, loss.eps, loss.attention_eps) == (0.5, 0.0, 1e-7, 1e-12)
    assert (loss.target_eps, loss.label_floor, loss.reduction) == (1e-4, 0.0, "mean")
    assert loss.branch is None
    assert loss.requires == ("features",)
    assert loss.soft_targets


def test_gradient_reaches_branch_features_and_logits(batch: dict[str, torch.Tensor]) -> None:
    loss = make()
    batch["logits"].requires_grad_()
    batch["features"].requires_grad_()
    loss(**batch).backward()
    assert loss.branch is not None
    for part in (batch["logits"], batch["features"], loss.branch.weight, loss.branch.bias):
        assert part.grad is not None
        assert part.grad.abs().sum() > 0


def test_bind_makes_the_branch_once() -> None:
    loss = NoiseAttentionLoss()
    assert list(loss.parameters()) == []
    loss.bind(WIDTH, CLASSES)
    assert loss.branch is not None
    assert (loss.branch.in_features, loss.branch.out_features) == (WIDTH, 1)
    weight = loss.branch.weight
    loss.bind(WIDTH, CLASSES)
    assert loss.branch.weight is weight


def test_bind_keeps_the_branch_of_the_constructor() -> None:
    loss = NoiseAttentionLoss(WIDTH)
    assert loss.branch is not None
    weight = loss.branch.weight
    loss.bind(WIDTH, CLASSES)
    assert loss.branch.weight is weight
    with pytest.raises(NoisyLabelError) as caught:
        loss.bind(7, CLASSES)
    assert str(caught.value) == "Expected argument `in_features` to be 7, the width of the features, but got 5."


def test_copy_and_state(batch: dict[str, torch.Tensor]) -> None:
    loss = make()
    assert sorted(loss.state_dict()) == ["branch.bias", "branch.weight"]
    twin = copy.deepcopy(loss)
    assert twin.branch is not None
    torch.nn.init.zeros_(twin.branch.weight)
    assert not torch.equal(twin(**batch), loss(**batch))
    bound = NoiseAttentionLoss()
    assert bound.state_dict() == {}
    bound.bind(WIDTH, CLASSES)
    bound.double().load_state_dict(loss.state_dict(), strict=True)
    assert torch.equal(bound(**batch), loss(**batch))


def test_autocast_leaves_the_branch_in_float32(batch: dict[str, torch.Tensor]) -> None:
    loss = NoiseAttentionLoss(WIDTH)
    batch = {name: value.float() if value.is_floating_point() else value for name, value in batch.items()}
    expected = loss(**batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(**batch), expected)
        branch = loss.attention_logits(batch["features"])
    assert loss.branch is not None
    torch.testing.assert_close(branch, batch["features"] @ loss.branch.weight.T + loss.branch.bias)


def test_call_without_features(batch: dict[str, torch.Tensor]) -> None:
    with pytest.raises(NoisyLabelError) as caught:
        make()(batch["logits"], batch["target"])
    assert str(caught.value) == (
        "NoiseAttentionLoss expects `features`, the features (B, D) that the logits were made of, but got None: pass "
        "`features=...`, add the callback `LossMemory()`, or use it in a NoisyLabelModule."
    )


def test_call_before_bind(batch: dict[str, torch.Tensor]) -> None:
    with pytest.raises(NoisyLabelError) as caught:
        NoiseAttentionLoss()(**batch)
    assert str(caught.value) == (
        "NoiseAttentionLoss has no attention branch yet: give it `in_features`, call `bind(num_features, num_classes)` "
        "before the optimizer is made, or use it in a NoisyLabelModule."
    )


@pytest.mark.parametrize(
    ("name", "wanted", "values"),
    [
        ("in_features", "an int of at least 1, or None", (0, -1)),
        ("lam", "a finite float >= 0", (-0.1, math.nan, math.inf)),
        ("beta", "a finite float >= 0", (-0.1, math.nan, math.inf)),
        ("eps", "a float in (0, 1)", (0.0, 1.0, math.nan)),
        ("attention_eps", "a float in [0, 0.5)", (-1e-12, 0.5, math.nan)),
        ("target_eps", "a float in (0, 1)", (0.0, 1.0, math.nan)),
        ("label_floor", "a float in [0, 1)", (-1e-4, 1.0, math.nan)),
        ("reduction", "'mean', 'sum' or 'none'", ("all",)),
    ],
)
def test_refused_arguments(name: str, wanted: str, values: tuple[float, ...]) -> None:
    for value in values:
        with pytest.raises(NoisyLabelError) as caught:
            NoiseAttentionLoss(**{name: value})
        assert str(caught.value) == f"Expected argument `{name}` to be {wanted}, but got {value!r}."


class TestConfidence:
    @pytest.mark.parametrize("beta", [0.0, 0.1])
    def test_attention_is_the_largest_probability(self, batch: dict[str, torch.Tensor], beta: float) -> None:
        loss = NoiseAttentionLoss(lam=2.0, beta=beta, attention="confidence", reduction="none").double()
        logits, rows = batch["logits"].requires_grad_(), torch.eye(CLASSES, dtype=torch.float64)[batch["target"]]
        actual = loss(logits, batch["target"])
        (gradient,) = torch.autograd.grad(actual.sum(), logits)
        tau = logits.softmax(1).amax(1, keepdim=True)
        mixture = tau * logits.softmax(1) + (1 - tau) * rows
        expected = -(rows * mixture.log()).sum(1) - 2.0 * tau[:, 0].log()
        expected = expected - beta * (mixture * rows.clamp(min=1e-4).log()).sum(1)
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=0)
        torch.testing.assert_close(gradient, torch.autograd.grad(expected.sum(), logits)[0], rtol=1e-10, atol=1e-14)

    def test_needs_no_branch(self, batch: dict[str, torch.Tensor]) -> None:
        loss = NoiseAttentionLoss(WIDTH, attention="confidence")
        loss.bind(WIDTH + 1, CLASSES)
        assert loss.requires == ()
        assert loss.branch is None
        assert loss.state_dict() == {}
        value = loss((1e4 * batch["logits"]).half().requires_grad_(), batch["target"])
        assert value.isfinite()
        assert NoiseAttentionLoss().requires == ("features",)

    def test_refused(self) -> None:
        with pytest.raises(NoisyLabelError) as caught:
            NoiseAttentionLoss(attention="entropy")
        assert str(caught.value) == ("Expected argument `attention` to be 'branch' or 'confidence', but got 'entropy'.")
