"""Class weights where callbacks change targets are those of the given labels."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_noisy import NoisyLabelError
from lightning_noisy.callbacks import SELC, GradientSwitching, JointOptimizationLabels
from lightning_noisy.data import IndexedDataset
from lightning_noisy.losses import ActivePassiveLoss, per_sample
from tests.foreign import ForeignModule, TensorDataset, make_loader, make_tensors, make_trainer
from tests.test_targets import LOGITS, TARGET, enter, placed

WEIGHTS = torch.tensor([0.1, 1.0, 0.0, 7.0])
REDUCTIONS = ("mean", "sum", "none")


class Softens:
    """Gives fixed rows for the labels."""

    replaces_target = makes_soft_targets = True

    def __init__(self, rows):
        self.rows = rows

    def change_target(self, call):
        return self.rows


class Replaces:
    """Gives fixed labels for the labels."""

    replaces_target, makes_soft_targets = True, False

    def __init__(self, labels):
        self.labels = labels

    def change_target(self, call):
        return self.labels


class Mixes:
    replaces_target, makes_soft_targets = False, True

    def change_target(self, call):
        return self.mix(call.rows(call.target))

    def mix(self, values):
        return 0.7 * values + 0.3 * values.roll(1, 0)


def weighted(reduction="mean", label_smoothing=0.0):
    return nn.CrossEntropyLoss(WEIGHTS, reduction=reduction, label_smoothing=label_smoothing)


@pytest.fixture
def changing():
    """Brings criteria into a batch in which their target changes."""
    pipelines = []

    def enter_batch(criterion, *changers):
        pipelines.append(placed(criterion))
        for changer in changers:
            pipelines[-1].add_changer(changer)
        enter(pipelines[-1])
        return pipelines[-1]

    return enter_batch


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_one_hot_rows_are_what_torch_makes_of_labels(changing, reduction, label_smoothing):
    criterion = weighted(reduction, label_smoothing)
    expected = criterion(LOGITS, TARGET)
    changing(criterion, Softens(F.one_hot(TARGET, 4).float()))
    torch.testing.assert_close(criterion(input=LOGITS, target=TARGET), expected)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_loss_of_a_row_is_weighed_by_the_given_label(changing, reduction):
    rows = torch.randn(3, 4).softmax(dim=1)
    each = WEIGHTS[TARGET] * -(rows.double() * LOGITS.double().log_softmax(1)).sum(1)
    expected = {"mean": each.sum() / WEIGHTS[TARGET].sum(), "sum": each.sum(), "none": each}[reduction]
    criterion = weighted(reduction)
    plain = criterion(LOGITS, rows)
    pipeline = changing(criterion, Softens(rows))
    torch.testing.assert_close(criterion(LOGITS, TARGET).double(), expected, rtol=1e-5, atol=1e-6)
    pipeline.run.leave_batch()
    assert torch.equal(criterion(LOGITS, rows), plain)
    assert not criterion._forward_hooks
    assert not any("weights_of" in name for name in vars(criterion))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", [nn.CrossEntropyLoss, nn.NLLLoss])
def test_another_label_has_the_weight_of_the_given_one(changing, kind, reduction):
    criterion, other = kind(WEIGHTS, ignore_index=2, reduction=reduction), torch.tensor([3, 0, 2])
    inputs, kept = LOGITS.log_softmax(1), torch.tensor([1.0, 1.0, 0.0])
    weights = WEIGHTS[TARGET] * kept
    each = weights * -inputs.gather(1, other.unsqueeze(1)).squeeze(1)
    expected = {"mean": each.sum() / weights.sum(), "sum": each.sum(), "none": each}[reduction]
    pipeline = changing(criterion, Replaces(other))
    torch.testing.assert_close(criterion(inputs, TARGET), expected)
    torch.testing.assert_close(per_sample(criterion)(inputs, TARGET).weights, weights)
    pipeline.run.leave_batch()
    torch.testing.assert_close(
        criterion(inputs, other), kind(WEIGHTS, ignore_index=2, reduction=reduction)(inputs, other)
    )


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_mixed_labels_have_the_mean_of_both_losses(changing, label_smoothing):
    criterion = weighted(label_smoothing=label_smoothing)
    expected = 0.7 * criterion(LOGITS, TARGET) + 0.3 * criterion(LOGITS, TARGET.roll(1))
    changing(criterion, Mixes())
    torch.testing.assert_close(criterion(LOGITS, TARGET), expected)


def test_mixed_rows_bring_the_weights_of_their_labels(changing):
    rows, criterion = torch.randn(3, 4).softmax(dim=1), weighted()
    cost, weights = -LOGITS.log_softmax(1), WEIGHTS[TARGET]
    each = sum(share * (weights * (cost.roll(-turn, 0) * rows).sum(1)).sum() for share, turn in ((0.7, 0), (0.3, 1)))
    changing(criterion, Softens(rows), Mixes())
    torch.testing.assert_close(criterion(LOGITS, TARGET), each / weights.sum())


@pytest.mark.parametrize(
    "make",
    [
        lambda: ActivePassiveLoss(weighted(), nn.CrossEntropyLoss(), 1.0, 0.0),
        lambda: ActivePassiveLoss(ActivePassiveLoss(nn.CrossEntropyLoss(), weighted(), 0.0, 0.4), weighted(), 1.0, 0.6),
    ],
)
def test_a_part_of_another_loss_keeps_its_weights(changing, make):
    loss, rows = make(), torch.randn(3, 4).softmax(dim=1)
    changing(loss, Softens(rows))
    each = WEIGHTS[TARGET] * F.cross_entropy(LOGITS, rows, reduction="none")
    torch.testing.assert_close(loss(LOGITS, TARGET), each.sum() / WEIGHTS[TARGET].sum())


def test_selected_samples_are_divided_by_their_own_weights(changing):
    criterion, rows = weighted(), torch.randn(3, 4).softmax(dim=1)
    changing(criterion, Softens(rows))
    each = per_sample(criterion)(LOGITS, TARGET)
    torch.testing.assert_close(each.weights, WEIGHTS[TARGET])
    torch.testing.assert_close(each[:1].mean(), F.cross_entropy(LOGITS[:1], rows[:1]))
    torch.testing.assert_close(each.mean(), criterion(LOGITS, TARGET))


class FocalWithWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("class_weights", WEIGHTS)

    def forward(self, logits, target):
        return F.cross_entropy(logits, target, self.class_weights)


class Subclass(nn.CrossEntropyLoss):
    def forward(self, input, target):
        return super().forward(input, target)


class Smooths(nn.Module):
    def __init__(self):
        super().__init__()
        self.base = weighted()

    def forward(self, logits, target):
        return self.base(logits, 0.9 * target + 0.025)


@pytest.mark.parametrize("criterion", [FocalWithWeights(), Subclass(WEIGHTS)])
def test_unknown_weights_are_refused(changing, criterion):
    with pytest.raises(NoisyLabelError, match=r"^Softens makes soft targets, and how the class weights of \w+ act .*$"):
        changing(criterion, Softens(None))


def test_rows_changed_on_the_way_are_refused(changing):
    criterion = Smooths()
    changing(criterion, Softens(F.one_hot(TARGET, 4).float()))
    with pytest.raises(NoisyLabelError, match=r"^Class weights have no meaning for soft targets that .*$"):
        criterion(LOGITS, TARGET)


class Functional(ForeignModule):
    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1], torch.tensor([0.0, 1.0, 2.0, 3.0]))


@pytest.mark.parametrize(
    "callback",
    [SELC(momentum=0.5), JointOptimizationLabels(warmup_epochs=1, window=1), GradientSwitching()],
    ids=lambda callback: type(callback).__name__,
)
@pytest.mark.parametrize("functional", [False, True])
def test_a_run_trains_on_the_weights_of_given_labels(tmp_path, callback, functional):
    """A class of weight zero has no part, however its samples' targets move: its features may be anything."""
    weights = torch.tensor([0.0, 1.0, 2.0, 3.0])

    def train(replacement):
        x, given, _ = make_tensors()
        x = torch.where((given == 0).unsqueeze(1), replacement, x)
        torch.manual_seed(0)
        module = Functional() if functional else ForeignModule()
        module.criterion = None if functional else nn.CrossEntropyLoss(weights)
        loader = make_loader(IndexedDataset(TensorDataset(x, given)))
        make_trainer(tmp_path, [callback], max_epochs=3).fit(module, loader)
        return torch.cat([p.flatten() for p in module.parameters()])

    assert torch.equal(train(0.0), train(5.0))
