"""The losses of logits and target alone: that their arguments reach the functions, which have tests of their own."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from lightning_noisy import losses as L
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.functional import losses as F
from lightning_noisy.losses import NoisyLabelLoss

LABELS = torch.tensor([0, 1, 2, 3, 0, 1])
LOGITS = 3 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
AT_LEAST_0 = (-0.1, math.nan, math.inf)
ABOVE_0 = (0.0, -0.1, math.nan, math.inf)
FLOOR = ("a float in [0, 1)", (-1e-7, 1.0, math.nan))
OPEN_FLOOR = ("a float in (0, 1)", (0.0, 1.0, math.nan))


class Case(NamedTuple):
    """A loss, two sets of arguments without a common value, its function, its defaults, and what it refuses."""

    kind: type[NoisyLabelLoss]
    first: dict[str, Any]
    second: dict[str, Any]
    function: Callable[..., Tensor]
    defaults: dict[str, Any]
    refused: dict[str, tuple[str, tuple[Any, ...]]]
    soft_targets: bool = False


CASES = [
    Case(
        L.GeneralizedCrossEntropy,
        {"q": 0.3, "eps": 1e-3},
        {"q": 0.9, "eps": 0.1},
        F.generalized_cross_entropy,
        {"q": 0.7, "eps": 1e-7},
        {"q": ("a finite float >= 0", AT_LEAST_0), "eps": FLOOR},
        soft_targets=True,
    ),
    Case(
        L.MeanAbsoluteError,
        {"scale": 2.0},
        {"scale": 3.0},
        F.mean_absolute_error,
        {"scale": 1.0},
        {"scale": ("a finite float > 0", ABOVE_0)},
    ),
    Case(L.NormalizedCrossEntropy, {}, {}, F.normalized_cross_entropy, {}, {}),
    Case(
        L.FocalLoss,
        {"gamma": 2.0, "detach": True},
        {"gamma": 0.1, "detach": False},
        F.focal_loss,
        {"gamma": 0.5, "detach": False},
        {"gamma": ("a finite float >= 0", AT_LEAST_0)},
    ),
    Case(
        L.NormalizedFocalLoss,
        {"gamma": 2.0, "detach": False},
        {"gamma": 0.1, "detach": True},
        F.normalized_focal_loss,
        {"gamma": 0.5, "detach": True},
        {"gamma": ("a finite float >= 0", AT_LEAST_0)},
    ),
    Case(
        L.NormalizedNegativeFocalLoss,
        {"gamma": 2.0, "eps": 1e-3, "detach": False},
        {"gamma": 0.1, "eps": 0.1, "detach": True},
        F.normalized_negative_focal_loss,
        {"gamma": 0.5, "eps": 1e-7, "detach": True},
        {
            "gamma": ("a finite float >= 0", AT_LEAST_0),
            "eps": ("a float in (0, 1 / (2 K)]", (0.0, 0.5, math.nan)),
        },
    ),
    Case(
        L.NormalizedGeneralizedCrossEntropy,
        {"q": 0.3, "eps": 1e-3},
        {"q": 0.9, "eps": 0.1},
        F.normalized_generalized_cross_entropy,
        {"eps": 1e-7},
        {"q": ("a finite float > 0", ABOVE_0), "eps": FLOOR},
    ),
    Case(
        L.TaylorCrossEntropy,
        {"order": 4, "eps": 1e-3},
        {"order": 2, "eps": 0.1},
        F.taylor_cross_entropy,
        {"eps": 1e-6},
        {"order": ("a finite number >= 1", (0.9, 0, math.nan, math.inf)), "eps": FLOOR},
    ),
    Case(
        L.Poly1CrossEntropy,
        {"epsilon": 2.0},
        {"epsilon": -1.0},
        F.poly1_cross_entropy,
        {},
        {"epsilon": ("a finite float >= -1", (-1.1, math.nan, math.inf))},
    ),
    Case(
        L.AsymmetricGeneralizedCrossEntropy,
        {"a": 6.0, "q": 1.5},
        {"a": 4.0, "q": 0.2},
        F.asymmetric_generalized_cross_entropy,
        {},
        {"a": ("a finite float > 0", ABOVE_0), "q": ("a finite float > 0", ABOVE_0)},
    ),
    Case(
        L.AsymmetricUnhingedLoss,
        {"a": 6.3, "q": 1.5},
        {"a": 3.0, "q": 0.1},
        F.asymmetric_unhinged_loss,
        {},
        {"a": ("a finite float > 1", (1.0, math.nan, math.inf)), "q": ("a finite float > 0", ABOVE_0)},
    ),
    Case(
        L.AsymmetricExponentialLoss,
        {"a": 5.0},
        {"a": 1.5},
        F.asymmetric_exponential_loss,
        {},
        {"a": ("a finite float > 0", ABOVE_0)},
    ),
    Case(
        L.JensenShannonLoss,
        {"pi": 0.3, "scaled": False, "eps": 1e-3},
        {"pi": 0.7, "scaled": True, "eps": 0.1},
        lambda z, y, **arguments: F.generalized_jensen_shannon([z], y, **arguments),
        {"scaled": True, "eps": 1e-7},
        {"pi": ("a float in [0, 1]", (-0.1, 1.1, math.nan)), "eps": OPEN_FLOOR},
        soft_targets=True,
    ),
    Case(
        L.BiTemperedLogisticLoss,
        {"t1": 0.7, "t2": 3.0, "num_iters": 2, "eps": 1e-3},
        {"t1": 0.2, "t2": 1.5, "num_iters": 1, "eps": 0.1},
        F.bi_tempered_logistic_loss,
        {"num_iters": 5, "eps": 1e-10},
        {
            "t1": ("a float in [0, 1]", (-0.1, 1.1, math.nan)),
            "t2": ("a finite float >= 1", (0.9, math.nan, math.inf)),
            "num_iters": ("an int of at least 1", (0, -1, 2.5)),
            "eps": OPEN_FLOOR,
        },
        soft_targets=True,
    ),
]
every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind.__name__)


def gradient(function: Callable[[Tensor], Tensor]) -> Tensor:
    leaf = LOGITS.clone().requires_grad_()
    function(leaf).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


@every
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_arguments_reach_the_function(case: Case, reduction: str) -> None:
    for arguments in (case.first, case.second):
        each = case.function(LOGITS, LABELS, **arguments)
        expected = each if reduction == "none" else getattr(each, reduction)()
        loss = case.kind(**arguments, reduction=reduction)
        assert torch.equal(loss(LOGITS, LABELS), expected)
    if case.first:
        assert not torch.equal(case.kind(**case.first)(LOGITS, LABELS), case.kind(**case.second)(LOGITS, LABELS))


@every
def test_every_argument_counts_alone(case: Case) -> None:
    """Set later as well as at the start: what a schedule does. Some show in the gradient only."""
    hopeless = torch.cat([LOGITS, torch.tensor([[-9.0, 0.0, 0.0, 5.0]], dtype=torch.float64)])
    labels = torch.cat([LABELS, torch.tensor([0])])
    for name, value in case.second.items():
        loss = case.kind(**case.first, reduction="none")
        before = loss(hopeless, labels), gradient(lambda z, loss=loss: loss(z, LABELS))
        setattr(loss, name, value)
        after = loss(hopeless, labels), gradient(lambda z, loss=loss: loss(z, LABELS))
        assert torch.equal(after[0], case.function(hopeless, labels, **{**case.first, name: value}))
        assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True)), name


@every
def test_defaults(case: Case) -> None:
    needed = {name: value for name, value in case.first.items() if name not in case.defaults}
    loss = case.kind(**needed)
    assert {name: getattr(loss, name) for name in case.defaults} == case.defaults
    assert (loss.requires, loss.soft_targets, loss.reduction) == ((), case.soft_targets, "mean")
    assert loss.state_dict() == loss.store_shapes(4) == {}
    arguments = ", ".join(f"{name}={getattr(loss, name)!r}" for name in case.first)
    assert repr(loss) == f"{case.kind.__name__}(reduction='mean'{', ' if arguments else ''}{arguments})"


@every
def test_refused_arguments(case: Case) -> None:
    assert set(case.refused) == {name for name, value in case.first.items() if not isinstance(value, bool)}
    for name, (wanted, values) in {**case.refused, "reduction": ("'mean', 'sum' or 'none'", ("all",))}.items():
        for value in values:
            with pytest.raises(NoisyLabelError) as caught:
                case.kind(**{**case.first, name: value})
            assert str(caught.value) == f"Expected argument `{name}` to be {wanted}, but got {value!r}."


@every
def test_copy(case: Case) -> None:
    loss = case.kind(**case.first)
    twin = copy.deepcopy(loss)
    for name, value in case.second.items():
        setattr(twin, name, value)
    assert {name: getattr(loss, name) for name in case.first} == case.first


class TestOrderOfTaylorCrossEntropy:
    @pytest.mark.parametrize(
        ("order", "terms"), [(20.0, 20), (19.9, 20), (19.4, 19), (1.4, 1), (0.3, 1), (-2.0, 1), (2, 2)]
    )
    def test_is_rounded_and_at_least_one_when_used(self, order: float, terms: int) -> None:
        loss = L.TaylorCrossEntropy(3)
        loss.order = order
        assert torch.equal(loss(LOGITS, LABELS), F.taylor_cross_entropy(LOGITS, LABELS, terms).mean())
        assert loss.order == order


def test_floor_of_nnfl_is_refused_where_it_could_leave_nothing_to_divide_by() -> None:
    loss = L.NormalizedNegativeFocalLoss(eps=0.05)
    assert loss(torch.zeros(2, 10), torch.tensor([0, 1])).item() == pytest.approx(0.9)
    with pytest.raises(NoisyLabelError) as caught:
        loss(torch.zeros(2, 11), torch.tensor([0, 1]))
    assert str(caught.value) == (
        "Expected argument `eps` to be at most 1 / (2 K) = 0.0455 for these logits, but got 0.05."
    )
