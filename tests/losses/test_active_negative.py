from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

from lightning_noisy import NoisyLabelModule
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses import ActiveNegativeLoss, NormalizedNegativeCrossEntropy
from tests.foreign import make_trainer
from tests.small import SmallDataModule, make_module

LABELS = torch.tensor([0, 1, 2, 3, 0, 1])
WEIGHTS = (torch.tensor([[1.5, -2.0]]), torch.tensor([0.0, 0.25], dtype=torch.float64))
L1 = 3.75


@pytest.fixture
def logits() -> torch.Tensor:
    return 4 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def log_softmax(logits: torch.Tensor) -> np.ndarray:
    values = logits.detach().double().numpy()
    return values - np.log(np.exp(values).sum(1, keepdims=True))


def negative(logits: torch.Tensor, labels: torch.Tensor, eps: float = 1e-7) -> np.ndarray:
    remainder = np.log(np.maximum(np.exp(log_softmax(logits)), eps) / eps)
    return 1 - remainder[np.arange(len(labels)), labels.numpy()] / remainder.sum(1)


def active(logits: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    log_p = log_softmax(logits)
    return log_p[np.arange(len(labels)), labels.numpy()] / log_p.sum(1)


def never_walked() -> Iterator[torch.Tensor]:
    raise AssertionError("walked")
    yield


class TestNormalizedNegativeCrossEntropy:
    @pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
    @pytest.mark.parametrize("eps", [1e-7, 0.1])
    def test_formula_and_reduction(self, logits: torch.Tensor, eps: float, reduction: str) -> None:
        each = negative(logits, LABELS, eps)
        expected = {"mean": each.mean(), "sum": each.sum(), "none": each}[reduction]
        actual = NormalizedNegativeCrossEntropy(eps, reduction)(logits, LABELS)
        np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-10)

    def test_defaults(self) -> None:
        loss = NormalizedNegativeCrossEntropy()
        assert (loss.eps, loss.reduction, loss.requires, loss.soft_targets) == (1e-7, "mean", (), False)

    def test_floor_is_refused_where_it_could_leave_nothing_to_divide_by(self) -> None:
        loss = NormalizedNegativeCrossEntropy(eps=0.05)
        assert loss(torch.zeros(2, 10), torch.tensor([0, 1])).item() == pytest.approx(0.9)
        with pytest.raises(NoisyLabelError) as caught:
            loss(torch.zeros(2, 11), torch.tensor([0, 1]))
        assert str(caught.value) == (
            "Expected argument `eps` to be at most 1 / (2 K) = 0.0455 for these logits, but got 0.05."
        )

    @pytest.mark.parametrize(
        ("name", "wanted", "values"),
        [
            ("eps", "a float in (0, 1 / (2 K)]", (0.0, 0.5, -1e-7, math.nan)),
            ("reduction", "'mean', 'sum' or 'none'", ("all",)),
        ],
    )
    def test_refused_arguments(self, name: str, wanted: str, values: tuple[float, ...]) -> None:
        for value in values:
            with pytest.raises(NoisyLabelError) as caught:
                NormalizedNegativeCrossEntropy(**{name: value})
            assert str(caught.value) == f"Expected argument `{name}` to be {wanted}, but got {value!r}."


