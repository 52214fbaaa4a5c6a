from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from lightning_noisy import NoisyLabelModule, SampleStore
from lightning_noisy.callbacks import StepSeed
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses import (
    ActiveNegativeLoss,
    ActivePassiveLoss,
    EarlyLearningRegularization,
    GeneralizedCrossEntropy,
    MeanAbsoluteError,
    NoiseAttentionLoss,
    NoisyLabelLoss,
    NormalizedCrossEntropy,
    ReverseCrossEntropy,
)
from tests.foreign import make_trainer
from tests.small import NUM_CLASSES, SmallDataModule, assert_same, make_module

LABELS, INDEX = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([6, 0, 2, 5, 1, 3])


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def log_softmax(logits: torch.Tensor) -> np.ndarray:
    return logits.numpy() - np.log(np.exp(logits.numpy()).sum(1, keepdims=True))


def reduced(each: np.ndarray, reduction: str) -> Any:
    return {"mean": each.mean(), "sum": each.sum(), "none": each}[reduction]


def absolute_error(logits: torch.Tensor) -> np.ndarray:
    return np.abs(np.exp(log_softmax(logits)) - np.eye(4)[LABELS]).sum(1) / 2


def normalized(logits: torch.Tensor) -> np.ndarray:
    log_p = log_softmax(logits)
    return log_p[np.arange(6), LABELS] / log_p.sum(1)


def pair_with_memory(**arguments: Any) -> ActivePassiveLoss:
    early = EarlyLearningRegularization(lam=3.0, momentum=0.7, **arguments)
    return ActivePassiveLoss(MeanAbsoluteError(**arguments), early, 2.0, 0.5, **arguments)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
