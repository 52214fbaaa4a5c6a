import math

import numpy as np
import pytest
import torch

from lightning_noisy import NoisyLabelError
from lightning_noisy.callbacks import JointOptimizationLabels
from lightning_noisy.losses import JointOptimization, PeerLoss
from lightning_noisy.targets import TargetCall
from tests.foreign import make_trainer
from tests.losses.numpy_oracle import CLASSES, INDEX, SAMPLES, TARGET, epochs, softmax
from tests.small import SmallDataModule, make_module


def run(callback, history, dtype=torch.float64):
    """The targets that the callback gives in each epoch."""
    callback.section.begin(SAMPLES, torch.device("cpu"))
    for epoch, logits in enumerate(history):
        yield callback.change_target(TargetCall(INDEX, torch.tensor(logits, dtype=dtype), TARGET, TARGET, epoch))


@pytest.mark.parametrize("labels", ["soft", "hard"])
@pytest.mark.parametrize(("warmup", "window"), [(1, 1), (3, 2), (2, 4), (5, 5), (4, 1)])
def test_means_of_the_last_epochs(warmup, window, labels):
    history = epochs(9)
    for epoch, target in enumerate(run(JointOptimizationLabels(warmup, window, labels), history)):
        if epoch < warmup:
            assert target is TARGET
            continue
        mean = np.mean([softmax(logits) for logits in history[max(0, epoch - window) : epoch]], axis=0)
        if labels == "soft":
            np.testing.assert_allclose(target.numpy(), mean, rtol=1e-6)
        else:
            assert target.tolist() == mean.argmax(1).tolist()
            assert target.dtype == torch.int64


def test_nothing_is_noted_before_it_is_needed():
    callback = JointOptimizationLabels(warmup_epochs=5, window=2)
    for epoch, _ in enumerate(run(callback, epochs(4))):
        assert bool(callback.section.stores) == (epoch >= 3)


def test_a_sample_without_a_past_keeps_its_label():
    callback = JointOptimizationLabels(warmup_epochs=1, window=2)
    list(run(callback, epochs(1)))
    other = torch.tensor([6, 1, 2])
    call = TargetCall(other, torch.zeros(3, CLASSES, dtype=torch.float64), TARGET, TARGET, 1)
    rows = callback.change_target(call)
    np.testing.assert_allclose(rows[1].numpy(), np.eye(CLASSES)[TARGET[1]])
    np.testing.assert_allclose(rows[[0, 2]].numpy(), softmax(epochs(1)[0])[[0, 2]], rtol=1e-6)


def test_target_has_the_type_of_the_logits():
    *_, target = run(JointOptimizationLabels(warmup_epochs=1), epochs(3), torch.bfloat16)
    assert target.dtype == torch.bfloat16


@pytest.mark.parametrize("labels", ["soft", "hard"])
def test_trains(tmp_path, labels):
    module = make_module(JointOptimization())
    callback = JointOptimizationLabels(warmup_epochs=1, window=2, labels=labels)
    make_trainer(tmp_path, [callback], 4).fit(module, datamodule=SmallDataModule(seed=0))
    rows = callback.section.stores["prediction"].values
    torch.testing.assert_close(rows[..., 1:].sum(2), torch.ones(40, 3))
    assert (rows[..., 0] == torch.tensor([2.0, 1.0, 1.0])).all()  # epochs 3, 1 and 2, by turns
    assert all(math.isfinite(figures["train/loss"]) for figures in module.history.values())


def test_hard_labels_suit_every_criterion(tmp_path):
    data = SmallDataModule(seed=0)
    make_trainer(tmp_path, [JointOptimizationLabels(1, labels="hard")]).fit(make_module(PeerLoss()), datamodule=data)
    with pytest.raises(NoisyLabelError, match=r"^JointOptimizationLabels makes soft targets, but PeerLoss cannot"):
        make_trainer(tmp_path, [JointOptimizationLabels(1)]).fit(make_module(PeerLoss()), datamodule=data)


@pytest.mark.parametrize(
    ("name", "wanted", "value"),
    [
        ("warmup_epochs", "an int of at least 1", 0),
        ("window", "an int of at least 1", 0),
        ("labels", "'soft' or 'hard'", "both"),
    ],
)
def test_refused_arguments(name, wanted, value):
    with pytest.raises(NoisyLabelError) as caught:
        JointOptimizationLabels(**{name: value})
    assert str(caught.value) == f"Expected argument `{name}` to be {wanted}, but got {value!r}."


def test_defaults():
    callback = JointOptimizationLabels()
    assert (callback.warmup_epochs, callback.window, callback.labels, callback.makes_soft_targets) == (
        70,
        10,
        "soft",
        True,
    )
