"""Rows that are moved only where the criterion pays attention, against the loop of NAL's code in float64."""

import copy

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from torch import nn
from torch.utils.data import TensorDataset

from lightning_noisy import NoisyLabelError
from lightning_noisy.callbacks import SELC
from lightning_noisy.data import IndexedDataset
from lightning_noisy.losses import ActivePassiveLoss, NoiseAttentionLoss
from tests.foreign import make_loader, make_tensors, make_trainer
from tests.small import SmallDataModule, make_module

CLASSES, WIDTH, BATCH, LR, FLOOR = 4, 8, 8, 0.4, 1e-4
EPOCHS, ES, GATE, MOMENTUM = 6, 2, 2, 0.6  # of NAL's code, which counts epochs from 1


class Project(LightningModule):
    """Calls its criterion with features, by their name."""

    def __init__(self, source, lam, **options):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(6, WIDTH), nn.Tanh())
        self.classifier = nn.Linear(WIDTH, CLASSES)
        self.criterion = NoiseAttentionLoss(WIDTH, lam=lam, beta=0.1, attention=source, label_floor=FLOOR, **options)

    def training_step(self, batch, batch_idx):
        x, target, _ = batch
        features = self.body(x)
        self.passes = getattr(self, "passes", 0) + 1
        return self.criterion(self.classifier(features), target, features=features)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=LR)


def project(source, lam=0.5, dtype=torch.float64):
    return Project(source, lam).to(dtype)


def loader(dtype=torch.float64):
    x, noisy, _ = make_tensors()
    return make_loader(IndexedDataset(TensorDataset(x.to(dtype), noisy)), BATCH)


def nal(threshold, **options):
    settings = {"momentum": MOMENTUM, "warmup_epochs": ES - 1, "every_n_epochs": GATE, "floor": FLOOR}
    return SELC(**{**settings, "attention_threshold": threshold, **options})


def official(module, threshold, epochs=EPOCHS, floor=FLOOR):
    """NAL's code: table, weights, and how far the attentions of updates were from the threshold, with their sign.

    Its table starts with exact zeros (``floor=0``) and is clipped as a whole after the first update.
    """
    x, labels, _ = make_tensors()
    x = x.double()
    optimizer = torch.optim.SGD(module.parameters(), lr=LR)
    table = torch.eye(CLASSES, dtype=torch.float64)[labels].clamp(min=floor)
    margins = []
    for epoch in range(1, epochs + 1):
        for rows in torch.arange(len(labels)).split(BATCH):
            features = module.body(x[rows])
            logits = module.classifier(features)
            p = logits.softmax(1)
            branch = module.criterion.branch
            tau = p.max(1).values if branch is None else torch.sigmoid(features @ branch.weight[0] + branch.bias)
            if epoch < ES:
                target = torch.eye(CLASSES, dtype=torch.float64)[labels[rows]].clamp(min=FLOOR)
            else:
                if epoch % GATE == 0:
                    for position, row in enumerate(rows):
                        margins.append(tau[position].item() - threshold)
                        if margins[-1] > 0:
                            table[row] = MOMENTUM * table[row] + (1 - MOMENTUM) * p[position].detach()
                    table = table.clamp(min=FLOOR)
                target = table[rows].clone()
            u = (tau[:, None] * p + (1 - tau[:, None]) * target).clamp(1e-7, 1.0)
            losses = -(target * u.log()).sum(1) - module.criterion.lam * tau.log() - 0.1 * (u * target.log()).sum(1)
            optimizer.zero_grad()
            losses.mean().backward()
            optimizer.step()
    return table, dict(module.state_dict()), np.array(margins)


@pytest.mark.parametrize(("source", "threshold"), [("branch", 0.55), ("branch", 0.0), ("confidence", 0.34)])
def test_table_and_weights_are_those_of_the_official_loop(tmp_path, source, threshold):
    module, callback = project(source), nal(threshold)
    table, weights, margins = official(copy.deepcopy(module), threshold)
    make_trainer(tmp_path, [callback], EPOCHS).fit(module, loader())

    assert np.abs(margins).min() > 1e-4  # far from a tie, whatever the rounding
    assert (margins > 0).all() == (threshold == 0)
    assert threshold == 0 or 0.15 < (margins > 0).mean() < 0.85
    torch.testing.assert_close(callback.section.stores["target"].values.double(), table, rtol=0, atol=1e-6)
    torch.testing.assert_close(dict(module.state_dict()), weights, rtol=1e-5, atol=1e-7)
    assert module.passes == EPOCHS * 3


def test_the_very_first_update_alone_starts_elsewhere_than_in_the_official_code(tmp_path):
    module, callback = project("branch"), nal(0.0)
    table, *_ = official(copy.deepcopy(module), 0.0, ES, floor=0.0)
    make_trainer(tmp_path, [callback], ES).fit(module, loader())
    difference = callback.section.stores["target"].values.double() - table
    zeros = 1 - torch.eye(CLASSES, dtype=torch.float64)[make_tensors()[1]]
    zeros[BATCH:] = 0
    torch.testing.assert_close(difference, MOMENTUM * FLOOR * zeros, rtol=0, atol=1e-5)


