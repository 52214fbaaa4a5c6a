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
from tests.distributed import Pool
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
        assert loss.store_shapes(4) == {}

    @pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
    def test_focal_base(self, logits: torch.Tensor, reduction: str) -> None:
        log_p = log_softmax(logits)
        focal = -np.sqrt(1 - np.exp(log_p)) * log_p
        clipped = np.maximum(log_p, np.log(1e-7))
        most = -np.sqrt(1 - 1e-7) * np.log(1e-7)
        remainder = most + np.sqrt(1 - np.exp(clipped)) * clipped
        rows, labels = np.arange(6), LABELS.numpy()
        each = 5.0 * focal[rows, labels] / focal.sum(1) + 2.0 * (1 - remainder[rows, labels] / remainder.sum(1))
        each = each + 0.1 * L1
        expected = {"mean": each.mean(), "sum": each.sum(), "none": each}[reduction]
        loss = ActiveNegativeLoss(5.0, 2.0, 0.1, base="focal", reduction=reduction)
        np.testing.assert_allclose(loss(logits, LABELS, parameters=WEIGHTS).numpy(), expected, rtol=1e-10)

    @pytest.mark.parametrize("base", ["ce", "focal"])
    @pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
    @pytest.mark.parametrize("training", [True, False])
    def test_entropy_term(self, logits: torch.Tensor, base: str, reduction: str, training: bool) -> None:
        mean = np.exp(log_softmax(logits)).mean(0)
        term = 2.0 * (np.log(4) + (mean * np.log(mean)).sum())
        without = ActiveNegativeLoss(5.0, 2.0, 0.0, base, reduction=reduction)(logits, LABELS).numpy()
        loss = ActiveNegativeLoss(5.0, 2.0, 0.0, base, lam=2.0, reduction=reduction).train(training)
        expected = without + (6 * term if reduction == "sum" else term)
        np.testing.assert_allclose(loss(logits, LABELS).numpy(), expected, rtol=1e-10)

    def test_entropy_term_alone_pulls_the_mean_to_uniform(self) -> None:
        leaf = torch.zeros(6, 4, dtype=torch.float64)
        leaf[:, 0] = 2.0
        leaf.requires_grad_()
        loss = ActiveNegativeLoss(0.0, 0.0, 0.0, lam=1.0)
        assert torch.autograd.gradcheck(lambda z: loss(z, LABELS), leaf)
        for _ in range(300):
            leaf = (leaf - 6 * torch.autograd.grad(loss(leaf, LABELS), leaf)[0]).detach().requires_grad_()
        assert loss(leaf, LABELS).item() == pytest.approx(0.0, abs=1e-6)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_entropy_term_of_certain_predictions(self, dtype: torch.dtype) -> None:
        leaf = torch.full((6, 4), -3e4, dtype=dtype)
        leaf[:, 1] = 3e4
        leaf.requires_grad_()
        value = ActiveNegativeLoss(0.0, 0.0, 0.0, lam=1.0)(leaf, LABELS)
        value.backward()
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(math.log(4), abs=1e-5)
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()

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
        loss.alpha, loss.beta, loss.delta, loss.lam = 0.0, 3.0, 2.0, 0.5
        mean = np.exp(log_softmax(logits)).mean(0)
        entropy = math.log(4) + (mean * np.log(mean)).sum()
        expected = 3.0 * negative(logits, LABELS).mean() + 2.0 * L1 + 0.5 * entropy
        assert loss(logits, LABELS, parameters=WEIGHTS).item() == pytest.approx(expected, rel=1e-10)

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


def entropy_term_and_gradient(rank: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Of half a batch in each of two processes, or of the whole: by a weight that makes the logits."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    weight = torch.randn(3, 4, generator=generator, dtype=torch.float64).requires_grad_()
    mine = slice(None) if rank is None else slice(6 * rank, 6 * rank + 6)
    labels = torch.arange(12) % 4
    value = ActiveNegativeLoss(5.0, 2.0, 0.0, lam=3.0)((inputs @ weight)[mine], labels[mine])
    value.backward()
    assert weight.grad is not None
    return value.detach(), weight.grad


def evaluated_by_one(rank: int) -> float:
    """A loss in evaluation mode waits for nobody."""
    return ActiveNegativeLoss(0.0, 0.0, 0.0, lam=3.0).eval()(torch.eye(4), LABELS[:4]).item() if rank == 0 else 0.0


def test_entropy_term_of_two_processes_is_that_of_one(pool: Pool) -> None:
    ranks = pool.run(entropy_term_and_gradient)
    value, gradient = entropy_term_and_gradient(None)
    torch.testing.assert_close((ranks[0][0] + ranks[1][0]) / 2, value, rtol=1e-12, atol=0)
    torch.testing.assert_close((ranks[0][1] + ranks[1][1]) / 2, gradient, rtol=1e-10, atol=1e-12)
    assert pool.run(evaluated_by_one)[0] == pytest.approx(0.0, abs=1e-6)


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
        assert {name.split(".")[0] for name in step} == {"network"}
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