class TestActiveNegativeLoss:
    def test_formula_and_reduction(self, logits: torch.Tensor) -> None:
        each = 5.0 * active(logits, LABELS) + 2.0 * negative(logits, LABELS) + 0.1 * L1
        for reduction, expected in {"mean": each.mean(), "sum": each.sum(), "none": each}.items():
            loss = ActiveNegativeLoss(5.0, 2.0, 0.1, reduction=reduction)
            actual = loss(logits, LABELS, parameters=iter(WEIGHTS))
            np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-10)

    def test_defaults(self) -> None:
        loss = ActiveNegativeLoss(5.0, 5.0, 5e-5)
        assert (loss.alpha, loss.beta, loss.delta, loss.base, loss.reduction) == (5.0, 5.0, 5e-5, "ce", "mean")
        assert loss.lam == 0.0
        assert loss.requires == ("parameters",)
        assert not loss.soft_targets
        assert loss.memory_shapes(4) == {}

    def test_gradient_of_the_penalty_is_the_sign(self, logits: torch.Tensor) -> None:
        weight = torch.tensor([1.0, -2.0, 0.0], requires_grad=True)
        frozen = torch.tensor([4.0])
        loss = ActiveNegativeLoss(1.0, 1.0, 0.1)
        value = loss(logits, LABELS, parameters=[weight, frozen])
        value.backward()
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, torch.tensor([0.1, -0.1, 0.0]))
        plain = active(logits, LABELS) + negative(logits, LABELS)
        assert value.item() == pytest.approx(plain.mean() + 0.1 * 7.0, rel=1e-7)

    def test_without_penalty_parameters_are_not_walked(self, logits: torch.Tensor) -> None:
        loss = ActiveNegativeLoss(5.0, 2.0, 0.0)
        expected = (5.0 * active(logits, LABELS) + 2.0 * negative(logits, LABELS)).mean()
        for parameters in (never_walked(), None):
            assert loss(logits, LABELS, parameters=parameters).item() == pytest.approx(expected, rel=1e-10)

    def test_weights_can_be_scheduled(self, logits: torch.Tensor) -> None:
        loss = ActiveNegativeLoss(1.0, 1.0, 0.0)
        loss.alpha, loss.beta, loss.delta = 0.0, 3.0, 2.0
        expected = 3.0 * negative(logits, LABELS).mean() + 2.0 * L1
        assert loss(logits, LABELS, parameters=WEIGHTS).item() == pytest.approx(expected, rel=1e-10)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_half_precision_is_computed_in_float32(self, logits: torch.Tensor, dtype: torch.dtype) -> None:
        leaf = (1e3 * logits).to(dtype).requires_grad_()
        weight = torch.full((1000,), 0.3, dtype=dtype, requires_grad=True)
        loss = ActiveNegativeLoss(5.0, 5.0, 0.01)
        value = loss(leaf, LABELS, parameters=[weight])
        value.backward()
        assert value.dtype == torch.float32
        exact = loss(leaf.detach().double(), LABELS, parameters=[weight.detach().double()])
        torch.testing.assert_close(value.double(), exact, rtol=1e-6, atol=0)
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()

    @pytest.mark.parametrize("parameters", [None, [], iter([])])
    def test_call_without_parameters(self, logits: torch.Tensor, parameters: Any) -> None:
        with pytest.raises(NoisyLabelError) as caught:
            ActiveNegativeLoss(5.0, 5.0, 5e-5)(logits, LABELS, parameters=parameters)
        assert str(caught.value) == (
            "ActiveNegativeLoss expects the parameters of the network, but got none: pass "
            "`parameters=model.parameters()`, anew at each call since it can be walked once only, or use the loss in a "
            "NoisyLabelModule."
        )

    def test_copy_and_state(self) -> None:
        loss = ActiveNegativeLoss(5.0, 5.0, 5e-5)
        twin = copy.deepcopy(loss)
        twin.delta = 0.0
        assert loss.delta == 5e-5
        assert loss.state_dict() == {}
        assert repr(loss) == (
            "ActiveNegativeLoss(reduction='mean', alpha=5.0, beta=5.0, delta=5e-05, base='ce', lam=0.0)"
        )

    @pytest.mark.parametrize(
        ("name", "wanted", "values"),
        [
            ("alpha", "a finite float >= 0", (-0.1, math.nan, math.inf)),
            ("beta", "a finite float >= 0", (-0.1, math.nan, math.inf)),
            ("delta", "a finite float >= 0", (-0.1, math.nan, math.inf)),
            ("base", "'ce' or 'focal'", ("mae", "")),
            ("lam", "a finite float >= 0", (-0.1, math.nan, math.inf)),
            ("reduction", "'mean', 'sum' or 'none'", ("all",)),
        ],
    )
    def test_refused_arguments(self, name: str, wanted: str, values: tuple[Any, ...]) -> None:
        for value in values:
            with pytest.raises(NoisyLabelError) as caught:
                ActiveNegativeLoss(**{"alpha": 5.0, "beta": 5.0, "delta": 5e-5, name: value})
            assert str(caught.value) == f"Expected argument `{name}` to be {wanted}, but got {value!r}."


@pytest.mark.parametrize("loss", [NormalizedNegativeCrossEntropy(), ActiveNegativeLoss(1.0, 1.0, 0.0)])
def test_soft_targets_are_refused(loss: NormalizedNegativeCrossEntropy | ActiveNegativeLoss) -> None:
    rows = torch.eye(4)
    with pytest.raises(
        NoisyLabelError, match=rf"^{type(loss).__name__} expects int64 labels \(B,\) for .*: give labels"
    ):
        loss(rows, rows)


class Watch(Callback):
    """Gradients and weights of each step before the optimizer's turn, and the losses."""

    def __init__(self) -> None:
        self.steps: list[dict[str, tuple[torch.Tensor, torch.Tensor]]] = []
        self.losses: list[torch.Tensor] = []

    def on_after_backward(self, trainer: Any, pl_module: NoisyLabelModule) -> None:
        self.steps.append({n: (p.grad.clone(), p.detach().clone()) for n, p in pl_module.named_parameters()})

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(outputs["loss"])


def fit(folder: Path, loss: ActiveNegativeLoss) -> Watch:
    watch = Watch()
    make_trainer(folder, [watch], max_epochs=2).fit(make_module(loss), datamodule=SmallDataModule())
    assert len(watch.steps) == 10
    return watch


def test_penalty_alone_reaches_every_parameter_of_the_module(tmp_path: Path) -> None:
    watch = fit(tmp_path, ActiveNegativeLoss(0.0, 0.0, 0.01))
    for step, loss in zip(watch.steps, watch.losses, strict=True):
        assert {name.split(".")[0] for name in step} == {"backbone", "head"}
        for gradient, weight in step.values():
            torch.testing.assert_close(gradient, 0.01 * weight.sign())
        total = sum(np.abs(weight.double().numpy()).sum() for _, weight in step.values())
        assert loss.item() == pytest.approx(0.01 * total, rel=1e-6)


def test_penalty_adds_to_the_gradient_of_the_fit(tmp_path: Path) -> None:
    with_penalty = fit(tmp_path, ActiveNegativeLoss(5.0, 5.0, 0.01)).steps[0]
    without = fit(tmp_path, ActiveNegativeLoss(5.0, 5.0, 0.0)).steps[0]
    for name, (gradient, weight) in with_penalty.items():
        expected = without[name][0] + 0.01 * weight.sign()
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)
        assert without[name][0].any()
