from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses import DeepAbstainingClassifier
from lightning_noisy.optim import SAM
from tests.foreign import make_trainer
from tests.losses.numpy_oracle import Array, softmax
from tests.small import NUM_CLASSES, SmallDataModule, make_module

LABELS = torch.tensor([0, 1, 3])
BATCHES = 2 * np.random.default_rng(0).standard_normal((12, 3, 5))


class Official:
    """The algorithm in the order of the official code, with epochs from 1."""

    def __init__(self, learn: int, total: int, final: float = 1.0, factor: float = 64.0) -> None:
        self.learn, self.total, self.final, self.factor = learn, total, final, factor
        self.average = self.alpha = self.increment = self.set_in = None

    def __call__(self, logits: Array, epoch: int) -> Array:
        p, first, rows = softmax(logits), softmax(logits[:, :-1]), np.arange(3)
        abstain = np.minimum(p[:, -1], 1 - 1e-7)
        entropy = -np.log(first[rows, LABELS])
        now = ((1 - abstain) * entropy).mean()
        self.average = now if self.average is None else 0.05 * now + 0.95 * self.average
        if epoch <= self.learn:
            return -np.log(p[rows, LABELS])
        if self.alpha is None:
            self.alpha = self.average / self.factor
            self.increment = (self.final - self.alpha) / (self.total - epoch)
            self.set_in = epoch
        elif epoch > self.set_in:
            self.alpha, self.set_in = self.alpha + self.increment, epoch
        return (1 - abstain) * entropy - self.alpha * np.log(1 - abstain)


@pytest.mark.parametrize("told", ["argument", "keyword"])
@pytest.mark.parametrize("warmup", [0, 2, 5])
def test_against_the_official_order(warmup: int, told: str) -> None:
    """Two batches an epoch, six epochs."""
    given = 6 if told == "argument" else None
    loss = DeepAbstainingClassifier(warmup, total_epochs=given, reduction="none")
    official = Official(warmup, 6)
    for step, logits in enumerate(BATCHES):
        epoch = step // 2
        if warmup == 5 and epoch == 5 and official.alpha is None:
            expected = None  # the official increment is 1 / 0 here, and never used
            official.total = 7
        expected = official(logits, epoch + 1)
        actual = loss(torch.tensor(logits), LABELS, epoch=epoch, total_epochs=None if given else 6)
        np.testing.assert_allclose(actual, expected, rtol=1e-10)
    if warmup < 5:
        assert loss.alpha(5).item() == pytest.approx(1.0, rel=1e-12)
        assert loss.alpha(100).item() == pytest.approx(1.0, rel=1e-12)


def test_gradient_takes_the_price_as_a_constant() -> None:
    loss = DeepAbstainingClassifier(0, total_epochs=3, reduction="sum")
    leaf = torch.tensor(BATCHES[0], requires_grad=True)
    loss(leaf, LABELS, epoch=0).backward()
    alpha, other = loss.alpha(0).item(), torch.tensor(BATCHES[0], requires_grad=True)
    rest = other.softmax(1)[:, :-1].sum(1)
    entropy = torch.nn.functional.cross_entropy(other[:, :-1], LABELS, reduction="none")
    (rest * entropy - alpha * rest.log()).sum().backward()
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, other.grad, rtol=1e-10, atol=1e-14)


def test_evaluation_is_cross_entropy_of_all_outputs() -> None:
    loss = DeepAbstainingClassifier(0, total_epochs=3).eval()
    before = copy.deepcopy(loss.state_dict())
    logits = torch.tensor(BATCHES[0])
    torch.testing.assert_close(loss(logits, LABELS, epoch=2), torch.nn.functional.cross_entropy(logits, LABELS))
    torch.testing.assert_close(loss.state_dict(), before, equal_nan=True)


