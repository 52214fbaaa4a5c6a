"""What holds for every loss of the package, made with each reduction and called with all that it requires."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_noisy import losses as L
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses import (
    DeepAbstainingClassifier,
    NegativeLearning,
    NoisyLabelLoss,
    PeerLoss,
    PencilLoss,
    SelectiveNegativeLearning,
    SelectivePositiveLearning,
    SelfAdaptiveTraining,
    TruncatedGeneralizedCrossEntropy,
    per_sample,
)
from tests.losses.numpy_oracle import CLASSES, INDEX, TARGET, attach, epochs, rows_of

LOGITS = torch.tensor(epochs(1)[0])
NOISE = [[0.7 if i == j else 0.1 for i in range(CLASSES)] for j in range(CLASSES)]
MAKE: dict[str, Callable[..., NoisyLabelLoss]] = {
    "ActiveNegativeLoss": lambda **o: L.ActiveNegativeLoss(5.0, 5.0, 0.1, lam=0.5, **o),
    "ActivePassiveLoss": lambda **o: L.ActivePassiveLoss(
        L.NormalizedCrossEntropy(), nn.CrossEntropyLoss(), 2.0, 1.0, **o
    ),
    "AsymmetricExponentialLoss": lambda **o: L.AsymmetricExponentialLoss(2.0, **o),
    "AsymmetricGeneralizedCrossEntropy": lambda **o: L.AsymmetricGeneralizedCrossEntropy(2.0, 0.5, **o),
    "AsymmetricUnhingedLoss": lambda **o: L.AsymmetricUnhingedLoss(2.0, 0.5, **o),
    "BackwardCorrection": lambda **o: L.BackwardCorrection(NOISE, **o),
    "BiTemperedLogisticLoss": lambda **o: L.BiTemperedLogisticLoss(0.7, 1.5, **o),
    "DeepAbstainingClassifier": lambda **o: L.DeepAbstainingClassifier(0, **o),
    "DynamicsAwareLoss": lambda **o: L.DynamicsAwareLoss(1.2, 0.5, **o),
    "EarlyLearningRegularization": lambda **o: L.EarlyLearningRegularization(base=L.MeanAbsoluteError(), **o),
    "ForwardCorrection": lambda **o: L.ForwardCorrection(NOISE, **o),
    "GeneralizedJensenShannonLoss": lambda **o: L.GeneralizedJensenShannonLoss(0.3, base=L.JensenShannonLoss(0.3), **o),
    "JensenShannonLoss": lambda **o: L.JensenShannonLoss(0.3, **o),
    "NegativeLearning": lambda **o: NegativeLearning(2, window=2, seed=0, **o),
    "NoiseAttentionLoss": lambda **o: L.NoiseAttentionLoss(5, beta=0.1, **o),
    "NormalizedGeneralizedCrossEntropy": lambda **o: L.NormalizedGeneralizedCrossEntropy(0.5, **o),
    "PeerLoss": lambda **o: PeerLoss(seed=0, **o),
    "PencilLoss": lambda **o: PencilLoss(warmup_epochs=0, **o),
    "Poly1CrossEntropy": lambda **o: L.Poly1CrossEntropy(2.0, **o),
    "SelectiveNegativeLearning": lambda **o: SelectiveNegativeLearning(2, window=2, seed=0, **o),
    "SelectivePositiveLearning": lambda **o: SelectivePositiveLearning(window=2, **o),
    "SelfAdaptiveTraining": lambda **o: SelfAdaptiveTraining(warmup_epochs=0, **o),
    "SparseRegularization": lambda **o: L.SparseRegularization(L.FocalLoss(), 0.5, 2.0, 0.1, 1.02, **o),
    "StagedLoss": lambda **o: L.StagedLoss([L.EarlyLearningRegularization(), L.FocalLoss()], [0, 9], **o),
    "SymmetricCrossEntropy": lambda **o: L.SymmetricCrossEntropy(0.1, 1.0, **o),
    "TaylorCrossEntropy": lambda **o: L.TaylorCrossEntropy(3, **o),
    "TruncatedGeneralizedCrossEntropy": lambda **o: TruncatedGeneralizedCrossEntropy(
        warmup_epochs=0, every_n_epochs=1, **o
    ),
}
"""Those that need arguments, or do more with others than their defaults."""

KINDS = {
    name: kind
    for name, kind in vars(L).items()
    if isinstance(kind, type) and issubclass(kind, NoisyLabelLoss) and kind is not NoisyLabelLoss
}
every = pytest.mark.parametrize("name", sorted(KINDS))


def make(name: str, dtype: torch.dtype = torch.float64, **options: Any) -> NoisyLabelLoss:
    torch.manual_seed(0)
    return attach(MAKE.get(name, KINDS[name])(**options), dtype).to(dtype)


def arguments(
    loss: NoisyLabelLoss, logits: Tensor = LOGITS, target: Tensor = TARGET, epoch: int = 0
) -> tuple[tuple[Tensor, Tensor], dict[str, Any]]:
    """Exactly what the loss requires; one that needs one more output gets it."""
    offered = {
        "index": INDEX,
        "features": torch.linspace(-1, 1, 15).reshape(3, 5).to(logits),
        "parameters": [torch.tensor([1.0, -2.0])],
        "views": (logits, logits.roll(1, 1)),
        "epoch": epoch,
        "total_epochs": 9,
    }
    outputs = torch.cat([logits, logits[:, : loss.extra_outputs]], dim=1)
    return (outputs, target), {name: offered[name] for name in loss.requires}


def call(loss: NoisyLabelLoss, logits: Tensor = LOGITS, target: Tensor = TARGET, epoch: int = 0) -> Tensor:
    outputs, context = arguments(loss, logits, target, epoch)
    return loss(*outputs, **context)


def rows(loss: NoisyLabelLoss) -> dict[str, Any]:
    return {name: rows_of(loss, name).copy() for name in loss.stores}


def test_every_loss_is_here() -> None:
    assert len(KINDS) == 38
    assert set(MAKE) <= set(KINDS)


@every
def test_mean_and_sum_are_those_of_the_samples(name: str) -> None:
    if not KINDS[name].sample_values:
        with pytest.raises(NoisyLabelError, match=rf"^{name} has one value for a batch and none for each sample"):
            make(name, reduction="none")
        assert call(make(name, reduction="sum")).item() == pytest.approx(3 * call(make(name)).item())
        return
    each = call(make(name, reduction="none"))
    assert each.shape == (3,)
    assert len(each.unique()) > 1
    for reduction in ("mean", "sum"):
        value = call(make(name, reduction=reduction))
        torch.testing.assert_close(value, getattr(each, reduction)(), rtol=1e-12, atol=0)
    for reduction in ("mean", "sum", "none"):
        loss = make(name, reduction=reduction)
        outputs, context = arguments(loss)
        values = per_sample(loss)(*outputs, **context)
        assert torch.equal(values.losses, each)
        torch.testing.assert_close(values.mean(), each.mean(), rtol=1e-12, atol=0)
        assert loss.reduction == reduction


@every
def test_a_second_epoch_goes_on_with_finite_values(name: str) -> None:
    loss = make(name)
    assert all(call(loss, epoch=epoch).isfinite() for epoch in range(3))


@every
def test_what_is_required_is_asked_for_and_nothing_else_taken(name: str) -> None:
    loss, (outputs, context) = make(name), arguments(make(name))
    state = copy.deepcopy(loss.state_dict())
    assert set(loss.requires) == set(context)
    with pytest.raises(
        NoisyLabelError, match=rf"^{name} was called with `teacher`, but the keywords that it takes are"
    ):
        loss(*outputs, **context, teacher=None)
    for missing in loss.requires:
        rest = {key: value for key, value in context.items() if key != missing}
        with pytest.raises(NoisyLabelError, match=rf"^\w+ expects (`{missing}`|the parameters).*, but got .*: pass `"):
            loss(*outputs, **rest)
    assert not any(written.any() for written in rows(loss).values())
    for key, value in loss.state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=0, atol=0, equal_nan=True)


@every
def test_refused_targets_leave_the_memory_alone(name: str) -> None:
    loss, hot = make(name), torch.eye(CLASSES, dtype=torch.float64)[TARGET]
    with pytest.raises(NoisyLabelError, match=rf"^{name} expects int64 labels \(B,\).* target of shape \(3,\)\.$"):
        call(loss, target=TARGET.double())
    if loss.soft_targets:
        loss.train(False)
        torch.testing.assert_close(call(loss, target=hot), call(loss), rtol=1e-5, atol=1e-9)
    else:
        with pytest.raises(NoisyLabelError, match=rf"^{name} expects int64 labels \(B,\) for"):
            call(loss, target=hot)
    assert not any(written.any() for written in rows(loss).values())


@every
def test_a_table_has_to_be_attached(name: str) -> None:
    loss = make(name)
    if loss.store_shapes(CLASSES):
        loss.stores.clear()
        for module in loss.modules():
            getattr(module, "memory", {}).clear()
        with pytest.raises(NoisyLabelError, match=r"^\w+ keeps a store .*$"):
            call(loss)


@every
def test_evaluation_reads_without_writing(name: str) -> None:
    loss = make(name)
    call(loss)
    before, state = rows(loss), copy.deepcopy(loss.state_dict())
    assert call(loss.eval(), LOGITS.flip(0), epoch=1).isfinite()
    for table, written in rows(loss).items():
        np.testing.assert_array_equal(written, before[table])
    for key, value in loss.state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=0, atol=0, equal_nan=True)


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    loss, leaf = make(name, torch.float32), (1e4 * LOGITS).to(dtype).requires_grad_()
    for epoch in range(2):
        value = call(loss, leaf, epoch=epoch)
        value.backward()
        assert value.dtype == torch.float32
        assert value.isfinite()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()


CONSTANT_TO_THE_GRADIENT = {
    "DeepAbstainingClassifier",
    "EarlyLearningRegularization",
    "NormalizedFocalLoss",
    "NormalizedNegativeFocalLoss",
    "SelfAdaptiveTraining",
    "StagedLoss",
}
"""Losses that take a factor of theirs as a constant, so that the gradient is no derivative of the value."""

BOUNDS = {"even": [0, 0, 0, 0], "half": [0, 0, -60, -60], "one dwarfs": [40, 0, 0, 0], "one is dwarfed": [-40, 0, 0, 0]}
"""Rows whose probabilities are 1/4, 1/2, 1/3, 0 and 1, where floors, ceilings and branches meet."""


KINKS = {("SparseRegularization", "even"), ("TruncatedGeneralizedCrossEntropy", "half")}


@pytest.mark.parametrize(("name", "bound"), sorted({*product(KINDS.keys() - CONSTANT_TO_THE_GRADIENT, BOUNDS)} - KINKS))
def test_the_gradient_is_the_derivative_also_at_bounds(name: str, bound: str) -> None:
    logits = torch.tensor([BOUNDS[bound]] * 2 + [LOGITS[2].tolist()], dtype=torch.float64)
    leaf = logits.clone().requires_grad_()
    call(make(name), leaf).backward()
    steps = 1e-5 * torch.eye(12, dtype=torch.float64).reshape(12, 3, 4)
    ups, downs = ([call(make(name), logits + sign * step).item() for step in steps] for sign in (1, -1))
    expected = torch.tensor([(up - down) / 2e-5 for up, down in zip(ups, downs, strict=True)], dtype=torch.float64)
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, expected.reshape(3, 4), rtol=1e-4, atol=1e-7)


@every
def test_copies_have_tables_and_seeds_of_their_own(name: str) -> None:
    loss = make(name)
    call(loss)
    before, twin = rows(loss), copy.deepcopy(loss)
    value = call(twin, LOGITS.flip(0), epoch=1)
    for table, written in rows(loss).items():
        np.testing.assert_array_equal(written, before[table])
    assert torch.equal(call(loss, LOGITS.flip(0), epoch=1), value)


@every
def test_an_unknown_reduction_is_refused(name: str) -> None:
    with pytest.raises(NoisyLabelError) as caught:
        make(name, reduction="all")
    assert str(caught.value) == "Expected argument `reduction` to be 'mean', 'sum' or 'none', but got 'all'."


@pytest.mark.parametrize(
    ("make", "name", "wanted", "values"),
    [
        (SelfAdaptiveTraining, "warmup_epochs", "an int of at least 0", (-1, 1.5)),
        (SelfAdaptiveTraining, "momentum", "a float in [0, 1)", (-0.1, 1.0, math.nan)),
        (TruncatedGeneralizedCrossEntropy, "q", "a float in (0, 1]", (0.0, 1.1, math.nan)),
        (TruncatedGeneralizedCrossEntropy, "k", "a float in [0, 1)", (-0.1, 1.0, math.nan)),
        (TruncatedGeneralizedCrossEntropy, "warmup_epochs", "an int of at least 0", (-1, 1.5)),
        (TruncatedGeneralizedCrossEntropy, "every_n_epochs", "an int of at least 1", (0, 1.5)),
        (NegativeLearning, "num_negatives", "an int of at least 1", (0, 1.5)),
        (NegativeLearning, "window", "an int of at least 0", (-1, 1.5)),
        (NegativeLearning, "eps", "a float in (0, 1)", (0.0, 1.0, math.nan)),
        (NegativeLearning, "class_weights", "finite floats >= 0, or None", ([1.0, -1.0], [math.nan], [math.inf])),
        (SelectiveNegativeLearning, "window", "an int of at least 1", (0, 1.5)),
        (SelectiveNegativeLearning, "threshold", "a float in [0, 1) or None", (-0.1, 1.0, math.nan)),
        (SelectivePositiveLearning, "window", "an int of at least 1", (0, 1.5)),
        (SelectivePositiveLearning, "threshold", "a float in [0, 1)", (-0.1, 1.0, math.nan)),
        (PeerLoss, "alpha", "a finite float >= 0", (-0.1, math.inf, math.nan)),
        (PeerLoss, "eps", "a float in [0, 1)", (-0.1, 1.0, math.nan)),
        (PencilLoss, "alpha", "a finite float >= 0", (-0.1, math.inf, math.nan)),
        (PencilLoss, "beta", "a finite float >= 0", (-0.1, math.inf, math.nan)),
        (PencilLoss, "label_lr", "a finite float > 0", (0.0, math.inf, math.nan)),
        (PencilLoss, "scale", "a finite float > 0", (0.0, math.inf, math.nan)),
        (PencilLoss, "warmup_epochs", "an int of at least 0", (-1, 1.5)),
        (PencilLoss, "fixed_from_epoch", "at least warmup_epochs=70", (69,)),
        (PencilLoss, "form", "'code' or 'paper'", ("other",)),
        (DeepAbstainingClassifier, "warmup_epochs", "an int of at least 0", (-1, 1.5)),
        (DeepAbstainingClassifier, "alpha_final", "a finite float >= 0", (-0.1, math.inf, math.nan)),
        (DeepAbstainingClassifier, "divisor", "a finite float > 0", (0.0, math.inf, math.nan)),
        (DeepAbstainingClassifier, "momentum", "a float in [0, 1)", (-0.1, 1.0, math.nan)),
        (DeepAbstainingClassifier, "total_epochs", "an int of at least 1, or None", (0, 1.5)),
        (DeepAbstainingClassifier, "eps", "a float in (0, 1)", (0.0, 1.0, math.nan)),
        (PencilLoss, "reduction", "'mean', 'sum' or 'none'", ("all",)),
    ],
)
def test_refused_arguments(make: type[NoisyLabelLoss], name: str, wanted: str, values: tuple[Any, ...]) -> None:
    for value in values:
        with pytest.raises(NoisyLabelError) as caught:
            make(**{name: value})
        assert str(caught.value) == f"Expected argument `{name}` to be {wanted}, but got {value!r}."
