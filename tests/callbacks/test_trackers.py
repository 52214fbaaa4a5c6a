"""Trackers of gradients, attention, corrected labels and pools, against float64 and brute force."""

import copy
import math

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from lightning_noisy import NoisyLabelError
from lightning_noisy.callbacks import (
    SELC,
    AttentionTracker,
    ConfidenceTracker,
    CorrectionTracker,
    GradientBiasTracker,
    GradientErrorTracker,
    GradientShareTracker,
    GradientSwitching,
    LabelWriter,
    LossMemory,
    MaskRefresh,
    MixUp,
    PoolTracker,
)
from lightning_noisy.data import IndexedDataset
from lightning_noisy.heads import LinearHead
from lightning_noisy.loop import NoisyLoop
from lightning_noisy.losses import (
    ActiveNegativeLoss,
    DeepAbstainingClassifier,
    EarlyLearningRegularization,
    GeneralizedCrossEntropy,
    NegativeLearning,
    NoiseAttentionLoss,
    PencilLoss,
)
from lightning_noisy.modules import GSSDual
from lightning_noisy.networks import SmallCNN
from lightning_noisy.targets import TargetPipeline
from tests._dummies.two_networks import CoTeaching
from tests.foreign import ForeignModule, make_loader, make_tensors, make_trainer
from tests.modules.strategies import make_strategy
from tests.small import NUM_CLASSES, SmallDataModule, assert_same, make_module

X, GIVEN, CLEAN = make_tensors(num_samples=26)
WRONG = (GIVEN != CLEAN).numpy()
TRACKERS = (
    AttentionTracker,
    CorrectionTracker,
    GradientBiasTracker,
    GradientErrorTracker,
    GradientShareTracker,
    PoolTracker,
)
GRADIENTS = (GradientErrorTracker, GradientShareTracker, GradientBiasTracker)


class Project(ForeignModule):
    """In float64; its step is one of those below."""

    def __init__(self, criterion=None, step=None):
        torch.manual_seed(0)
        super().__init__()
        self.criterion = criterion or nn.CrossEntropyLoss()
        self.own_step = step
        self.double()

    def training_step(self, batch, batch_idx):
        x, target, _ = batch
        return self.criterion(self(x), target) if self.own_step is None else self.own_step(self, x, target)


class Spy(Callback):
    """What stands at the criterion in each batch: epoch, batch, index, logits and target, float64."""

    def __init__(self):
        self.seen = []

    def on_train_start(self, trainer, pl_module):
        def note(_, args):
            index, batch_idx = self.batch
            logits, target = (values.detach().numpy().copy() for values in args[:2])
            self.seen.append((trainer.current_epoch, batch_idx, index, logits, target))

        pl_module.criterion.register_forward_pre_hook(note)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batch = batch[2].numpy(), batch_idx

    def of(self, epoch, every=1):
        return [seen[2:] for seen in self.seen if seen[0] == epoch and seen[1] % every == 0]


def loader():
    return make_loader(IndexedDataset(TensorDataset(X.double(), GIVEN)))  # 8 + 8 + 8 + 2


def run(folder, callbacks, module=None, max_epochs=3, **options):
    module = module or Project()
    make_trainer(folder, callbacks, max_epochs, **options).fit(module, loader())
    return module


def softmax(logits):
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def one_hot(labels):
    return np.eye(4)[labels]


def by_hand(seen, metric):
    return {epoch: pytest.approx(metric(seen.of(epoch)), rel=1e-6) for epoch in range(3)}


# The gradient error


