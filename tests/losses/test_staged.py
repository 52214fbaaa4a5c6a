from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses import (
    DeepAbstainingClassifier,
    EarlyLearningRegularization,
    GeneralizedCrossEntropy,
    NegativeLearning,
    NoiseAttentionLoss,
    SelectiveNegativeLearning,
    SelectivePositiveLearning,
    StagedLoss,
)
from tests.losses.numpy_oracle import CLASSES, INDEX, TARGET, attach, epochs, rows_of

LOGITS = torch.tensor(epochs(1)[0])


def test_stages_follow_each_other() -> None:
    losses = [nn.CrossEntropyLoss(), GeneralizedCrossEntropy(0.7), GeneralizedCrossEntropy(1.0)]
    loss = StagedLoss(losses, [0, 2, 3])
    expected = [losses[stage](LOGITS, TARGET) for stage in (0, 0, 1, 2, 2, 2)]
    for epoch, value in enumerate(expected):
        assert torch.equal(loss(LOGITS, TARGET, epoch=epoch), value)
    assert len(set(map(float, expected))) == 3
    assert loss.requires == ("epoch",)
    assert loss.soft_targets


def test_nlnl_hands_its_history_on() -> None:
    loss = attach(
        StagedLoss(
            [
                NegativeLearning(window=2, seed=0),
                SelectiveNegativeLearning(window=2, seed=0),
                SelectivePositiveLearning(window=2),
            ],
            [0, 3, 5],
        )
    )
    assert loss.requires == ("epoch", "index")
    assert loss.store_shapes(CLASSES) == {"label_probability": (3, 2)}
    assert not loss.soft_targets
    alone = attach(SelectiveNegativeLearning(window=2, seed=0))
    history = [torch.tensor(logits) for logits in epochs(5)]
    for epoch, logits in enumerate(history):
        expected = alone(logits, TARGET, index=INDEX, epoch=epoch)
        actual = loss(logits, TARGET, index=INDEX, epoch=epoch)
        assert (epoch < 3) or torch.equal(actual, expected)
        assert (rows_of(loss, "label_probability") == rows_of(alone, "label_probability")).all()
    low = torch.zeros(3, CLASSES)
    assert loss(low, TARGET, index=INDEX, epoch=5) != loss(low, TARGET, index=INDEX, epoch=4)


def test_parts_with_parameters_and_memory() -> None:
    attention = NoiseAttentionLoss()
    loss = StagedLoss([EarlyLearningRegularization(), attention], [0, 1])
    loss.bind(6, CLASSES)
    attach(loss)
    assert sorted(loss.state_dict()) == ["stages.1.branch.bias", "stages.1.branch.weight"]
    assert loss.requires == ("epoch", "index", "features")
    features = torch.randn(3, 6)
    for epoch in range(2):
        assert loss(LOGITS.float(), TARGET, index=INDEX, features=features, epoch=epoch).isfinite()
    assert rows_of(loss, "prediction").any()


@pytest.mark.parametrize("starts", [[], [0], [1, 2], [0, 0], [0, 3, 2], [0, 1, 2]])
def test_starts_that_do_not_fit(starts: list[int]) -> None:
    with pytest.raises(NoisyLabelError) as caught:
        StagedLoss([nn.CrossEntropyLoss(), nn.CrossEntropyLoss()], starts)
    assert str(caught.value) == (
        f"Expected argument `starts` to be 2 ascending epochs, the first one 0, but got {starts}."
    )


def test_refused_parts() -> None:
    with pytest.raises(NoisyLabelError, match=r"^Expected argument `stages` to be a loss, but got the class Neg"):
        StagedLoss([NegativeLearning], [0])  # type: ignore[list-item]
    with pytest.raises(NoisyLabelError) as caught:
        StagedLoss([DeepAbstainingClassifier()], [0])
    assert str(caught.value) == (
        "Expected argument `stages` to be a loss of K outputs, but got 'DeepAbstainingClassifier with 1 more'."
    )
    clash = StagedLoss([NegativeLearning(window=2), SelectivePositiveLearning(window=3)], [0, 1])
    with pytest.raises(NoisyLabelError) as caught:
        clash.store_shapes(CLASSES)
    assert str(caught.value) == (
        "The stages of StagedLoss share the store `label_probability`, but SelectivePositiveLearning needs rows of "
        "shape (4, 2) and an earlier stage (3, 2): give both the same arguments (`window`)."
    )


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({}, r"^StagedLoss expects `epoch`, the number of the epoch, from 0, but got None"),
        ({"epoch": 0, "views": 1}, r"^StagedLoss was called with `views`, but the keywords that it takes are `epoch`"),
    ],
)
def test_refused_calls(context: dict[str, Any], message: str) -> None:
    with pytest.raises(NoisyLabelError, match=message):
        StagedLoss([nn.CrossEntropyLoss()], [0])(LOGITS, TARGET, **context)
    with pytest.raises(NoisyLabelError, match=r"^StagedLoss expects int64 labels \(B,\) for"):
        StagedLoss([NegativeLearning()], [0])(LOGITS, LOGITS, epoch=0, index=INDEX)
