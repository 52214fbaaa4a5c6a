"""What holds for every loss that needs an index or an epoch."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch

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
)
from tests.losses.numpy_oracle import CLASSES, INDEX, TARGET, attach, epochs, rows_of

LOGITS = torch.tensor(epochs(1)[0])
INDEXED: list[Any] = [
    lambda **options: SelfAdaptiveTraining(warmup_epochs=0, **options),
    lambda **options: TruncatedGeneralizedCrossEntropy(warmup_epochs=0, every_n_epochs=1, **options),
    lambda **options: NegativeLearning(2, window=2, seed=0, **options),
    lambda **options: SelectiveNegativeLearning(2, window=2, seed=0, **options),
    lambda **options: SelectivePositiveLearning(window=2, **options),
    lambda **options: PencilLoss(warmup_epochs=0, **options),
    lambda **options: PeerLoss(seed=0, **options),
]
NAMES = [type(make()).__name__ for make in INDEXED]
indexed = pytest.mark.parametrize("make", INDEXED, ids=NAMES)
CONTEXT = {"index": INDEX, "epoch": 0}


@indexed
def test_declarations(make: Any) -> None:
    loss = make()
    assert loss.requires == ("index", "epoch")
    assert not loss.soft_targets
    assert loss.extra_outputs == 0
    assert set(loss.state_dict()) <= {"seed"}


@indexed
@pytest.mark.parametrize("missing", ["index", "epoch"])
def test_calls_without_context(make: Any, missing: str) -> None:
    context = {name: value for name, value in CONTEXT.items() if name != missing}
    meaning = "the positions (B,) of the samples in the training set" if missing == "index" else ""
    with pytest.raises(NoisyLabelError) as caught:
        attach(make())(LOGITS, TARGET, **context)
    assert str(caught.value) == (
        f"{type(make()).__name__} expects `{missing}`, {meaning or 'the number of the epoch, from 0'}, but got None: "
        f"pass `{missing}=...`, or use it in a NoisyLabelModule."
    )


@indexed
def test_refused_target_leaves_the_memory_alone(make: Any) -> None:
    loss = attach(make())
    with pytest.raises(NoisyLabelError, match=rf"^{type(loss).__name__} expects int64 labels \(B,\) for"):
        loss(LOGITS, torch.eye(CLASSES)[TARGET], **CONTEXT)
    assert not any(rows_of(loss, name).any() for name in loss.memory)


@indexed
def test_call_without_a_table(make: Any) -> None:
    if not make().memory_shapes(CLASSES):
        pytest.skip("no table")
    with pytest.raises(NoisyLabelError, match=r"^\w+ keeps a table .*$"):
        make()(LOGITS, TARGET, **CONTEXT)


@indexed
def test_reductions(make: Any) -> None:
    each = attach(make(reduction="none"))(LOGITS, TARGET, **CONTEXT)
    assert each.shape == (3,)
    for reduction in ("mean", "sum"):
        value = attach(make(reduction=reduction))(LOGITS, TARGET, **CONTEXT)
        torch.testing.assert_close(value, getattr(each, reduction)(), rtol=1e-12, atol=0)


@indexed
def test_evaluation_reads_without_writing(make: Any) -> None:
    loss = attach(make())
    loss(LOGITS, TARGET, **CONTEXT)
    before = copy.deepcopy({name: rows_of(loss, name) for name in loss.memory})
    value = loss.eval()(LOGITS.flip(0), TARGET, index=INDEX, epoch=1)
    assert value.isfinite()
    for name, rows in before.items():
        assert (rows_of(loss, name) == rows).all()


@indexed
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(make: Any, dtype: torch.dtype) -> None:
    loss, logits = attach(make(), torch.float32), (1e4 * LOGITS).to(dtype).requires_grad_()
    for epoch in range(2):
        value = loss(logits, TARGET, index=INDEX, epoch=epoch)
        value.backward()
        assert value.dtype == torch.float32
        assert value.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@indexed
def test_copies_have_tables_and_seeds_of_their_own(make: Any) -> None:
    loss = attach(make())
    loss(LOGITS, TARGET, **CONTEXT)
    before = {name: rows_of(loss, name).copy() for name in loss.memory}
    twin = copy.deepcopy(loss)
    later = {"index": INDEX, "epoch": 1}
    value = twin(LOGITS.flip(0), TARGET, **later)
    assert all((rows_of(loss, name) == rows).all() for name, rows in before.items())
    assert torch.equal(loss(LOGITS.flip(0), TARGET, **later), value)


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