class Cosines(Callback):
    """Before each step: the cosine of both gradients by plain autograd of a copy."""

    def __init__(self, loss, every=1):
        self.loss, self.every, self.epochs = loss, every, {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx % self.every:
            return
        model, (x, given, index) = copy.deepcopy(pl_module), batch
        layer = list(model.body[0].parameters())
        gradients = [
            torch.cat([g.flatten() for g in torch.autograd.grad(self.loss(model(x), y), layer)])
            for y in (given, CLEAN[index])
        ]
        cosine = float(gradients[0] @ gradients[1] / gradients[0].norm() / gradients[1].norm())
        self.epochs.setdefault(trainer.current_epoch, []).append((len(x), cosine))

    def mean(self, epoch):
        return sum(n * cosine for n, cosine in self.epochs[epoch]) / sum(n for n, _ in self.epochs[epoch])


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize(
    ("criterion", "step", "loss"),
    [
        (None, None, F.cross_entropy),
        (GeneralizedCrossEntropy(0.7), None, GeneralizedCrossEntropy(0.7)),
        (nn.CrossEntropyLoss(torch.tensor([1.0, 5.0, 2.0, 1.0]), reduction="sum"), None, None),
        (None, lambda m, x, y: F.nll_loss(m(x).log_softmax(1), y), F.cross_entropy),
    ],
    ids=["cross entropy", "gce", "class weights", "nll"],
)
def test_the_gradient_error_is_the_cosine_of_two_backward_passes(tmp_path, criterion, step, loss, every):
    project = Project(criterion, step)
    name = None if step is None else "F.nll_loss"
    expected = Cosines(loss or copy.deepcopy(project.criterion), every)
    tracker = GradientErrorTracker(CLEAN, layer="body.0", every_n_steps=every, criterion=name)
    run(tmp_path, [tracker, expected], project)
    cosines = [tracker.history[epoch][tracker.metric("train/gradient_error", "cosine")] for epoch in range(3)]
    assert cosines == pytest.approx([expected.mean(epoch) for epoch in range(3)], rel=1e-9)
    assert max(cosines) < 0.999


def test_the_layer_is_the_last_of_the_backbone_that_the_logits_come_from(tmp_path):
    trackers = [GradientErrorTracker(criterion=f"losses.{i}", every_n_steps=1) for i in range(2)]
    module = CoTeaching(lambda: SmallCNN(width=4, num_features=8), LinearHead, nn.CrossEntropyLoss(), NUM_CLASSES)
    reached = {}

    class Passes(Callback):
        def on_fit_start(self, trainer, pl_module):
            for tracker in trackers:
                layers = {
                    name for name, p in pl_module.named_parameters() if any(p is weight for weight in tracker._weights)
                }
                reached[tracker.criterion] = layers

    make_trainer(tmp_path, [*trackers, Passes()]).fit(module, datamodule=SmallDataModule(seed=0))
    last = [name for name, p in SmallCNN(width=4, num_features=8).named_parameters() if p.ndim > 1][-1].removesuffix(
        ".weight"
    )
    assert {name.rpartition(".")[0] for name in reached["losses.0"]} == {
        f"networks.{i}.backbone.{last}" for i in (0, 1)
    }
    cosines = [t.history[1][f"train/gradient_error/losses.{i}/cosine"] for i, t in enumerate(trackers)]
    assert cosines[0] != cosines[1]
    assert all(-1 < cosine < 1 for cosine in cosines)


def test_clean_labels_that_are_given_have_no_error_and_no_bias(tmp_path):
    error, share, bias = (kind(GIVEN, every_n_steps=1) for kind in GRADIENTS)
    error.layer = "body.0"
    run(tmp_path, [error, bias, share])
    assert error.history[2]["train/gradient_error/cosine"] == pytest.approx(1, rel=1e-12)
    assert set(bias.history[2].values()) == {0.0}
    assert share.history[2] == {"train/gradient_share/clean": 1.0, "train/gradient_share/noisy": 0.0}


# The gradient share


def half(module, x, target):
    """Learns from every other sample, twice as much from the first."""
    losses = F.cross_entropy(module(x), target, reduction="none")[::2]
    return losses.mean() + losses[0]


SHARES = {
    "cross entropy": (None, lambda p, t: (p - t) / len(p)),
    "nll": (lambda m, x, y: F.nll_loss(m(x).log_softmax(1), y), lambda p, t: (p - t) / len(p)),
    "selection": (
        half,
        lambda p, t: (
            (p - t) * (np.arange(len(p)) % 2 == 0)[:, None] * (1 / -(-len(p) // 2) + (np.arange(len(p)) == 0))[:, None]
        ),
    ),
}


@pytest.mark.parametrize("name", SHARES)
def test_the_gradient_share_is_that_of_the_gradient_that_trains(tmp_path, name):
    step, gradient = SHARES[name]
    logits = {}

    class Logits(Callback):
        def on_fit_start(self, trainer, pl_module):
            pl_module.classifier.register_forward_hook(
                lambda _, __, output: logits.setdefault(trainer.current_epoch, []).append(output.detach().numpy())
            )

    project = Project(step=step or (lambda m, x, y: F.cross_entropy(m(x), y)))
    project.criterion = None
    tracker = GradientShareTracker(CLEAN, every_n_steps=2)
    aside = GradientErrorTracker(CLEAN, layer="body.0", every_n_steps=1)  # its passes are no training
    run(tmp_path, [tracker, aside, Logits()], project)
    for epoch, metrics in tracker.history.items():
        norms = np.zeros(26)
        for batch in (0, 2):
            rows = slice(8 * batch, 8 * batch + 8)
            norms[rows] = np.linalg.norm(gradient(softmax(logits[epoch][batch]), one_hot(GIVEN[rows])), axis=1)
        expected = norms[WRONG].sum() / norms.sum()
        assert metrics["train/gradient_share/noisy"] == pytest.approx(expected, rel=1e-9)
        assert metrics["train/gradient_share/clean"] == pytest.approx(1 - expected, rel=1e-9)


# The accumulated bias


def test_the_bias_of_labels_that_stand_adds_up_and_that_of_draws_cancels(tmp_path):
    plain, drawn, seen = GradientBiasTracker(CLEAN), GradientBiasTracker(CLEAN), Spy()
    run(tmp_path, [plain])
    run(tmp_path, [GradientSwitching(lam_random=50.0, seed=0), drawn, seen], max_epochs=9)
    for epoch in range(3):
        visits = epoch + 1
        assert plain.history[epoch] == pytest.approx(
            dict.fromkeys(
                ("train/gradient_bias/accumulated", "train/gradient_bias/summed"), WRONG.mean() * visits * math.sqrt(2)
            ),
            rel=1e-6,
        )
    total, length = np.zeros((26, 4)), np.zeros(26)
    for epoch in range(9):
        for index, _, target in seen.of(epoch):
            error = one_hot(CLEAN[index]) - one_hot(target)
            total[index] += error
            length[index] += np.linalg.norm(error, axis=1)
        expected = np.linalg.norm(total, axis=1).mean(), length.mean()
        assert list(drawn.history[epoch].values()) == pytest.approx(expected, rel=1e-6)
    assert expected[0] < 0.9 * expected[1]


def test_the_bias_is_that_of_the_criterion_s_own_gradient(tmp_path):
    tracker, seen = GradientBiasTracker(CLEAN), Spy()
    run(tmp_path, [tracker, seen], Project(GeneralizedCrossEntropy(0.7)), max_epochs=1)

    def gradient(p, labels):
        at_label = p[np.arange(len(p)), labels][:, None]
        return at_label**0.7 * (p - one_hot(labels))

    norms = [
        np.linalg.norm(gradient(softmax(z), target) - gradient(softmax(z), CLEAN[index]), axis=1)
        for index, z, target in seen.of(0)
    ]
    assert tracker.history[0]["train/gradient_bias/summed"] == pytest.approx(np.concatenate(norms).mean(), rel=1e-6)


@pytest.mark.parametrize("batches", [1, 2])
def test_the_bias_of_a_strategy_is_that_of_what_it_selects(tmp_path, batches):
    """The second network learns from what the first one finds easy, and from nothing else."""
    tracker, logits = GradientBiasTracker(criterion="losses.1"), [None, None]
    module, data = make_strategy("CoTeaching"), SmallDataModule(seed=0, val_fraction=0.0)
    module.networks.double()
    share = GradientShareTracker(criterion="losses.1", every_n_steps=1)  # whose hook stands at the same logits
    seen = []

    class Logits(Callback):
        def on_train_start(self, trainer, pl_module):
            for number, loss in enumerate(pl_module.losses):
                loss.register_forward_pre_hook(lambda _, args, at=number: logits.__setitem__(at, args[0].detach()))

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append((trainer.current_epoch, batch[2].numpy(), *(z.double().numpy().copy() for z in logits)))

    unnamed, others = GradientBiasTracker(), GradientBiasTracker(criterion="losses.0")
    callbacks = [share, tracker, Logits(), unnamed, others]
    make_trainer(tmp_path, callbacks, accumulate_grad_batches=batches, precision="64-true").fit(module, datamodule=data)
    given, clean = data.noisy_targets.numpy(), data.clean_targets.numpy()
    total, length, trained = np.zeros((48, 4)), np.zeros(48), np.zeros(48)
    for epoch, index, first, second in seen:
        kept = 8 if epoch == 0 else 4  # floor(0.6 * 8)
        losses = -np.log(softmax(first)[np.arange(8), given[index]])
        easy = np.argsort(losses)[:kept]
        gradient = np.zeros((8, 4))
        gradient[easy] = 8 / kept * (softmax(second) - one_hot(given[index]))[easy]
        error = gradient - (softmax(second) - one_hot(clean[index]))
        total[index] += error
        length[index] += np.linalg.norm(error, axis=1)
        trained[index] += epoch * np.linalg.norm(gradient, axis=1)
    expected = np.linalg.norm(total, axis=1).mean(), length.mean()
    assert list(tracker.history[1].values()) == pytest.approx(expected, rel=1e-6)
    assert list(unnamed.history[1].values()) == list(others.history[1].values())
    noisy = trained[given != clean].sum() / trained.sum()
    assert share.history[1]["train/gradient_share/losses.1/noisy"] == pytest.approx(noisy, rel=1e-9)


@pytest.mark.parametrize("functional", [False, True])
def test_the_bias_of_a_sum_is_refused(tmp_path, functional):
    step = (lambda m, x, y: F.cross_entropy(m(x), y, reduction="sum")) if functional else None
    project, name = Project(nn.CrossEntropyLoss(reduction="sum"), step), "F.cross_entropy" if functional else None
    with pytest.raises(NoisyLabelError, match="sums over the batch"):
        run(tmp_path, [GradientBiasTracker(CLEAN, criterion=name)], project)


def test_a_changed_target_has_the_class_weight_of_the_given_label_and_a_clean_one_its_own(tmp_path):
    weights = np.array([1.0, 5.0, 2.0, 3.0])
    tracker, seen = GradientBiasTracker(CLEAN), Spy()
    switching = GradientSwitching(lam_random=50.0, seed=0)
    project = Project(nn.CrossEntropyLoss(torch.from_numpy(weights)))
    run(tmp_path, [tracker, switching, seen], project)

    def gradient(p, labels, own):
        scale = weights[own][:, None] * len(p) / weights[own].sum()
        return scale * (p - one_hot(labels))

    norms, changed = np.zeros(26), 0
    for index, z, target in [batch for epoch in range(3) for batch in seen.of(epoch)]:
        p, given, clean = softmax(z), GIVEN.numpy()[index], CLEAN.numpy()[index]
        norms[index] += np.linalg.norm(gradient(p, target, given) - gradient(p, clean, clean), axis=1)
        changed += (target != given).sum()
    assert tracker.history[2]["train/gradient_bias/summed"] == pytest.approx(norms.mean(), rel=1e-6)
    assert changed


# Attention


@pytest.mark.parametrize("foreign", [False, True], ids=["ours", "foreign"])
def test_attention_is_the_sigmoid_of_the_branch(tmp_path, foreign):
    loss, tracker, rows = NoiseAttentionLoss(8), AttentionTracker(CLEAN if foreign else None), {}

    class Branch(Callback):
        """What goes into the classifier, and the weights of the branch in the same pass."""

        def on_train_start(self, trainer, pl_module):
            head = pl_module.classifier if foreign else pl_module.network.head
            head.register_forward_pre_hook(lambda module, args: self.note(trainer, module, args[0]))

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.index = batch[2].numpy()

        def note(self, trainer, module, features):
            if module.training:
                weight, bias = (p.detach().double().numpy() for p in loss.branch.parameters())
                logits = features.detach().double().numpy() @ weight[0] + bias
                epoch = rows.setdefault(trainer.current_epoch, {})
                epoch |= dict(zip(self.index.tolist(), 1 / (1 + np.exp(-logits)), strict=True))

    if foreign:
        callbacks = [LossMemory(head="classifier"), tracker, Branch()]
        run(tmp_path, callbacks, Project(loss))
        given, clean = GIVEN.numpy(), CLEAN.numpy()
    else:
        data = SmallDataModule(seed=0)
        make_trainer(tmp_path, [tracker, Branch()], 3).fit(make_module(loss), datamodule=data)
        given, clean = data.noisy_targets.numpy(), data.clean_targets.numpy()
    for epoch in range(3):
        attention = np.array([rows[epoch][i] for i in range(len(given))])
        expected = {
            f"train/attention/{name}": attention[members].mean()
            for name, members in (("clean", given == clean), ("noisy", given != clean))
        }
        assert tracker.history[epoch] == pytest.approx(expected, rel=1e-5)
    histogram, heat_map, _ = tracker.figures.draw().axes
    assert sum(patch.get_height() for patch in histogram.patches) == len(given)
    image = heat_map.images[0].get_array().filled(np.nan)
    for pair in ((0, 0), (1, 2), (3, 1)):
        members = (clean == pair[0]) & (given == pair[1])
        expected = attention[members].mean() if members.any() else np.nan
        assert image[pair] == pytest.approx(expected, rel=1e-5, nan_ok=True)


# Corrected labels and pools


@pytest.mark.parametrize("changer", [SELC(momentum=0.2, warmup_epochs=1), GradientSwitching(seed=0, total_epochs=3)])
def test_corrected_labels_are_those_that_the_changer_has_come_to(tmp_path, changer):
    changer, tracker, seen = copy.deepcopy(changer), CorrectionTracker(CLEAN), Spy()
    run(tmp_path, [tracker, changer, seen], max_epochs=8)
    switching = isinstance(changer, GradientSwitching)
    store = changer.section.stores["pool" if switching else "target"].values
    corrected = store.argmax(dim=1)
    shares = {"given": (GIVEN == CLEAN), "corrected": (corrected == CLEAN)}
    expected = {f"train/correction/{name}": right.double().mean().item() for name, right in shares.items()}
    assert tracker.history[7] == pytest.approx(expected)
    assert expected["train/correction/given"] != expected["train/correction/corrected"]
    if not switching:
        assert tracker.history[0]["train/correction/corrected"] == expected["train/correction/given"]
    maps = [axes.images[0].get_array() for axes in tracker.figures.draw().axes[:2]]
    for image, labels in zip(maps, (GIVEN, corrected), strict=True):
        counts = np.zeros((4, 4))
        np.add.at(counts, (CLEAN.numpy(), labels.numpy()), 1)
        np.testing.assert_allclose(image, counts / counts.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("known", [True, False])
def test_pools_are_those_of_gradient_switching(tmp_path, known):
    switching, tracker, seen = GradientSwitching(seed=0, total_epochs=3), PoolTracker(CLEAN if known else None), Spy()
    pools = {}

    class Pools(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            pools[trainer.current_epoch] = switching.section.stores["pool"].values.double().numpy().copy()

    run(tmp_path, [tracker, switching, seen, Pools()])
    groups = {"clean": ~WRONG, "noisy": WRONG} if known else {"all": np.ones(26, dtype=bool)}
    for epoch in range(3):
        shares = pools[epoch] / pools[epoch].sum(axis=1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = -np.nansum(shares * np.log(shares), axis=1) / math.log(4)
        predicted = np.concatenate([logits.argmax(axis=1) for _, logits, _ in seen.of(epoch)])
        measures = {"entropy": entropy, "predicted": shares[np.arange(26), predicted]}
        expected = {
            f"train/pool/{name}/{group}": measure[members].mean()
            for name, measure in measures.items()
            for group, members in groups.items()
        }
        assert tracker.history[epoch] == pytest.approx(expected, rel=1e-5)


def test_pools_of_two_networks_grow_by_what_the_other_one_predicts(tmp_path):
    module = GSSDual(
        lambda: SmallCNN(width=4, num_features=8), LinearHead, nn.CrossEntropyLoss(), NUM_CLASSES, total_epochs=2
    )
    tracker, data, others = PoolTracker(criterion="losses.1"), SmallDataModule(seed=0, val_fraction=0.0), {}

    class Other(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            others.update(zip(batch[2].tolist(), pl_module.predictions[0].argmax(dim=1).tolist(), strict=True))

    writer = LabelWriter(str(tmp_path / "labels.npz"), criterion="losses.1")
    make_trainer(tmp_path, [tracker, writer, Other()]).fit(module, datamodule=data)
    pools = module.section.stores["pool 1"].values.double().numpy()
    shares = pools / pools.sum(axis=1, keepdims=True)
    wrong = (data.noisy_targets != data.clean_targets).numpy()
    predicted = shares[np.arange(48), [others[i] for i in range(48)]]
    metrics = tracker.history[1]
    assert metrics["train/pool/losses.1/predicted/noisy"] == pytest.approx(predicted[wrong].mean(), rel=1e-5)
    assert metrics["train/pool/losses.1/predicted/clean"] == pytest.approx(predicted[~wrong].mean(), rel=1e-5)
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npz")["labels"], pools.argmax(axis=1))


# Training is the same


def functional(module, x, target):
    return F.cross_entropy(module(x), target, label_smoothing=0.1)


UNTOUCHED = {
    "class weights": (
        lambda: nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0, 4.0])),
        lambda: [GradientSwitching(total_epochs=3)],
    ),
    "memory": (lambda: EarlyLearningRegularization(lam=3.0, momentum=0.7), list),
    "draws": (lambda: NegativeLearning(2, window=2), list),
    "counts": (lambda: DeepAbstainingClassifier(1, total_epochs=3), list),
    "penalty": (lambda: ActiveNegativeLoss(5.0, 5.0, 1e-3), list),
    "own labels": (lambda: PencilLoss(label_lr=40.0, warmup_epochs=0, fixed_from_epoch=9), list),
    "attention": (lambda: NoiseAttentionLoss(lam=0.5), lambda: [SELC(momentum=0.7), AttentionTracker()]),
    "gradient masks": (
        nn.CrossEntropyLoss,
        lambda: [MaskRefresh(ratio=0.5, score="gradient"), MixUp(0.9)],
    ),
}


@pytest.mark.parametrize("name", UNTOUCHED)
def test_training_is_the_same_bit_for_bit(tmp_path, name):
    """Weights, batch-norm statistics, optimizer, stores, masks, metrics and the random stream."""
    outcomes = []
    for trackers in ((), (*(kind(every_n_steps=2) for kind in GRADIENTS), CorrectionTracker())):
        loss, others = UNTOUCHED[name]
        module = make_module(loss())
        trainer = make_trainer(tmp_path, [*trackers, *others()], 3, accumulate_grad_batches=2)
        trainer.fit(module, datamodule=SmallDataModule(seed=0))
        assert all(len(tracker.history) == 3 for tracker in trackers)
        dump = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        sections = dump["callbacks"]["lightning_noisy"]["sections"]
        ours = {key: kept for key, kept in sections.items() if not key.startswith(tuple(t.state_key for t in trackers))}
        masks = {key: kept for key, kept in dump["callbacks"].items() if "MaskRefresh" in key}
        outcomes.append([dump["state_dict"], dump["optimizer_states"], ours, masks, torch.get_rng_state()])
    assert_same(*outcomes)


class Drawing(nn.CrossEntropyLoss):
    """Takes from the random stream."""

    def forward(self, logits, target):
        return super().forward(F.dropout(logits, 0.2), target)


@pytest.mark.parametrize("step", [None, functional], ids=["module", "function"])
def test_a_foreign_project_is_the_same_bit_for_bit(tmp_path, step):
    weights = []
    for trackers in ([], [GradientErrorTracker(CLEAN, layer="body"), GradientShareTracker(CLEAN, every_n_steps=1)]):
        project = Project(Drawing(), step)
        project.body[2].p = 0.3
        project.criterion = None if step else project.criterion
        run(tmp_path, trackers, project)
        weights.append([*project.state_dict().values(), torch.get_rng_state()])
    assert_same(*weights)


def test_a_loop_of_your_own_tells_them_the_same(tmp_path):
    def parts():
        gradients = GradientErrorTracker(CLEAN, layer="body.0"), GradientShareTracker(CLEAN), GradientBiasTracker(CLEAN)
        return [*gradients, CorrectionTracker(CLEAN), PoolTracker(CLEAN), GradientSwitching(seed=0, total_epochs=3)]

    lightning, own, module = parts(), parts(), Project()
    run(tmp_path, lightning)
    optimizers = module.configure_optimizers()
    loop = NoisyLoop(module, optimizers["optimizer"], own, loader().dataset, criterion=module.criterion, max_epochs=3)
    for epoch in range(3):
        for x, target, index in loader():
            with loop.batch(index, epoch):
                module.criterion(module(x), target).backward()
                optimizers["optimizer"].step()
            optimizers["optimizer"].zero_grad()
        optimizers["lr_scheduler"].step()
        loop.end_epoch()
    loop.finish()
    assert [tracker.history for tracker in own[:5]] == [tracker.history for tracker in lightning[:5]]
    assert all(len(tracker.history) == 3 for tracker in own[:5])


# Every n steps


@pytest.mark.parametrize("kind", TRACKERS)
def test_between_its_steps_nothing_happens(tmp_path, kind, monkeypatch):
    looked, checked = [], []
    tracker = kind(CLEAN, every_n_steps=3)
    observe = tracker.observe_target
    monkeypatch.setattr(tracker, "observe_target", lambda call: (looked.append(call.index.tolist()), observe(call)))
    first = TargetPipeline._first
    changers = [GradientSwitching(total_epochs=2)] if kind is PoolTracker else []
    if kind is GradientErrorTracker:
        tracker.layer = "body.0"

    def note(pipeline, *args):
        check = pipeline._check
        pipeline._check = lambda *args: (checked.append(1), check(*args))[1]
        try:
            return first(pipeline, *args)
        finally:
            pipeline._check = check

    monkeypatch.setattr(TargetPipeline, "_first", note)
    criterion = NoiseAttentionLoss(8, attention="confidence") if kind is AttentionTracker else None
    run(tmp_path, [tracker, *changers], Project(criterion), max_epochs=2)
    assert looked == 2 * [list(range(8)), [24, 25]]
    assert len(checked) == (8 if changers else 4)


# Figures, copies, dry runs


@pytest.mark.parametrize("kind", TRACKERS)
def test_figure_copy_and_dry_run(tmp_path, kind):
    loss = NoiseAttentionLoss() if kind is AttentionTracker else nn.CrossEntropyLoss()
    tracker, others = kind(every_n_steps=1), [GradientSwitching(total_epochs=2)] if kind is PoolTracker else []
    logger = TensorBoardLogger(tmp_path, name="run")
    make_trainer(tmp_path, [tracker, *others], logger=logger).fit(make_module(loss), datamodule=SmallDataModule(seed=0))
    picture = tmp_path / "run" / "version_0" / "figures" / f"{kind.figure_name}.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    again = copy.deepcopy(tracker)
    again.figures.draw = lambda: pytest.fail("drawn for nobody")
    make_trainer(tmp_path, [again, *copy.deepcopy(others)], fast_dev_run=True).fit(
        make_module(loss), datamodule=SmallDataModule(seed=0)
    )
    assert len(tracker.history) == 2
    assert again.history.keys() == {0}
    assert all(math.isfinite(value) for value in again.history[0].values())


# What is refused


@pytest.mark.parametrize("kind", [kind for kind in TRACKERS if kind is not PoolTracker])
def test_without_clean_labels_it_is_refused(tmp_path, kind):
    tracker = kind(layer="body.0") if kind is GradientErrorTracker else kind()
    criterion = NoiseAttentionLoss(8, attention="confidence") if kind is AttentionTracker else None
    with pytest.raises(
        NoisyLabelError, match=rf"{kind.__name__} compares with clean labels.*`clean_targets`"
    ) as caught:
        run(tmp_path, [tracker], Project(criterion))
    assert "\n" not in str(caught.value)


def without_gradient(module, x, target):
    with torch.no_grad():
        module.criterion(module(x), target)
    return module.criterion(module(x), target)


class Hoarder(nn.CrossEntropyLoss):
    """Keeps what it has been called with."""

    kept = None

    def forward(self, logits, target):
        self.kept = logits * 1
        return super().forward(self.kept, target)


REFUSED = {
    "no layer": (GradientErrorTracker, {}, None, None, r"name it with `layer`, one of body\.0, classifier"),
    "another layer": (
        GradientErrorTracker,
        {"layer": "tail"},
        None,
        None,
        r"no layer `tail`: mend the argument `layer`",
    ),
    "not reached": (
        GradientErrorTracker,
        {"layer": "classifier"},
        None,
        lambda m, x, y: m.criterion(m.body(x)[:, :4], y),
        r"No gradient of `criterion` reaches the layer",
    ),
    "no gradient": (GradientShareTracker, {"every_n_steps": 1}, None, without_gradient, r"the logits .* have none"),
    "more classes": (
        GradientBiasTracker,
        {"clean_targets": CLEAN + 1},
        None,
        None,
        r"the clean labels to lie in \[0, 4",
    ),
    "no copies": (GradientBiasTracker, {}, Hoarder(), None, r"`criterion` cannot be copied \(RuntimeError"),
    "no attention": (AttentionTracker, {}, None, None, r"CrossEntropyLoss has no `sample_attention`"),
    "no pools": (PoolTracker, {}, None, None, r"pools of GradientSwitching, but there is none at `criterion`"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path, name):
    kind, options, criterion, step, message = REFUSED[name]
    with pytest.raises(NoisyLabelError, match=message) as caught:
        run(tmp_path, [kind(**{"clean_targets": CLEAN, **options})], Project(criterion, step))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [*TRACKERS, ConfidenceTracker])
def test_a_step_that_is_none_is_refused(kind):
    with pytest.raises(NoisyLabelError, match=r"`every_n_steps` to be an int of at least 1, but got 0"):
        kind(every_n_steps=0)
