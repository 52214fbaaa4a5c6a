import copy

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.cli import ReduceLROnPlateau
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_noisy import NoisyLabelError, NoisyLabelModule
from lightning_noisy.data import IndexedDataset
from lightning_noisy.heads import CosineHead, LinearHead
from lightning_noisy.losses import (
    EarlyLearningRegularization,
    GeneralizedCrossEntropy,
    GeneralizedJensenShannonLoss,
    NoiseAttentionLoss,
)
from lightning_noisy.losses.base import NoisyLabelLoss
from lightning_noisy.networks import SmallCNN
from lightning_noisy.state import RunDriver
from tests.foreign import make_trainer
from tests.small import NUM_CLASSES, MemoryLogger, SmallDataModule, make_module


class Flat(nn.Module):
    """Features are the inputs."""

    def __init__(self, num_features):
        super().__init__()
        self.num_features = num_features
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return x.flatten(1) * self.scale


def loader(num_samples=20, num_features=3, num_classes=4, batch_size=8, indexed=True):
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(num_samples, num_features, generator=generator)
    labels = torch.randint(num_classes, (num_samples,), generator=generator)
    dataset = TensorDataset(data, labels)
    return DataLoader(IndexedDataset(dataset) if indexed else dataset, batch_size)


class Recording(NoisyLabelLoss):
    requires = ("index", "features", "epoch", "total_epochs", "parameters", "views")

    def __init__(self):
        super().__init__()
        self.seen = []

    def losses(self, logits, target, **context):
        context["parameters"] = list(context["parameters"])
        self.seen.append((logits, target, context))
        return nn.functional.cross_entropy(logits, target, reduction="none")


class Steps(MemoryLogger):
    """Keeps what is logged by step."""

    def log_metrics(self, metrics, step=None):
        self.seen.setdefault(step, {}).update(metrics)