def test_state_goes_on_where_it_was() -> None:
    whole, first = DeepAbstainingClassifier(1), DeepAbstainingClassifier(1)
    for step in range(6):
        whole(torch.tensor(BATCHES[step]), LABELS, epoch=step // 2, total_epochs=6)
    for step in range(3):
        first(torch.tensor(BATCHES[step]), LABELS, epoch=step // 2, total_epochs=6)
    resumed = DeepAbstainingClassifier(1)
    resumed.load_state_dict(first.state_dict())
    for step in range(3, 6):  # another max_epochs does not bend the schedule
        resumed(torch.tensor(BATCHES[step]), LABELS, epoch=step // 2, total_epochs=50)
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)
    assert sorted(whole.state_dict()) == ["alpha_start", "epochs", "mean"]
    assert torch.equal(resumed.alpha(4), whole.alpha(4))


def test_defaults() -> None:
    loss = DeepAbstainingClassifier()
    assert (loss.warmup_epochs, loss.alpha_final, loss.divisor, loss.momentum) == (20, 1.0, 64.0, 0.95)
    assert (loss.total_epochs, loss.eps, loss.extra_outputs, loss.soft_targets) == (None, 1e-7, 1, False)
    assert loss.requires == ("epoch", "total_epochs")


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"total_epochs": 3}, r"^DeepAbstainingClassifier expects `epoch`, the number of the epoch, from 0, but got"),
        ({"epoch": 0}, r"^DeepAbstainingClassifier expects `total_epochs`, the number of epochs, but got None"),
    ],
)
def test_refused_calls(context: dict[str, Any], message: str) -> None:
    with pytest.raises(NoisyLabelError, match=message):
        DeepAbstainingClassifier()(torch.tensor(BATCHES[0]), LABELS, **context)


def test_another_number_of_outputs() -> None:
    """Else the last class would be taken for abstention."""
    loss = DeepAbstainingClassifier(total_epochs=2)
    loss.bind(8, 5)
    with pytest.raises(NoisyLabelError) as caught:
        loss(torch.tensor(BATCHES[0]), LABELS, epoch=0)
    assert str(caught.value) == "Expected argument `logits` to be of 6 outputs, K + 1, but got 5."


def test_the_first_of_sam_s_passes_moves_the_mean(tmp_path: Path) -> None:
    module, calls = make_module(DeepAbstainingClassifier(1, momentum=0.8)), []
    module.make_optimizer = lambda parameters: SAM(parameters, torch.optim.SGD, lr=0.05)
    module.make_lr_scheduler = None
    module.loss.register_forward_pre_hook(
        lambda loss, args: calls.append((args[0].detach().double().numpy(), args[1].numpy())) if loss.training else None
    )
    make_trainer(tmp_path, max_epochs=2).fit(module, datamodule=SmallDataModule(seed=0))
    mean = None
    assert len(calls) == 2 * 2 * 5
    for number, (logits, labels) in enumerate(calls[::2]):
        entropy = -np.log(softmax(logits[:, :-1])[np.arange(8), labels])
        now = ((1 - softmax(logits)[:, -1]) * entropy).mean()
        mean = now if mean is None else 0.2 * now + 0.8 * mean
        if number == 5:  # the first batch after the warm-up
            assert module.loss.alpha_start.item() == pytest.approx(mean / 64, rel=1e-5)
    assert module.loss.mean.item() == pytest.approx(mean, rel=1e-5)


def test_module_has_one_more_output_and_evaluates_without_it(tmp_path: Path) -> None:
    module = make_module(DeepAbstainingClassifier(1))
    assert module.network.head.out_features == NUM_CLASSES + 1
    with torch.no_grad():
        module.network.head.bias[NUM_CLASSES] = 50.0  # abstains from everything
    data = SmallDataModule(seed=0)
    trainer = make_trainer(tmp_path, max_epochs=3)
    trainer.fit(module, datamodule=data)
    assert module.loss.epochs.item() == 3
    assert not module.loss.alpha_start.isnan()
    assert module.history[0]["train/acc"] > 0.0
    (metrics,) = trainer.validate(module, datamodule=data, verbose=False)[:1]
    images = torch.randn(5, 1, 8, 8)
    module.eval()
    assert module(images).shape == (5, NUM_CLASSES)
    assert 0.0 < metrics["val/loss"] < 5.0
    torch.testing.assert_close(module.predict_step((images,), 0).sum(1), torch.ones(5))