class TestParts:
    def test_mean_absolute_error(self, logits: torch.Tensor, reduction: str) -> None:
        for scale in (1.0, 2.0):
            actual = MeanAbsoluteError(scale, reduction)(logits, LABELS)
            np.testing.assert_allclose(actual.numpy(), reduced(scale * absolute_error(logits), reduction), rtol=1e-10)

    def test_normalized_cross_entropy(self, logits: torch.Tensor, reduction: str) -> None:
        actual = NormalizedCrossEntropy(reduction)(logits, LABELS)
        np.testing.assert_allclose(actual.numpy(), reduced(normalized(logits), reduction), rtol=1e-10)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_formula_and_reduction(logits: torch.Tensor, reduction: str) -> None:
    loss = ActivePassiveLoss(
        NormalizedCrossEntropy(reduction), MeanAbsoluteError(reduction=reduction), 10.0, 0.3, reduction
    )
    expected = reduced(10.0 * normalized(logits) + 0.3 * absolute_error(logits), reduction)
    np.testing.assert_allclose(loss(logits, LABELS).numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_torch_criterion(logits: torch.Tensor, reduction: str) -> None:
    loss = ActivePassiveLoss(
        nn.CrossEntropyLoss(reduction=reduction), ReverseCrossEntropy(reduction=reduction), 0.1, 1.0, reduction
    )
    p = np.exp(log_softmax(logits))[np.arange(6), LABELS]
    expected = reduced(-0.1 * np.log(p) - math.log(1e-4) * (1 - p), reduction)
    np.testing.assert_allclose(loss(logits, LABELS).numpy(), expected, rtol=1e-10)
    assert loss.requires == ()
    assert loss.store_shapes(4) == {}
    assert loss.soft_targets
    rows = torch.eye(4, dtype=torch.float64)[LABELS]
    torch.testing.assert_close(loss(logits, rows), loss(logits, LABELS))


def test_weights_can_be_scheduled(logits: torch.Tensor) -> None:
    loss = ActivePassiveLoss(NormalizedCrossEntropy(), MeanAbsoluteError(), 1.0, 1.0)
    loss.alpha, loss.beta = 3.0, 0.0
    assert loss(logits, LABELS).item() == pytest.approx(3.0 * normalized(logits).mean())


def test_requires_is_the_union_and_each_loss_gets_its_own(logits: torch.Tensor) -> None:
    class Epochs(NoisyLabelLoss):
        requires = ("epoch", "index")

        def losses(self, logits: torch.Tensor, target: torch.Tensor, **context: Any) -> torch.Tensor:
            assert context == {"epoch": 3, "index": INDEX}
            return logits.sum(1) * 0.0 + 7.0

    loss = ActivePassiveLoss(EarlyLearningRegularization(), Epochs(), 0.0, 1.0)
    loss.stores["active.prediction"] = SampleStore(7, (4,))
    assert loss.requires == ("index", "epoch")
    assert loss(logits, LABELS, index=INDEX, epoch=3).item() == 7.0


def test_soft_targets_need_both(logits: torch.Tensor) -> None:
    rows = logits.flip(1).softmax(1)
    both = ActivePassiveLoss(GeneralizedCrossEntropy(), ReverseCrossEntropy(), 1.0, 1.0)
    assert both.soft_targets
    expected = GeneralizedCrossEntropy()(logits, rows) + ReverseCrossEntropy()(logits, rows)
    torch.testing.assert_close(both(logits, rows), expected)
    for pair in ((NormalizedCrossEntropy(), ReverseCrossEntropy()), (ReverseCrossEntropy(), NormalizedCrossEntropy())):
        one = ActivePassiveLoss(*pair, 1.0, 1.0)
        assert not one.soft_targets
        with pytest.raises(
            NoisyLabelError, match=r"^ActivePassiveLoss expects int64 labels \(B,\) for .*: give labels"
        ):
            one(logits, rows)


def test_both_losses_walk_the_parameters_that_come_once(logits: torch.Tensor) -> None:
    loss = ActivePassiveLoss(ActiveNegativeLoss(0.0, 0.0, 1.0), ActiveNegativeLoss(0.0, 0.0, 1.0), 2.0, 0.5)
    assert loss.requires == ("parameters",)
    assert loss(logits, LABELS, parameters=iter([torch.tensor([1.0, -3.0])])).item() == pytest.approx(10.0)


def test_memory_of_a_part_and_of_a_pair_in_a_pair(logits: torch.Tensor) -> None:
    loss = ActivePassiveLoss(EarlyLearningRegularization(momentum=0.5), pair_with_memory(), 1.0, 1.0)
    assert loss.store_shapes(4) == {"active.prediction": (4,), "passive.passive.prediction": (4,)}
    loss.stores = {name: SampleStore(7, shape) for name, shape in loss.store_shapes(4).items()}
    loss(logits, LABELS, index=INDEX)
    prediction = np.exp(log_softmax(logits))
    for name, weight in (("active.prediction", 0.5), ("passive.passive.prediction", 0.3)):
        rows = loss.stores[name].get(torch.arange(7)).numpy()
        np.testing.assert_allclose(rows[INDEX], weight * prediction, rtol=1e-5)
        assert not rows[4].any()


def test_new_tables_replace_the_old(logits: torch.Tensor) -> None:
    loss = pair_with_memory()
    values = []
    for _ in range(2):
        loss.stores = {"passive.prediction": SampleStore(7, (4,))}
        values.append(loss(logits, LABELS, index=INDEX))
    assert torch.equal(*values)


def test_evaluation_mode_reaches_the_parts(logits: torch.Tensor) -> None:
    loss = pair_with_memory().eval()
    loss.stores["passive.prediction"] = table = SampleStore(7, (4,))
    loss(logits, LABELS, index=INDEX)
    assert not table.values.any()


def test_bind_reaches_the_parts(logits: torch.Tensor) -> None:
    loss = ActivePassiveLoss(NoiseAttentionLoss(), nn.CrossEntropyLoss(), 1.0, 1.0)
    loss.bind(5, 4)
    assert sorted(loss.state_dict()) == ["active.branch.bias", "active.branch.weight"]
    features = torch.randn(6, 5, dtype=torch.float64)
    value = loss.double()(logits, LABELS, features=features)
    torch.testing.assert_close(
        value, loss.active(logits, LABELS, features=features) + nn.functional.cross_entropy(logits, LABELS)
    )


def test_copy_and_state(logits: torch.Tensor) -> None:
    loss = pair_with_memory()
    loss.stores["passive.prediction"] = table = SampleStore(7, (4,))
    twin = copy.deepcopy(loss)
    twin(logits, LABELS, index=INDEX)
    assert not table.values.any()
    assert twin.stores["passive.prediction"].get(INDEX).any()
    assert loss.state_dict() == {}
    assert "ActivePassiveLoss(\n  reduction='mean', alpha=2.0, beta=0.5\n  (active): MeanAbsolute" in repr(loss)


def test_missing_context_is_told_by_the_part(logits: torch.Tensor) -> None:
    with pytest.raises(NoisyLabelError, match=r"^EarlyLearningRegularization expects `index`, the positions"):
        pair_with_memory()(logits, LABELS)
    with pytest.raises(NoisyLabelError, match=r"^EarlyLearningRegularization keeps a store"):
        pair_with_memory()(logits, LABELS, index=INDEX)


@pytest.mark.parametrize("side", ["active", "passive"])
def test_a_class_is_no_loss(side: str) -> None:
    parts: Any = {"active": NormalizedCrossEntropy(), "passive": MeanAbsoluteError(), side: ReverseCrossEntropy}
    with pytest.raises(NoisyLabelError) as caught:
        ActivePassiveLoss(**parts, alpha=1.0, beta=1.0)
    assert str(caught.value) == (
        f"Expected argument `{side}` to be a loss, but got the class ReverseCrossEntropy: make one, "
        "`ReverseCrossEntropy()`."
    )


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_refused_weights(name: str) -> None:
    for value in (-0.1, math.nan, math.inf):
        with pytest.raises(NoisyLabelError) as caught:
            ActivePassiveLoss(NormalizedCrossEntropy(), MeanAbsoluteError(), **{"alpha": 1.0, "beta": 1.0, name: value})
        assert str(caught.value) == f"Expected argument `{name}` to be a finite float >= 0, but got {value!r}."


class KeepPredictions(Callback):
    """The running averages of ELR, computed a second time from the logits that the loss gets."""

    def __init__(self) -> None:
        self.rows = torch.zeros(40, NUM_CLASSES, dtype=torch.float64)

    def on_fit_start(self, trainer: Any, pl_module: NoisyLabelModule) -> None:
        pl_module.loss.register_forward_pre_hook(self.see, with_kwargs=True)

    def see(self, loss: nn.Module, arguments: tuple[torch.Tensor, ...], context: dict[str, torch.Tensor]) -> None:
        clipped = arguments[0].detach().double().softmax(1).clamp(1e-4, 1 - 1e-4)
        index = context["index"]
        self.rows[index] = 0.7 * self.rows[index] + 0.3 * clipped / clipped.sum(1, keepdim=True)


def fit(folder: Path, max_epochs: int, *callbacks: Callback, ckpt_path: Path | None = None) -> Any:
    trainer = make_trainer(folder, [StepSeed(1), *callbacks], max_epochs)
    trainer.fit(make_module(pair_with_memory()), datamodule=SmallDataModule(seed=0), ckpt_path=ckpt_path)
    return trainer


def test_memory_of_a_part_lands_in_the_checkpoint_and_comes_back(tmp_path: Path) -> None:
    keep = KeepPredictions()
    fit(tmp_path, 1, keep).save_checkpoint(tmp_path / "one.ckpt")
    kept = torch.load(tmp_path / "one.ckpt", weights_only=True)["callbacks"]["lightning_noisy"]["sections"]
    saved = kept["loss loss"]["stores"]
    assert list(saved) == ["passive.prediction"]
    torch.testing.assert_close(saved["passive.prediction"]["values"].double(), keep.rows, rtol=1e-5, atol=1e-7)
    assert keep.rows.any(dim=1).all()
    whole, resumed = fit(tmp_path, 2), fit(tmp_path, 2, ckpt_path=tmp_path / "one.ckpt")
    before = make_module(pair_with_memory()).state_dict()
    after = resumed.lightning_module.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    dumps = [run._checkpoint_connector.dump_checkpoint(weights_only=False) for run in (whole, resumed)]
    for dump in dumps:
        dump["sections"] = dump["callbacks"]["lightning_noisy"]["sections"]
    for key in ("state_dict", "sections", "optimizer_states"):
        assert_same(*(dump[key] for dump in dumps))
