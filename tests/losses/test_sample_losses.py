"""The losses of samples by any criterion, whose mean is the criterion's own."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_noisy import SampleStore
from lightning_noisy import losses as L
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses import NoisyLabelLoss, per_sample

LOGITS = 2 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2, 3, 1, 1])
OTHERS = (LABELS + 1) % 4
IGNORING = torch.tensor([0, 1, 2, -100, 1, 3])
WEIGHTS = torch.tensor([1.0, 5.0, 0.5, 2.0], dtype=torch.float64)
WITH_ZERO = torch.tensor([1.0, 0.0, 0.5, 2.0], dtype=torch.float64)
ROWS = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)).double().softmax(1)
LOG_P = LOGITS.log_softmax(1)

TORCH: dict[str, tuple[Callable[[str], nn.Module], Tensor, Tensor]] = {
    "ce": (lambda r: nn.CrossEntropyLoss(reduction=r), LOGITS, LABELS),
    "ce-weight": (lambda r: nn.CrossEntropyLoss(WEIGHTS, reduction=r), LOGITS, LABELS),
    "ce-ignore": (lambda r: nn.CrossEntropyLoss(ignore_index=1, reduction=r), LOGITS, LABELS),
    "ce-ignore-default": (lambda r: nn.CrossEntropyLoss(WEIGHTS, reduction=r), LOGITS, IGNORING),
    "ce-smoothing": (lambda r: nn.CrossEntropyLoss(label_smoothing=0.3, reduction=r), LOGITS, LABELS),
    "ce-all": (
        lambda r: nn.CrossEntropyLoss(WEIGHTS, ignore_index=2, label_smoothing=0.3, reduction=r),
        LOGITS,
        LABELS,
    ),
    "ce-zero-weight": (lambda r: nn.CrossEntropyLoss(WITH_ZERO, label_smoothing=0.3, reduction=r), LOGITS, LABELS),
    "ce-rows": (lambda r: nn.CrossEntropyLoss(WEIGHTS, label_smoothing=0.3, reduction=r), LOGITS, ROWS),
    "ce-pixels": (
        lambda r: nn.CrossEntropyLoss(WEIGHTS, ignore_index=0, reduction=r),
        torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(2)).double(),
        torch.arange(15).reshape(3, 5) % 4,
    ),
    "nll": (lambda r: nn.NLLLoss(WEIGHTS, ignore_index=3, reduction=r), LOG_P, LABELS),
    "margin": (lambda r: nn.MultiMarginLoss(weight=WEIGHTS, reduction=r), LOGITS, LABELS),
    "bce": (lambda r: nn.BCEWithLogitsLoss(WEIGHTS, pos_weight=1 + WEIGHTS, reduction=r), LOGITS, ROWS),
    "mse": (lambda r: nn.MSELoss(reduction=r), LOGITS, ROWS),
    "kl": (lambda r: nn.KLDivLoss(reduction=r), LOG_P, ROWS),
    "multi-label": (lambda r: nn.MultiLabelSoftMarginLoss(WEIGHTS, reduction=r), LOGITS, ROWS.round()),
}


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
def test_torch_criteria(name: str, reduction: str) -> None:
    make, logits, target = TORCH[name]
    criterion, leaf, own_leaf = make(reduction), logits.clone().requires_grad_(), logits.clone().requires_grad_()
    each = per_sample(criterion)(leaf, target)
    assert criterion.reduction == reduction
    assert each.losses.shape == each.weights.shape == (len(logits),)
    none = make("none")(logits, target)
    torch.testing.assert_close(each.losses, none.flatten(1).mean(1) if none.ndim > 1 else none, rtol=1e-12, atol=0)
    own = make("mean")(own_leaf, target)
    torch.testing.assert_close(each.mean(), own, rtol=1e-12, atol=0)
    torch.testing.assert_close(each.balanced().mean(), own, rtol=1e-12, atol=0)
    each.mean().backward()
    own.backward()
    torch.testing.assert_close(leaf.grad, own_leaf.grad, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("name", ["ce-weight", "ce-ignore", "ce-all", "ce-zero-weight", "nll"])
def test_mean_of_some_samples_is_the_criterion_s_of_those(name: str) -> None:
    make, logits, target = TORCH[name]
    rows = torch.tensor([True, False, True, True, False, True])
    each = per_sample(make("sum"))(logits, target)
    torch.testing.assert_close(each[rows].mean(), make("mean")(logits[rows], target[rows]), rtol=1e-12, atol=0)


def test_half_precision_counts_samples_exactly() -> None:
    """257 is 256 in bfloat16."""
    logits, target = LOGITS.repeat(43, 1)[:257].bfloat16(), LABELS.repeat(43)[:257]
    each = per_sample(nn.CrossEntropyLoss())(logits, target)
    assert each.losses.dtype == torch.bfloat16
    assert each.weights.sum().item() == 257
    torch.testing.assert_close(each.mean(), each.losses.float().mean(), rtol=5e-3, atol=0)


def test_weighted_smoothed_cross_entropy_against_numpy() -> None:
    """Numerators and divisors typed out: (1 - s) w_y nll_y + s / K sum_k w_k nll_k over w_y of what is not ignored."""
    criterion = nn.CrossEntropyLoss(WITH_ZERO, ignore_index=2, label_smoothing=0.3)
    each = per_sample(criterion)(LOGITS, LABELS)
    nll, w, y = -LOG_P.numpy(), WITH_ZERO.numpy(), LABELS.numpy()
    expected = (0.7 * w[y] * nll[np.arange(6), y] + 0.3 / 4 * (w * nll).sum(1)) * (y != 2)
    np.testing.assert_allclose(each.losses, expected, rtol=1e-12)
    np.testing.assert_allclose(each.weights, w[y] * (y != 2), rtol=1e-12)
    np.testing.assert_allclose(each.mean(), expected.sum() / (w[y] * (y != 2)).sum(), rtol=1e-12)


def test_ours() -> None:
    for criterion in (L.GeneralizedCrossEntropy(0.7), L.JointOptimization(reduction="sum"), L.FocalLoss(2.0)):
        twin = copy.deepcopy(criterion)
        twin.reduction = "mean"
        each = per_sample(criterion)(LOGITS, LABELS)
        assert torch.equal(each.mean(), twin(LOGITS, LABELS))
        assert each.weights.tolist() == [1.0] * 6


def test_context_and_tables_are_the_criterion_s() -> None:
    criterion = L.EarlyLearningRegularization()
    criterion.stores["prediction"] = SampleStore(9, (4,), dtype=torch.float64)
    twin = copy.deepcopy(criterion)
    index = torch.arange(6)
    assert torch.equal(per_sample(criterion)(LOGITS, LABELS, index=index).mean(), twin(LOGITS, LABELS, index=index))
    assert torch.equal(criterion.stores["prediction"].get(index), twin.stores["prediction"].get(index))
    assert criterion.stores["prediction"].get(index).any()


@pytest.mark.parametrize("as_keyword", [False, True])
def test_weights_follow_the_target_that_a_hook_put_there(as_keyword: bool) -> None:
    """Soft rows are divided by their number, other labels by their own weights."""
    for target in (ROWS, OTHERS):
        criterion = nn.CrossEntropyLoss(WEIGHTS)

        def change(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any], target: Tensor = target) -> Any:
            return (args[:1], {"target": target}) if as_keyword else ((args[0], target), {})

        handle = criterion.register_forward_pre_hook(change, with_kwargs=True)
        each = per_sample(criterion)(LOGITS, LABELS)
        torch.testing.assert_close(each.mean(), criterion(LOGITS, LABELS), rtol=1e-12, atol=0)
        handle.remove()
        torch.testing.assert_close(each.mean(), criterion(LOGITS, target), rtol=1e-12, atol=0)


def test_a_call_inside_the_call() -> None:
    """A hook that asks for the losses of other labels leaves the outer call alone, its reduction and its target."""
    criterion = nn.CrossEntropyLoss(WEIGHTS)
    inner = []

    def look(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if not inner:
            inner.append(None)
            inner[0] = per_sample(criterion)(LOGITS, OTHERS).mean()

    criterion.register_forward_pre_hook(look)
    outer = per_sample(criterion)(LOGITS, LABELS).mean()
    assert criterion.reduction == "mean"
    torch.testing.assert_close(outer, criterion(LOGITS, LABELS), rtol=1e-12, atol=0)
    torch.testing.assert_close(inner[0], criterion(LOGITS, OTHERS), rtol=1e-12, atol=0)
    assert not criterion._forward_hooks


def test_an_exception_leaves_the_criterion_as_it_was() -> None:
    for criterion in (nn.CrossEntropyLoss(WEIGHTS), L.GeneralizedCrossEntropy()):
        with pytest.raises((ValueError, IndexError, RuntimeError)):
            per_sample(criterion)(LOGITS, LABELS[:2])
        assert criterion.reduction == "mean"
        assert not criterion._forward_hooks


def test_copies_go_with_the_copy_of_the_criterion() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loss = L.GeneralizedCrossEntropy(0.7)
            self.each = per_sample(self.loss)

    pair = Pair()
    twin = copy.deepcopy(pair)
    assert twin.each.criterion is twin.loss is not pair.loss
    restored = pickle.loads(pickle.dumps(pair.each))
    assert torch.equal(restored(LOGITS, LABELS).losses, pair.each(LOGITS, LABELS).losses)


class ForeignWeighted(nn.Module):
    reduction = "mean"

    def __init__(self, buffer: bool) -> None:
        super().__init__()
        if buffer:
            self.register_buffer("balance", WEIGHTS)
        else:
            self.balance = WEIGHTS

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits, target, self.balance, reduction=self.reduction)


class Wrapper(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.reduction = nn.CrossEntropyLoss(WEIGHTS), "mean"

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        self.inner.reduction = self.reduction
        return self.inner(logits, target)


class OwnForward(nn.CrossEntropyLoss):
    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return super().forward(logits, target)


class Foreign(nn.Module):
    reduction = "mean"

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.multi_margin_loss(logits, target, reduction=self.reduction)


@pytest.mark.parametrize("criterion", [Foreign(), OwnForward()])
def test_foreign_criteria_with_a_plain_mean(criterion: nn.Module) -> None:
    torch.testing.assert_close(per_sample(criterion)(LOGITS, LABELS).mean(), criterion(LOGITS, LABELS))


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        (
            nn.Identity(),
            "Expected argument `criterion` to be a loss that can give one value for each sample, so with a `reduction` "
            "of 'mean', 'sum' or 'none', but got Identity with reduction=None: write it as a NoisyLabelLoss.",
        ),
        (nn.KLDivLoss(reduction="batchmean"), "Expected argument `criterion` to be a loss that can give one value"),
        (F.cross_entropy, "Expected argument `criterion` to be a loss that can give one value for each sample"),
        (
            L.DeterminantMutualInformation(),
            "DeterminantMutualInformation has one value for a batch and none for each sample: use it with "
            "reduction='mean', without selection of samples.",
        ),
        (
            L.StagedLoss([nn.CrossEntropyLoss(), L.DeterminantMutualInformation()], [0, 1]),
            "StagedLoss has one value for a batch",
        ),
        (
            nn.CTCLoss(),
            "Expected argument `criterion` to be a loss of which it is known how its mean weighs samples, but got "
            "CTCLoss with weights of its own: write it as a NoisyLabelLoss.",
        ),
        (ForeignWeighted(True), "Expected argument `criterion` to be a loss of which it is known how its mean weighs"),
        (ForeignWeighted(False), "Expected argument `criterion` to be a loss of which it is known how its mean weighs"),
        (Wrapper(), "Expected argument `criterion` to be a loss of which it is known how its mean weighs samples"),
        (OwnForward(ignore_index=2), "Expected argument `criterion` to be a loss of which it is known how its mean"),
        (
            nn.CrossEntropyLoss,
            "Expected argument `criterion` to be a loss, but got the class CrossEntropyLoss: make one, "
            "`CrossEntropyLoss()`.",
        ),
    ],
)
def test_refused_criteria(criterion: Any, message: str) -> None:
    with pytest.raises(NoisyLabelError) as caught:
        per_sample(criterion)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_refused_values() -> None:
    class Stubborn(nn.Module):
        reduction = "mean"

        def forward(self, logits: Tensor, target: Tensor) -> Tensor:
            return F.cross_entropy(logits, target)

    with pytest.raises(NoisyLabelError) as caught:
        per_sample(Stubborn())(LOGITS, LABELS)
    assert str(caught.value) == (
        "Stubborn with reduction='none' gave a tensor of shape () for a batch of 6: wanted (6,), or (6, ...), the loss "
        "of each sample."
    )


class Fit(NoisyLabelLoss):
    """A part that says no more than its values."""

    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        return logits[:, 0]


WEIGHTED: dict[str, tuple[Callable[..., NoisyLabelLoss], dict[str, Any]]] = {
    "pair": (lambda part, **o: L.ActivePassiveLoss(part, Fit(), 0.5, 2.0, **o), {}),
    "sparse": (lambda part, **o: L.SparseRegularization(part, 1.0, 0.3, 0.5, 1.0, normalize=False, **o), {"epoch": 0}),
    "early": (lambda part, **o: L.EarlyLearningRegularization(0.0, base=part, **o), {"index": torch.arange(6)}),
    "views": (lambda part, **o: L.GeneralizedJensenShannonLoss(1.0, base=part, **o), {"views": (LOGITS, LOGITS)}),
    "staged": (lambda part, **o: L.StagedLoss([Fit(), part], [0, 3], **o), {"epoch": 4}),
}


@pytest.mark.parametrize("name", WEIGHTED)
@pytest.mark.parametrize("part_reduction", ["mean", "sum", "none"])
def test_a_weighted_part_keeps_its_mean_in_every_composite(name: str, part_reduction: str) -> None:
    make, context = WEIGHTED[name]
    nll, w = -LOG_P.numpy()[np.arange(6), LABELS], WEIGHTS.numpy()[LABELS] * (LABELS.numpy() != 2)
    fit = 6 * w * nll / w.sum()
    p = np.exp(LOG_P.numpy())
    expected = {
        "pair": 0.5 * fit + 2.0 * LOGITS.numpy()[:, 0],
        "sparse": fit + 0.3 * np.sqrt(p).sum(1),
        "early": fit,
        "views": fit,
        "staged": fit,
    }[name]
    for reduction, wanted in (("none", expected), ("mean", expected.mean()), ("sum", expected.sum())):
        part = nn.CrossEntropyLoss(WEIGHTS, ignore_index=2, reduction=part_reduction)
        loss = make(part, reduction=reduction)
        for table, shape in loss.store_shapes(4).items():
            loss.stores[table] = SampleStore(6, shape, dtype=torch.float64)
        np.testing.assert_allclose(loss(LOGITS, LABELS, **context).numpy(), wanted, rtol=1e-7, atol=1e-9)
        assert part.reduction == part_reduction
    np.testing.assert_allclose(per_sample(loss)(LOGITS, LABELS, **context).mean(), expected.mean(), rtol=1e-7)


def test_a_value_of_the_batch_in_a_composite() -> None:
    """It stands in every entry; without reduction the composite refuses it."""
    determinant = L.DeterminantMutualInformation()
    both = L.ActivePassiveLoss(determinant, nn.CrossEntropyLoss(), 2.0, 1.0)
    expected = 2 * determinant(LOGITS, LABELS) + F.cross_entropy(LOGITS, LABELS)
    torch.testing.assert_close(both(LOGITS, LABELS), expected)
    for make in (
        lambda: L.ActivePassiveLoss(determinant, nn.CrossEntropyLoss(), 2.0, 1.0, "none"),
        lambda: L.StagedLoss([nn.CrossEntropyLoss(), determinant], [0, 1], "none"),
    ):
        with pytest.raises(NoisyLabelError, match=r"^(ActivePassive|Staged)Loss has one value for a batch"):
            make()