def test_the_loss_of_a_step_is_logged_where_loggers_and_the_bar_look(tmp_path):
    expected, shown = {}, []

    class Look(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            expected[trainer.global_step - 1] = float(outputs["loss"])
            shown.append(trainer.progress_bar_metrics.get("train/loss_step"))

    logger = Steps()
    module = NoisyLabelModule(Flat(3), LinearHead, nn.CrossEntropyLoss(), 4)
    make_trainer(tmp_path, [Look()], logger=logger, log_every_n_steps=2).fit(module, loader())
    logged = {step: seen["train/loss_step"] for step, seen in logger.seen.items() if "train/loss_step" in seen}
    assert logged == pytest.approx({step: expected[step] for step in (1, 3, 5)})
    last_shown = [expected[step] for step in (0, 1, 1, 3, 3, 5)]  # the first of an epoch, and what is logged
    assert shown == pytest.approx(last_shown)


def test_a_loss_gets_exactly_what_it_requires(tmp_path):
    loss = Recording()
    module = NoisyLabelModule(Flat(3), LinearHead, loss, 4)
    make_trainer(tmp_path, max_epochs=2).fit(module, loader())
    _, target, context = loss.seen[4]
    _, labels = loader().dataset.dataset.tensors
    assert set(context) == set(loss.requires)
    assert context["index"].tolist() == list(range(8, 16))
    assert context["epoch"] == 1
    assert context["total_epochs"] == 2
    assert torch.equal(target, labels[8:16])
    assert len(context["parameters"]) == len(list(module.parameters()))
    assert context["features"].shape == (8, 3)
    assert context["features"].requires_grad
    assert len(context["views"]) == 1
    assert torch.equal(context["views"][0], loss.seen[4][0])


def test_a_plain_criterion_gets_logits_and_target_alone(tmp_path):
    module = NoisyLabelModule(Flat(3), LinearHead, nn.CrossEntropyLoss(label_smoothing=0.1), 4)
    make_trainer(tmp_path).fit(module, loader())


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_the_loss_is_computed_in_float32(tmp_path, precision):
    loss = Recording()
    data = loader()
    if precision == "bf16-true":
        data.dataset.dataset.tensors = (data.dataset.dataset.tensors[0].bfloat16(), data.dataset.dataset.tensors[1])
    make_trainer(tmp_path, max_epochs=1, precision=precision).fit(NoisyLabelModule(Flat(3), LinearHead, loss, 4), data)
    logits, _, context = loss.seen[0]
    assert logits.dtype == context["features"].dtype == context["views"][0].dtype == torch.float32


class Pair(torch.utils.data.Dataset):
    """Two views of each sample: itself, and its negative doubled."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, i):
        sample, *rest = self.dataset[i]
        return [sample, -2 * sample], *rest


class Normalizing(Flat):
    """Features are the inputs after batch normalization."""

    def __init__(self, num_features):
        super().__init__(num_features)
        self.norm = nn.BatchNorm1d(num_features)

    def forward(self, x):
        return self.norm(super().forward(x))


def pair_loader(**options):
    data = loader(**options)
    return DataLoader(Pair(data.dataset), data.batch_size)


def test_views_pass_through_the_network_as_one_batch(tmp_path):
    loss = Recording()
    module = NoisyLabelModule(Normalizing(3), LinearHead, loss, 4)
    before = copy.deepcopy(module)
    make_trainer(tmp_path, max_epochs=1).fit(module, pair_loader())
    logits, target, context = loss.seen[0]
    samples, labels = loader().dataset.dataset.tensors
    both = torch.cat([samples[:8], -2 * samples[:8]])
    features = (both - both.mean(0)) / (both.var(0, correction=0) + 1e-5).sqrt()
    expected = before.network.head(features)
    torch.testing.assert_close(torch.cat(context["views"]), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(context["views"][0], logits)
    torch.testing.assert_close(context["features"], features[:8], rtol=1e-5, atol=1e-5)
    assert torch.equal(target, labels[:8])
    assert context["index"].tolist() == list(range(8))
    accuracy = sum((seen.argmax(1) == target).sum().item() for seen, target, _ in loss.seen) / 20
    assert module.history[0]["train/acc"] == pytest.approx(accuracy)


def test_a_loss_of_views_trains_and_counts_them(tmp_path):
    module = NoisyLabelModule(Flat(3), LinearHead, GeneralizedJensenShannonLoss(0.5), 4)
    before = module.network.head.weight.detach().clone()
    make_trainer(tmp_path, max_epochs=1).fit(module, pair_loader())
    assert not torch.equal(module.network.head.weight, before)
    with pytest.raises(NoisyLabelError, match="expects the logits of 2 views, but got 1: give batches whose images"):
        make_trainer(tmp_path).fit(module, loader())


def test_a_loss_with_parameters_is_bound_and_trained(tmp_path):
    loss = NoiseAttentionLoss(lam=0.5)
    module = NoisyLabelModule(Flat(3), LinearHead, loss, 4)
    before = loss.branch.weight.detach().clone()
    assert before.shape == (1, 3)
    make_trainer(tmp_path, max_epochs=1).fit(module, loader())
    assert not torch.equal(loss.branch.weight, before)


def test_a_loss_with_memory_gets_its_table(tmp_path):
    loss = EarlyLearningRegularization(lam=1.0, momentum=0.5)
    module = NoisyLabelModule(Flat(3), LinearHead, loss, 4)
    make_trainer(tmp_path, max_epochs=1).fit(module, loader(), loader(indexed=False))
    rows = loss.recall("prediction").values
    assert rows.shape == (20, 4)
    torch.testing.assert_close(rows.sum(dim=1), torch.full((20,), 0.5))
    assert not any("prediction" in name for name in module.state_dict())


def test_a_loss_with_memory_is_not_called_in_validation(tmp_path):
    class Once(EarlyLearningRegularization):
        def forward(self, logits, target, *, index):
            assert self.training
            return super().forward(logits, target, index=index)

    module = NoisyLabelModule(Flat(3), LinearHead, Once(), 4)
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(module, loader(), loader(indexed=False))
    logits = module(loader().dataset.dataset.tensors[0])
    expected = nn.functional.cross_entropy(logits, loader().dataset.dataset.tensors[1])
    assert trainer.callback_metrics["val/loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_figures_equal_a_second_computation(tmp_path):
    logger, means = MemoryLogger(), []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            means.append((outputs["loss"].item(), len(batch[1])))

    module = NoisyLabelModule(Flat(3), LinearHead, nn.CrossEntropyLoss(), 4)
    test = loader(37, indexed=False)
    trainer = make_trainer(tmp_path, [Watch()], max_epochs=1, logger=logger)
    trainer.fit(module, loader())
    results = trainer.test(module, test)[0]
    weighted = sum(mean * count for mean, count in means) / 20
    assert logger.seen["train/loss"][0] == pytest.approx(weighted, rel=1e-6)
    data, labels = test.dataset.tensors
    p = module.predict_step((data, labels), 0).detach().double().numpy()
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == labels.numpy()
    assert results["test/acc"] == pytest.approx(correct.mean())
    assert results["test/loss"] == pytest.approx(-np.log(p[np.arange(37), labels]).mean(), rel=1e-5)
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [
        abs(correct[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in set(bins.tolist())
    ]
    assert results["test/ece"] == pytest.approx(sum(gaps), abs=1e-6)


@pytest.mark.parametrize(("num_classes", "expected"), [(10, False), (11, True)])
def test_top_five_from_eleven_classes_on(tmp_path, num_classes, expected):
    module = NoisyLabelModule(Flat(3), LinearHead, nn.CrossEntropyLoss(), num_classes)
    data = loader(30, num_classes=num_classes, indexed=False)
    results = make_trainer(tmp_path).test(module, data)[0]
    assert ("test/acc_top5" in results) is expected
    if expected:
        values, labels = data.dataset.tensors
        best = module(values).topk(5).indices
        assert results["test/acc_top5"] == pytest.approx((best == labels[:, None]).any(1).float().mean().item())


def test_predictions_are_probabilities(tmp_path):
    module = NoisyLabelModule(Flat(3), LinearHead, nn.CrossEntropyLoss(), 4)
    batches = make_trainer(tmp_path).predict(module, loader(indexed=False))
    p = torch.cat(batches)
    assert p.shape == (20, 4)
    torch.testing.assert_close(p.sum(dim=1), torch.ones(20))


def test_checkpoint_loads_with_modules_given_again(tmp_path):
    module = make_module(GeneralizedCrossEntropy())
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(module, datamodule=SmallDataModule(seed=0))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["hyper_parameters"] == {"num_classes": NUM_CLASSES}
    again = NoisyLabelModule.load_from_checkpoint(
        tmp_path / "last.ckpt",
        backbone=SmallCNN(width=4, num_features=8, dropout=0.3),
        head=LinearHead,
        loss=GeneralizedCrossEntropy(),
        weights_only=True,
    )
    images = torch.randn(5, 1, 8, 8)
    torch.testing.assert_close(again.eval()(images), module.eval()(images))


def test_plateau_scheduler_names_its_monitor():
    module = NoisyLabelModule(
        Flat(3),
        LinearHead,
        nn.CrossEntropyLoss(),
        4,
        lr_scheduler=lambda optimizer: ReduceLROnPlateau(optimizer, monitor="val/loss"),
    )
    assert module.configure_optimizers()[1][0]["monitor"] == "val/loss"


def test_deepcopy_trains(tmp_path):
    module = copy.deepcopy(make_module(EarlyLearningRegularization()))
    make_trainer(tmp_path, max_epochs=1).fit(module, datamodule=SmallDataModule(seed=0))
    make_trainer(tmp_path, max_epochs=1).fit(copy.deepcopy(module), datamodule=SmallDataModule(seed=0))


def test_last_batch_of_one_sample(tmp_path):
    make_trainer(tmp_path, max_epochs=1).fit(
        make_module(nn.CrossEntropyLoss()), datamodule=SmallDataModule(num_samples=17, val_fraction=0, seed=0)
    )


def test_both_validation_splits_are_named(tmp_path):
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(make_module(nn.CrossEntropyLoss()), datamodule=SmallDataModule(seed=0))
    assert {"val/acc", "test/acc", "val/ece", "test/loss"} <= set(trainer.callback_metrics)


class TestRefusals:
    @pytest.mark.parametrize("num_classes", [1, 0, -3])
    def test_too_few_classes(self, num_classes):
        with pytest.raises(
            NoisyLabelError, match=f"`num_classes` to be an integer of at least 2, but got {num_classes}"
        ):
            NoisyLabelModule(Flat(3), LinearHead, nn.CrossEntropyLoss(), num_classes)

    def test_backbone_without_width(self):
        with pytest.raises(NoisyLabelError, match="Identity has no `num_features`"):
            NoisyLabelModule(nn.Identity(), LinearHead, nn.CrossEntropyLoss(), 4)

    @pytest.mark.parametrize("data", [torch.randn(2, 5), torch.randn(2, 5, 1)])
    def test_backbone_of_another_width(self, data):
        module = NoisyLabelModule(Flat(3), LinearHead, nn.CrossEntropyLoss(), 4)
        module.network.backbone.forward = lambda x: x
        with pytest.raises(NoisyLabelError, match=r"Flat.num_features is 3, but its output has shape \(2, 5"):
            module(data)

    @pytest.mark.parametrize("wrong", [-1, 4])
    def test_labels(self, tmp_path, wrong):
        data = loader()
        data.dataset.dataset.tensors[1][13] = wrong
        module = NoisyLabelModule(Flat(3), LinearHead, nn.CrossEntropyLoss(), 4)
        with pytest.raises(NoisyLabelError, match=f"sample 13 has label {wrong}"):
            make_trainer(tmp_path).fit(module, data)

    def test_a_loss_of_several_values(self, tmp_path):
        module = NoisyLabelModule(Flat(3), LinearHead, nn.CrossEntropyLoss(reduction="none"), 4)
        with pytest.raises(NoisyLabelError, match=r"loss to be a scalar, but got shape \(8,\): .* `reduction='mean'`"):
            make_trainer(tmp_path).fit(module, loader())

    def test_data_module_of_other_classes(self, tmp_path):
        module = NoisyLabelModule(SmallCNN(width=4, num_features=8), LinearHead, nn.CrossEntropyLoss(), NUM_CLASSES + 1)
        with pytest.raises(NoisyLabelError, match="4 classes, but the module was made with num_classes=5"):
            make_trainer(tmp_path).fit(module, datamodule=SmallDataModule(seed=0))
        data = SmallDataModule(seed=0)
        data.largest_label = "the label 3 at position 7 of `y`"
        with pytest.raises(NoisyLabelError, match=r"4 classes \(the label 3 at position 7 of `y`\), but the module"):
            make_trainer(tmp_path).fit(module, datamodule=data)

    def test_batch_without_index(self, tmp_path):
        module = NoisyLabelModule(Flat(3), LinearHead, nn.CrossEntropyLoss(), 4)
        with pytest.raises(NoisyLabelError, match="IndexedDataset"):
            make_trainer(tmp_path).fit(module, loader(indexed=False))

    def test_non_finite_loss_stops_before_the_weights_are_touched(self, tmp_path):
        data = loader()
        data.dataset.dataset.tensors[0][10] = float("inf")
        module = NoisyLabelModule(Flat(3), LinearHead, nn.CrossEntropyLoss(), 4)
        message = r"training loss is not finite in epoch 0, batch 1, samples \[8, 9, 10, 11, 12, 13, 14, 15\]"
        with pytest.raises(NoisyLabelError, match=message):
            make_trainer(tmp_path).fit(module, data)
        assert all(parameter.isfinite().all() for parameter in module.parameters())

    def test_checkpoint_of_another_data_set(self, tmp_path):
        first = make_trainer(tmp_path, max_epochs=1)
        first.fit(make_module(nn.CrossEntropyLoss()), datamodule=SmallDataModule(seed=0))
        first.save_checkpoint(tmp_path / "last.ckpt")
        trainer = make_trainer(tmp_path, max_epochs=2)
        with pytest.raises(NoisyLabelError, match="other given labels"):
            trainer.fit(
                make_module(nn.CrossEntropyLoss()), datamodule=SmallDataModule(seed=1), ckpt_path=tmp_path / "last.ckpt"
            )
        make_trainer(tmp_path).test(
            make_module(nn.CrossEntropyLoss()), datamodule=SmallDataModule(seed=1), ckpt_path=tmp_path / "last.ckpt"
        )

    def test_loss_that_requires_what_nobody_offers(self, tmp_path):
        class Taught(Recording):
            requires = ("teacher",)

        with pytest.raises(NoisyLabelError, match=r"Taught requires \{'teacher'\}"):
            make_trainer(tmp_path).fit(NoisyLabelModule(Flat(3), LinearHead, Taught(), 4), loader())


def test_the_loss_runs_outside_autocast(tmp_path):
    class Watch(NoisyLabelLoss):
        def losses(self, logits, target):
            assert not torch.is_autocast_enabled("cpu")
            return nn.functional.cross_entropy(logits, target, reduction="none")

    module = NoisyLabelModule(Flat(3), LinearHead, Watch(), 4)
    make_trainer(tmp_path, max_epochs=1, precision="bf16-mixed").fit(module, loader())


def test_sums_of_an_interrupted_epoch_do_not_enter_a_fresh_fit(tmp_path):
    class Stop(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 1:
                raise RuntimeError("stop")

    module = NoisyLabelModule(Flat(3), LinearHead, nn.CrossEntropyLoss(), 4)
    with pytest.raises(RuntimeError, match="stop"):
        make_trainer(tmp_path, [Stop()]).fit(module, loader())
    logger = MemoryLogger()
    torch.manual_seed(0)
    make_trainer(tmp_path, max_epochs=1, logger=logger).fit(module, loader())
    accuracy = logger.seen["train/acc"][0] * 20
    assert accuracy == pytest.approx(round(accuracy))


def test_the_run_is_attached_once_and_comes_first(tmp_path):
    module, trainer = make_module(nn.CrossEntropyLoss()), make_trainer(tmp_path, max_epochs=1)
    trainer.fit(module, datamodule=SmallDataModule(seed=0))
    trainer.test(module, datamodule=SmallDataModule(seed=0))
    assert [isinstance(callback, RunDriver) for callback in trainer.callbacks] == [True] + [False] * (
        len(trainer.callbacks) - 1
    )


def test_a_step_outside_a_trainer_says_so():
    module = make_module(nn.CrossEntropyLoss())
    with pytest.raises(NoisyLabelError, match="NoisyLabelModule is in no run yet: steps are for a Trainer"):
        module.training_step([torch.zeros(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64), torch.arange(4)], 0)


def test_a_fit_after_a_test_goes_on_measuring(tmp_path):
    module = make_module(nn.CrossEntropyLoss())
    make_trainer(tmp_path, max_epochs=1).fit(module, datamodule=SmallDataModule(seed=0))
    make_trainer(tmp_path).test(module, datamodule=SmallDataModule(seed=0), verbose=False)
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(module, datamodule=SmallDataModule(seed=0))
    (alone,) = make_trainer(tmp_path).test(module, datamodule=SmallDataModule(seed=0), verbose=False)
    assert trainer.callback_metrics["test/acc"] == alone["test/acc"]


@pytest.mark.parametrize(
    ("head", "num_classes", "message"),
    [
        (LinearHead, 5, r"`network.head.weight` has shape \(4, 3\), in this run \(5, 3\)"),
        (CosineHead, 4, "`network.head.bias` is no part of this model"),
    ],
    ids=["classes", "head"],
)
def test_weights_of_another_model_are_refused(tmp_path, head, num_classes, message):
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(NoisyLabelModule(Flat(3), LinearHead, nn.CrossEntropyLoss(), 4), loader())
    trainer.save_checkpoint(tmp_path / "four.ckpt")
    module = NoisyLabelModule(Flat(3), head, nn.CrossEntropyLoss(), num_classes)
    with pytest.raises(NoisyLabelError, match=message) as error:
        make_trainer(tmp_path, max_epochs=2).fit(module, loader(), ckpt_path=tmp_path / "four.ckpt")
    assert "\n" not in str(error.value)
