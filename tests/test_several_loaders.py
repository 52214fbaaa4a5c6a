"""One or several training loaders that index one training set: per-sample state is that of the samples called."""

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader, Subset, TensorDataset

from lightning_noisy import NoisyLabelError
from lightning_noisy.callbacks import SELC, ConfidenceTracker, LabelWriter, StepSeed
from lightning_noisy.data import EpochSampler, IndexedDataset, ResumableLoader
from lightning_noisy.heads import LinearHead
from lightning_noisy.losses import EarlyLearningRegularization
from lightning_noisy.modules import StrategyModule
from lightning_noisy.networks import MLP, Classifier
from tests.foreign import ForeignModule, make_loader, make_tensors, make_trainer
from tests.small import assert_same

SAMPLES, CLASSES, MOMENTUM = 24, 4, 0.6


class Project(ForeignModule):
    """Learns from the samples of the named loaders together."""

    def __init__(self, *names):
        super().__init__()
        self.names, self.calls = names, []

    def training_step(self, batch, batch_idx):
        parts = [batch[name] for name in self.names]
        x, target, index = (torch.cat(column) for column in zip(*parts, strict=True))
        logits = self(x)
        self.calls.append((index.numpy(), logits.detach().double().numpy()))
        return self.criterion(logits, target)


def train_set():
    x, noisy, _ = make_tensors()
    return IndexedDataset(TensorDataset(x, noisy))


def loaders(first=(0, 12), second=(12, 24), sizes=(4, 4), dataset=None):
    whole = dataset or train_set()
    return [
        DataLoader(Subset(whole, range(*part)), size, shuffle=True)
        for part, size in zip((first, second), sizes, strict=True)
    ]


def selc_rows(calls):
    rows = np.eye(CLASSES)[make_tensors()[1].numpy()]
    seen = set()
    for index, logits in calls:
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        rows[index] = MOMENTUM * rows[index] + (1 - MOMENTUM) * powers / powers.sum(axis=1, keepdims=True)
        seen |= set(index.tolist())
    rows[[sample for sample in range(SAMPLES) if sample not in seen]] = 0
    return rows


@pytest.mark.parametrize(
    ("names", "make", "index_key"),
    [
        (["a"], lambda: dict(zip("ab", loaders(sizes=(4, 6)), strict=True)), None),
        (["b"], lambda: dict(zip("ab", loaders(sizes=(4, 6)), strict=True)), None),
        (["a", "b"], lambda: dict(zip("ab", loaders(), strict=True)), None),
        (["b"], lambda: dict(zip("ab", loaders(), strict=True)), "b"),
        ([1], loaders, 1),
        ([0, 1], loaders, None),
        (["a"], lambda: CombinedLoader(dict(zip("ab", loaders(sizes=(4, 6)), strict=True)), "min_size"), None),
        (["a"], lambda: {"a": loaders()[0], "b": make_loader(train_set())}, "a"),
    ],
    ids=["first", "second", "both", "named", "by position", "list", "combined", "part and whole"],
)
def test_rows_are_those_of_the_samples_called(tmp_path, names, make, index_key):
    module, selc = Project(*names), SELC(MOMENTUM, index_key=index_key)
    make_trainer(tmp_path, [selc], max_epochs=3).fit(module, make())
    np.testing.assert_allclose(selc.section.stores["target"].values, selc_rows(module.calls), atol=1e-6)


def test_loaders_of_equal_size_are_asked_for(tmp_path):
    with pytest.raises(NoisyLabelError, match=r"4 rows of logits, as many as several loaders give \(0, 1\): name the"):
        make_trainer(tmp_path, [SELC()]).fit(Project(0), loaders())


def test_loaders_of_different_sets_are_refused(tmp_path):
    x, noisy, _ = make_tensors(32)
    other = make_loader(IndexedDataset(TensorDataset(x, noisy)))
    with pytest.raises(NoisyLabelError, match=r"index different sets \(24, 32 samples\).*once"):
        make_trainer(tmp_path, [SELC()]).fit(Project(0), [make_loader(train_set()), other])


def test_samples_of_a_part_keep_their_place_in_the_whole(tmp_path):
    """A single loader over a part of an indexed set: rows and labels are those of the whole."""
    x, noisy, clean = make_tensors()
    part = Subset(IndexedDataset(TensorDataset(x, noisy)), range(12, 24))
    callbacks = [SELC(MOMENTUM), ConfidenceTracker(clean), LabelWriter(str(tmp_path / "labels.npz"))]
    make_trainer(tmp_path, callbacks, max_epochs=1).fit(ForeignModule(), make_loader(part))
    assert callbacks[0].section.stores["target"].values.any(dim=1).tolist() == [False] * 12 + [True] * 12
    with np.load(tmp_path / "labels.npz") as file:
        assert file["labels"][:12].tolist() == noisy[:12].tolist()


@pytest.mark.parametrize("step", [2, 3, 4])
def test_a_resume_equals_an_uninterrupted_run(tmp_path, step):
    def fit(ckpt_path=None):
        torch.manual_seed(0)
        whole = train_set()
        both = {
            name: ResumableLoader(whole, batch_size=size, sampler=EpochSampler(whole, seed=seed))
            for name, size, seed in (("a", 8, 1), ("b", 6, 2))
        }
        module, selc = Project("a", "b"), SELC(MOMENTUM)
        every = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
        trainer = make_trainer(tmp_path, [StepSeed(1), selc, every], 2, enable_checkpointing=True)
        trainer.fit(module, CombinedLoader(both, "min_size"), ckpt_path=ckpt_path)
        return {"rows": selc.section.stores["target"].values, "weights": module.state_dict()}

    whole = fit()
    torch.save(torch.load(tmp_path / f"step={step}.ckpt", weights_only=True), tmp_path / "kept.ckpt")
    assert_same(whole, fit(tmp_path / "kept.ckpt"))


class TwoLoaders(StrategyModule):
    """Supervised on one loader; on the other the network is asked to be sure of itself."""

    def __init__(self):
        super().__init__(CLASSES, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))
        self.network = Classifier(MLP(6, hidden=[8]), LinearHead, CLASSES)
        self.loss = EarlyLearningRegularization(lam=1.0, momentum=MOMENTUM)
        self.calls = []

    def forward(self, images):
        return self.network(images)

    def step(self, batch):
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        outputs = self.network.outputs(labeled.images)
        self.calls.append((labeled.index.numpy(), outputs.logits.detach().double().numpy()))
        entropy = torch.special.entr(self.network(unlabeled.images).softmax(dim=1)).sum(dim=1).mean()
        return self.training_loss(self.loss, outputs, labeled) + 0.1 * entropy


def test_a_strategy_on_two_loaders_of_equal_size(tmp_path):
    """Callbacks need no `index_key`: the step says which samples its criterion is called with."""
    module, selc = TwoLoaders(), ConfidenceTracker(make_tensors()[2])
    parts = dict(zip(("labeled", "unlabeled"), loaders(), strict=True))
    trainer = make_trainer(tmp_path, [selc], max_epochs=2)
    trainer.fit(module, parts)
    seen = sorted(set(np.concatenate([index for index, _ in module.calls]).tolist()))
    assert seen == list(range(12))
    rows = trainer.callbacks[0].state.sections["loss loss"].stores["prediction"].values
    assert rows.any(dim=1).tolist() == [True] * 12 + [False] * 12
    assert set(module.history[1]) == {"train/loss", "train/acc"}