def test_rows_without_attention_stay_as_they_are(tmp_path):
    callback = nal(0.999, warmup_epochs=0, every_n_epochs=1, floor=0.0)
    make_trainer(tmp_path, [callback], 1).fit(project("branch"), loader())
    assert torch.equal(callback.section.stores["target"].values, torch.eye(CLASSES)[make_tensors()[1]])


def test_equal_attention_is_not_enough(tmp_path):
    module = project("branch")
    nn.init.zeros_(module.criterion.branch.weight)
    nn.init.zeros_(module.criterion.branch.bias)  # tau is 0.5
    moved = {}
    for threshold in (0.5, 0.499):
        callback = nal(threshold, warmup_epochs=0, every_n_epochs=1, floor=0.0)
        make_trainer(tmp_path, [callback], 1, limit_train_batches=1).fit(copy.deepcopy(module), loader())
        moved[threshold] = (callback.section.stores["target"].values[:BATCH].max(dim=1).values < 1).all().item()
    assert moved == {0.5: False, 0.499: True}


def test_our_module_gives_the_features_that_the_loss_requires(tmp_path):
    seen = []

    class Watched(NoiseAttentionLoss):
        def sample_attention(self, logits, *, features=None):
            seen.append((logits.shape, features.shape, torch.is_grad_enabled()))
            return super().sample_attention(logits, features=features)

    callback = nal(0.5, warmup_epochs=1, every_n_epochs=1)
    make_trainer(tmp_path, [callback], 2).fit(make_module(Watched()), datamodule=SmallDataModule(seed=0))
    assert seen == [((8, CLASSES), (8, 8), False)] * 5  # once a batch, in the second epoch


@pytest.mark.parametrize("source", ["branch", "confidence"])
def test_autocast(tmp_path, source):
    callback = nal(0.4, warmup_epochs=0, every_n_epochs=1)
    module = project(source, dtype=torch.float32)
    make_trainer(tmp_path, [callback], 2, precision="bf16-mixed").fit(module, loader(torch.float32))
    assert callback.section.stores["target"].values.dtype == torch.float32
    assert (callback.section.stores["target"].values.max(dim=1).values < 1).any()


def test_copies_made_in_training_are_of_no_consequence_and_can_be_used(tmp_path):
    class Copier(Callback):
        def on_train_batch_end(self, trainer, pl_module, *rest):
            self.copies = copy.deepcopy(callback), copy.deepcopy(pl_module.criterion)

    plain, callback, copier = nal(0.55), nal(0.55), Copier()
    make_trainer(tmp_path, [plain], EPOCHS).fit(project("branch"), loader())
    make_trainer(tmp_path, [callback, copier], EPOCHS).fit(project("branch"), loader())
    whole = plain.section.stores["target"].values
    assert torch.equal(callback.section.stores["target"].values, whole)
    again, criterion = copier.copies
    assert torch.equal(again.section.stores["target"].values, whole)
    assert again.attention_threshold == 0.55
    module = project("branch")
    module.criterion = criterion
    make_trainer(tmp_path, [again], 1).fit(module, loader())


class Keywords(nn.Module):
    """Takes whatever it is given, and shows it."""

    def forward(self, logits, target, scale=1.0, **others):
        return nn.functional.cross_entropy(logits, target) * scale

    def sample_attention(self, logits, **context):
        self.context = context
        return torch.ones(len(logits))


def test_the_context_is_what_else_the_criterion_is_called_with(tmp_path):
    class Calls(Project):
        def training_step(self, batch, batch_idx):
            return self.criterion(self.classifier(self.body(batch[0])), batch[1], 2.0, epoch=self.current_epoch)

    module = Calls("branch", 0.5)
    module.criterion = Keywords()
    make_trainer(tmp_path, [SELC(attention_threshold=0.5)], 2).fit(module, loader(torch.float32))
    assert module.criterion.context == {"scale": 2.0, "epoch": 1}


@pytest.mark.parametrize(
    "criterion", [nn.CrossEntropyLoss(), ActivePassiveLoss(nn.CrossEntropyLoss(), NoiseAttentionLoss(WIDTH), 1, 1)]
)
def test_a_criterion_without_attention_is_refused(tmp_path, criterion):
    module = project("branch", dtype=torch.float32)
    module.criterion = criterion
    with pytest.raises(NoisyLabelError) as caught:
        make_trainer(tmp_path, [nal(0.0)]).fit(module, loader(torch.float32))
    assert str(caught.value) == (
        "Expected `criterion` to pay attention to samples, since SELC has `attention_threshold`, but "
        f"{type(criterion).__name__} has no `sample_attention`: use NoiseAttentionLoss, or leave "
        "`attention_threshold` out."
    )
    make_trainer(tmp_path, [SELC()], 1).fit(project("branch"), loader())


def test_features_that_do_not_come_are_asked_for(tmp_path):
    class Forgets(Project):
        def training_step(self, batch, batch_idx):
            return self.criterion(self.classifier(self.body(batch[0])), batch[1])

    with pytest.raises(NoisyLabelError, match=r"expects `features`, the features \(B, D\) that"):
        make_trainer(tmp_path, [nal(0.5)], 2).fit(Forgets("branch", 0.5).double(), loader())


@pytest.mark.parametrize("threshold", [-0.1, 1.0, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(NoisyLabelError, match=r"`attention_threshold` to be a float in \[0, 1\), but got"):
        SELC(attention_threshold=threshold)
