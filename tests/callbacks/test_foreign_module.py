"""Each callback in a LightningModule that imports nothing of ours."""

import copy
import warnings
from itertools import pairwise

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from lightning_noisy import NoisyLabelError
from lightning_noisy.callbacks import (
    CDR,
    SELC,
    ConfidenceTracker,
    DALSchedule,
    GradientSwitching,
    JointOptimizationLabels,
    LabelWriter,
    LossMemory,
    MaskRefresh,
    MaskTracker,
    MemorizationTracker,
    ParameterSchedule,
    StepSeed,
)
from lightning_noisy.data import IndexedDataset
from lightning_noisy.functional.masks import node_mask
from lightning_noisy.heads import LinearHead
from lightning_noisy.losses import DynamicsAwareLoss, NoiseAttentionLoss, NoisyLabelLoss
from lightning_noisy.state import RunDriver
from tests.foreign import (
    DictDataset,
    DictForeignModule,
    ForeignModule,
    make_loader,
    make_tensors,
    make_trainer,
    make_validation_loader,
)
from tests.small import assert_same

warnings.filterwarnings("ignore", ".*does not have many workers.*")


class CriterionSpy(Callback):
    """Records what the criterion really gets, after every pre-hook."""

    def __init__(self):
        self.calls = []
        self.keys = set()

    def on_train_start(self, trainer, pl_module):
        original = pl_module.criterion.forward

        def forward(input, target):
            self.calls.append((input.detach().clone(), target.clone()))
            return original(input, target)

        pl_module.criterion.forward = forward
        self.restore = lambda: pl_module.criterion.__dict__.pop("forward")

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.keys |= set(pl_module.state_dict())

    def on_train_end(self, trainer, pl_module):
        self.restore()


def tuple_loader(batch_size=8, num_samples=24):
    x, noisy, _ = make_tensors(num_samples)
    return make_loader(IndexedDataset(TensorDataset(x, noisy)), batch_size)


def dict_loader():
    x, noisy, _ = make_tensors()
    return make_loader(IndexedDataset(DictDataset(x, noisy)))


CASES = {
    "tuple": (ForeignModule, tuple_loader),
    "dict": (DictForeignModule, dict_loader),
}

CALLBACKS = {
    "mask": lambda: MaskRefresh("classifier", ratio=0.5),
    "selc": lambda: SELC(momentum=0.7),
    "pool": lambda: GradientSwitching(total_epochs=2),
    "joint": lambda: JointOptimizationLabels(warmup_epochs=1),
    "labels": LabelWriter,
    "confidence": lambda: ConfidenceTracker(make_tensors()[2]),
    "memorization": lambda: MemorizationTracker(make_tensors()[2]),
    "mask-tracker": lambda: MaskTracker("classifier"),
    "cdr": lambda: CDR(0.4),
    "seed": lambda: StepSeed(3),
    "schedule": lambda: ParameterSchedule("body.2.p", 0.0, 0.2, total_epochs=2),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", CALLBACKS)
def test_leaves_nothing_behind(tmp_path, case, name):
    module_class, loader = CASES[case]
    module, callback, spy = module_class(), CALLBACKS[name](), CriterionSpy()
    keys = set(module.state_dict())
    trainer = make_trainer(tmp_path, [callback, spy])
    trainer.fit(module, loader())
    assert set(module.state_dict()) == spy.keys == keys
    assert type(module.classifier) is nn.Linear
    assert "edge_mask" not in vars(module.classifier)
    assert not module.criterion._forward_pre_hooks
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    module_class().load_state_dict(checkpoint["state_dict"], strict=True)


@pytest.mark.parametrize("name", CALLBACKS)
def test_restored_after_an_exception(tmp_path, name):
    class Failing(ForeignModule):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            if batch_idx == 1:
                raise RuntimeError("boom")
            return loss

    module = Failing()
    with pytest.raises(RuntimeError, match="boom"):
        make_trainer(tmp_path, [CALLBACKS[name]()]).fit(module, tuple_loader())
    assert type(module.classifier) is nn.Linear
    assert "edge_mask" not in vars(module.classifier)
    assert not module.criterion._forward_pre_hooks


@pytest.mark.parametrize("name", CALLBACKS)
def test_deepcopy_before_during_and_after_training(tmp_path, name):
    copies = []

    class Copier(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            copies.append(copy.deepcopy(callback))

    callback = copy.deepcopy(CALLBACKS[name]())
    make_trainer(tmp_path, [callback, Copier()]).fit(ForeignModule(), tuple_loader())
    copies.append(copy.deepcopy(callback))
    for twin in (copies[0], copies[-1]):
        make_trainer(tmp_path, [twin]).fit(ForeignModule(), tuple_loader())
    twin = copy.deepcopy(copies[-1])
    twin.load_state_dict(copies[-1].state_dict())
    assert repr(twin.state_dict()) == repr(copies[-1].state_dict())


class GradientSpy(Callback):
    def __init__(self):
        self.records = []

    def on_after_backward(self, trainer, pl_module):
        layer = pl_module.classifier
        self.records.append((layer.weight.detach().clone(), layer.weight.grad.clone(), layer.bias.grad.clone()))


@pytest.mark.parametrize("drop", ["unimportant", "important"])
def test_mask_zeroes_the_gradient_of_exactly_the_dropped_edges(tmp_path, drop):
    spy = GradientSpy()
    make_trainer(tmp_path, [MaskRefresh("classifier", ratio=0.5, drop=drop), spy]).fit(ForeignModule(), tuple_loader())
    alive = torch.zeros(8, dtype=torch.bool)
    for weight, gradient, bias_gradient in spy.records:
        importance = weight.abs() if drop == "unimportant" else -weight.abs()
        dropped = torch.zeros_like(weight, dtype=torch.bool)
        dropped.scatter_(0, importance.argsort(dim=0)[:2], True)
        assert (gradient[dropped] == 0).all()
        assert (gradient[~dropped] != 0).any()
        assert (bias_gradient != 0).all()
        seen = (gradient != 0).any(dim=0)
        assert ((gradient != 0) == ~dropped)[:, seen].all()
        alive |= seen
    assert alive.sum() >= 4


class ForwardSpy(Callback):
    """The classifier's output in training and in validation."""

    def __init__(self):
        self.outputs = {"train": [], "val": []}

    def on_fit_start(self, trainer, pl_module):
        def record(module, args, output):
            stage = "train" if pl_module.training else "val"
            self.outputs[stage].append((args[0].detach(), module.weight.detach().clone(), module.bias.clone(), output))

        self.handle = pl_module.classifier.register_forward_hook(record)

    def on_fit_end(self, trainer, pl_module):
        self.handle.remove()


@pytest.mark.parametrize("apply_in", ["train", "always"])
def test_mask_applies_where_it_should(tmp_path, apply_in):
    spy, callback = ForwardSpy(), MaskRefresh("classifier", ratio=0.5, apply_in=apply_in)
    make_trainer(tmp_path, [callback, spy], max_epochs=1).fit(ForeignModule(), tuple_loader(), make_validation_loader())
    for x, weight, bias, output in spy.outputs["train"]:
        mask = node_mask(weight.abs(), 0.5)
        torch.testing.assert_close(output, x @ (weight * mask).t() + bias)
        assert not torch.allclose(output, x @ weight.t() + bias)
    mask = callback.mask if apply_in == "always" else torch.ones(4, 8)
    assert spy.outputs["val"]
    for x, weight, bias, output in spy.outputs["val"]:
        torch.testing.assert_close(output, x @ (weight * mask).t() + bias)


def test_mask_always_is_applied_in_test_from_the_checkpoint(tmp_path):
    callback = MaskRefresh("classifier", ratio=0.5, apply_in="always")
    trainer = make_trainer(tmp_path, [callback])
    trainer.fit(ForeignModule(), tuple_loader())
    trainer.save_checkpoint(tmp_path / "last.ckpt")

    class Testing(ForeignModule):
        def test_step(self, batch, batch_idx):
            self.output, self.x = self(batch[0]), batch[0]

    module, fresh = Testing(), MaskRefresh("classifier", ratio=0.5, apply_in="always")
    make_trainer(tmp_path, [fresh]).test(module, make_validation_loader(), ckpt_path=tmp_path / "last.ckpt")
    weight = module.classifier.weight
    with torch.inference_mode():
        expected = module.body(module.x) @ (weight * callback.mask).t() + module.classifier.bias
    torch.testing.assert_close(module.output, expected)
    assert type(module.classifier) is nn.Linear


def test_mask_is_fixed_within_an_optimizer_step_and_renewed_after(tmp_path):
    class Roll(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            with torch.no_grad():  # would change the mask of a callback that looks again within a step
                pl_module.classifier.weight.copy_(pl_module.classifier.weight.roll(1, dims=0))

    seen = []

    class Record(Callback):
        def on_after_backward(self, trainer, pl_module):
            seen.append((trainer.global_step, pl_module.classifier.edge_mask.clone()))

    callbacks = [MaskRefresh("classifier", ratio=0.5), Roll(), Record()]
    make_trainer(tmp_path, callbacks, max_epochs=1, accumulate_grad_batches=2).fit(ForeignModule(), tuple_loader(4))
    by_step = {}
    for step, mask in seen:
        by_step.setdefault(step, []).append(mask)
    assert [len(group) for group in by_step.values()] == [2, 2, 2]
    for group in by_step.values():
        assert torch.equal(group[0], group[1])
    assert not torch.equal(by_step[0][0], by_step[1][0])


@pytest.mark.parametrize(("options", "renewed"), [({"every_n_steps": 2}, [0, 2, 4]), ({"every_n_epochs": 1}, [0, 3])])
def test_mask_is_renewed_when_it_is_due(tmp_path, options, renewed):
    masks = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer, pl_module, *_):
            masks.append(
                (trainer.global_step, pl_module.classifier.edge_mask, pl_module.classifier.weight.detach().clone())
            )

    make_trainer(tmp_path, [MaskRefresh("classifier", ratio=0.5, **options), Watch()]).fit(
        ForeignModule(), tuple_loader()
    )
    changed = [masks[0][0]] + [b[0] for a, b in pairwise(masks) if a[1] is not b[1]]
    assert changed == renewed
    for step, mask, weight in masks:
        if step in renewed:
            assert torch.equal(mask, node_mask(weight.abs(), 0.5))


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed", "64-true"])
def test_mask_and_targets_in_every_precision(tmp_path, precision):
    dtypes = []

    class Watch(Callback):
        def on_after_backward(self, trainer, pl_module):
            dtypes.append((pl_module.classifier.edge_mask.dtype, pl_module.classifier.weight.dtype))

    x, noisy, _ = make_tensors()
    x = {"bf16-true": x.bfloat16(), "64-true": x.double()}.get(precision, x)
    callbacks = [MaskRefresh("classifier", ratio=0.5), SELC(), ConfidenceTracker(), Watch()]
    trainer = make_trainer(tmp_path, callbacks, precision=precision)
    trainer.fit(ForeignModule(), make_loader(IndexedDataset(TensorDataset(x, noisy))))
    assert all(mask == weight for mask, weight in dtypes)
    assert callbacks[1].section.stores["target"].values.dtype == torch.float32


def test_a_layer_under_two_names_is_masked_under_both_and_restored(tmp_path):
    class Tied(ForeignModule):
        def __init__(self):
            super().__init__()
            self.alias = self.classifier

        def forward(self, x):
            assert not self.training or self.alias.edge_mask is not None
            return self.alias(self.body(x))

    module = Tied()
    make_trainer(tmp_path, [MaskRefresh("classifier")]).fit(module, tuple_loader())
    assert module.alias is module.classifier
    assert type(module.alias) is nn.Linear


def test_mask_reaches_a_head_built_in_configure_model(tmp_path):
    class Late(ForeignModule):
        def __init__(self):
            super().__init__()
            del self.classifier

        def configure_model(self):
            if not hasattr(self, "classifier"):
                self.classifier = nn.Linear(8, 4)

    spy = GradientSpy()
    make_trainer(tmp_path, [MaskRefresh("classifier", ratio=0.5), spy]).fit(Late(), tuple_loader())
    assert ((spy.records[0][1] == 0).sum(dim=0) >= 2).all()


@pytest.mark.parametrize("case", CASES)
def test_selc_rows_are_the_target(tmp_path, case):
    module_class, loader = CASES[case]
    spy, callback = CriterionSpy(), SELC(momentum=0.7, warmup_epochs=1)
    make_trainer(tmp_path, [callback, spy], max_epochs=3).fit(module_class(), loader())
    given = make_tensors()[1]
    table = F.one_hot(given, 4).double()
    for step, (logits, target) in enumerate(spy.calls):
        rows = torch.arange(24).view(3, 8)[step % 3]
        if step < 3:
            assert torch.equal(target, given[rows])
        else:
            table[rows] = 0.7 * table[rows] + 0.3 * logits.double().softmax(dim=1)
            torch.testing.assert_close(target.double(), table[rows], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(callback.section.stores["target"].values.double(), table, rtol=1e-6, atol=1e-7)


def test_selc_gate_and_floor_of_nal(tmp_path):
    spy, callback = CriterionSpy(), SELC(momentum=0.5, warmup_epochs=1, every_n_epochs=2, floor=0.2)
    make_trainer(tmp_path, [callback, spy], max_epochs=4).fit(ForeignModule(), tuple_loader())
    table = F.one_hot(make_tensors()[1], 4).double().clamp(min=0.2)
    for step, (logits, target) in enumerate(spy.calls):
        epoch, rows = step // 3, torch.arange(24).view(3, 8)[step % 3]
        if epoch in (1, 3):
            table[rows] = (0.5 * table[rows] + 0.5 * logits.double().softmax(dim=1)).clamp(min=0.2)
        torch.testing.assert_close(target.double(), table[rows], rtol=1e-6, atol=1e-7)


def test_selc_reports_its_correction_accuracy(tmp_path):
    clean = make_tensors()[2]
    callback = SELC(momentum=0.1, clean_targets=clean)
    make_trainer(tmp_path, [callback], max_epochs=2).fit(ForeignModule(), tuple_loader())
    expected = (callback.section.stores["target"].values.argmax(dim=1) == clean).double().mean().item()
    assert callback.history[1] == {"target/correction_acc": expected}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("confidence", ["given", "max"])
@pytest.mark.parametrize("initial_pool", ["one_hot", "zeros"])
def test_pool_draws_are_the_labels_and_the_pool_follows_the_paper(tmp_path, case, confidence, initial_pool):
    module_class, loader = CASES[case]
    spy = CriterionSpy()
    callback = GradientSwitching(2.0, 1.0, initial_pool, confidence, total_epochs=3, seed=5)
    make_trainer(tmp_path, [callback, spy], max_epochs=3).fit(module_class(), loader())
    given = make_tensors()[1]
    pool = F.one_hot(given, 4).double() if initial_pool == "one_hot" else torch.zeros(24, 4, dtype=torch.float64)
    drawn_others = 0
    for step, (logits, target) in enumerate(spy.calls):
        epoch, rows = step // 3, range(8 * (step % 3), 8 * (step % 3) + 8)
        p = logits.double().softmax(dim=1)
        for position, i in enumerate(rows):
            c = p[position, given[i]] if confidence == "given" else p[position].max()
            gain = torch.full((4,), 1.0 * epoch / 3 / 4, dtype=torch.float64)
            gain[given[i]] += c * (1 - epoch / 3)
            gain[p[position].argmax()] += c * 2.0 * epoch / 3
            weights = gain if initial_pool == "zeros" and epoch == 0 else pool[i]
            assert weights[target[position]] > 0
            drawn_others += int(target[position] != given[i])
            pool[i] += gain
    assert target.dtype == torch.int64
    assert drawn_others > 0
    torch.testing.assert_close(callback.section.stores["pool"].values.double(), pool, rtol=1e-5, atol=1e-6)


def test_pool_draws_depend_on_seed_epoch_and_index_alone(tmp_path):
    x, noisy, _ = make_tensors()
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1)).tolist()

    class Constant(ForeignModule):  # the same predictions whatever the order of the batches
        def training_step(self, batch, batch_idx):
            logits = self(batch[0]) * 0 + torch.arange(4.0)
            self.drawn = getattr(self, "drawn", {})
            return self.criterion(logits, batch[1])

    def draws(sampler, batch_size, seed):
        spy, indices = CriterionSpy(), []
        loader = torch.utils.data.DataLoader(IndexedDataset(TensorDataset(x, noisy)), batch_size, sampler=sampler)

        class Watch(Callback):
            def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
                indices.extend(batch[2].tolist())

        trainer = make_trainer(tmp_path, [GradientSwitching(total_epochs=2, seed=seed), spy, Watch()], max_epochs=3)
        trainer.fit(Constant(), loader)
        labels = torch.cat([target for _, target in spy.calls]).tolist()
        return sorted(
            (position // 24, i, label) for position, (i, label) in enumerate(zip(indices, labels, strict=True))
        )

    plain = draws(None, 8, seed=0)
    assert plain == draws(order, 5, seed=0)
    assert plain != draws(None, 8, seed=1)


def test_dal_schedule_sets_the_published_values(tmp_path):
    class WithDAL(ForeignModule):
        def __init__(self):
            super().__init__()
            self.criterion = DynamicsAwareLoss(q=0.8)

        def on_train_batch_start(self, batch, batch_idx):
            self.seen = [*getattr(self, "seen", []), (self.criterion.q, self.criterion.lam)]

    module = WithDAL()
    loader = tuple_loader(24)
    make_trainer(tmp_path, [DALSchedule(0.8, 1.5, 1.0, total_epochs=150)], max_epochs=150).fit(module, loader)
    assert module.seen[149] == pytest.approx((1.49533, 0.99067), abs=1e-5)
    assert module.seen[42][1] == 0
    assert module.seen[43][1] > 0
    for i, (q, lam) in enumerate(module.seen):
        moment = (1 - 0.8) * 150 / (1.5 - 0.8)
        assert q == pytest.approx(0.8 + 0.7 * i / 150)
        assert lam == pytest.approx(max(0.0, (i - moment) / (150 - moment)))


@pytest.mark.parametrize(
    ("interval", "values"), [("epoch", [0, 0, 0, 1, 1, 1]), ("step", [0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3])]
)
def test_parameter_schedule_moves_a_number(tmp_path, interval, values):
    class Watch(Callback):
        def __init__(self):
            self.seen = []

        def on_train_batch_start(self, trainer, pl_module, *_):
            self.seen.append(pl_module.body[2].p)

    watch = Watch()
    schedule = ParameterSchedule("body.2.p", 0.0, 0.2, interval=interval)
    make_trainer(tmp_path, [schedule, watch]).fit(ForeignModule(), tuple_loader())
    assert watch.seen == pytest.approx([0.1 * value for value in values])


def test_confidence_tracker_means_over_both_groups(tmp_path):
    _, given, clean = make_tensors()
    spy, callback = CriterionSpy(), ConfidenceTracker(clean)
    module = ForeignModule()
    trainer = make_trainer(tmp_path, [callback, spy])
    trainer.fit(module, tuple_loader())
    for epoch in (0, 1):
        logits = torch.cat([z for z, _ in spy.calls[3 * epoch : 3 * epoch + 3]]).double()
        p = logits.softmax(dim=1)[torch.arange(24), given]
        assert callback.history[epoch]["train/conf/clean"] == pytest.approx(p[given == clean].mean().item(), abs=1e-6)
        assert callback.history[epoch]["train/conf/noisy"] == pytest.approx(p[given != clean].mean().item(), abs=1e-6)
    assert trainer.callback_metrics["train/conf/noisy"].item() == pytest.approx(callback.history[1]["train/conf/noisy"])


def test_confidence_tracker_without_clean_labels_reports_the_whole_set(tmp_path):
    callback = ConfidenceTracker()
    make_trainer(tmp_path, [callback]).fit(ForeignModule(), tuple_loader())
    assert set(callback.history[0]) == {"train/conf/all"}


def test_observers_see_the_given_label_beside_a_changer(tmp_path):
    tracker = ConfidenceTracker(make_tensors()[2])
    spy = CriterionSpy()
    make_trainer(tmp_path, [SELC(momentum=0.1), tracker, spy], max_epochs=1).fit(ForeignModule(), tuple_loader())
    given = make_tensors()[1]
    p = torch.cat([z for z, _ in spy.calls]).double().softmax(dim=1)[torch.arange(24), given]
    mislabeled = given != make_tensors()[2]
    assert tracker.history[0]["train/conf/noisy"] == pytest.approx(p[mislabeled].mean().item(), abs=1e-6)


def test_second_call_of_a_batch_gets_the_same_target_and_writes_nothing(tmp_path):
    class Twice(ForeignModule):
        def training_step(self, batch, batch_idx):
            x, target, _ = batch
            return self.criterion(self(x), target) + self.criterion(self(-x), target)

    spy, callback = CriterionSpy(), SELC(momentum=0.5)
    make_trainer(tmp_path, [callback, spy], max_epochs=1).fit(Twice(), tuple_loader())
    for first, second in zip(spy.calls[::2], spy.calls[1::2], strict=True):
        assert torch.equal(first[1], second[1])
    given = make_tensors()[1]
    first_logits = torch.cat([z for z, _ in spy.calls[::2]])
    expected = 0.5 * F.one_hot(given, 4) + 0.5 * first_logits.softmax(dim=1)
    torch.testing.assert_close(callback.section.stores["target"].values, expected)


def test_validation_inside_the_fit_sees_no_pipeline(tmp_path):
    seen = []

    class Watch(ForeignModule):
        def validation_step(self, batch, batch_idx):
            before = batch[1].clone()
            self.criterion(self(batch[0]), batch[1])
            seen.append(torch.equal(before, batch[1]))

    callback = SELC()
    trainer = make_trainer(tmp_path, [callback], val_check_interval=1, max_epochs=1)
    trainer.fit(Watch(), tuple_loader(), make_validation_loader())
    assert len(seen) == 9
    assert callback.section.stores["target"].values.sum(dim=1).allclose(torch.ones(24))


def test_a_last_batch_of_one_sample_works(tmp_path):
    for name in CALLBACKS:
        if name not in ("confidence", "memorization"):  # their clean labels are those of 24 samples
            callback = CALLBACKS[name]()
            trainer = make_trainer(tmp_path, [callback], max_epochs=1)
            trainer.fit(ForeignModule(), tuple_loader(8, num_samples=17))
            assert trainer.global_step == 3
            tables = callback.section.stores.values() if hasattr(callback, "section") else ()
            unseen = -1 if name == "labels" else 0  # label 0 is one
            assert all((table.values[16] > unseen).any() for table in tables)


def test_an_aborted_epoch_writes_no_row_of_another_batch(tmp_path):
    class Aborting(ForeignModule):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx == 1 else None

    spy, callback = CriterionSpy(), SELC(momentum=0.5)
    order = [*range(8), *range(16, 24), *range(8, 16)]
    x, noisy, _ = make_tensors()
    loader = torch.utils.data.DataLoader(IndexedDataset(TensorDataset(x, noisy)), 8, sampler=order)
    make_trainer(tmp_path, [callback, spy], max_epochs=2).fit(Aborting(), loader)
    table = callback.section.stores["target"].values
    assert (table[:8].sum(dim=1) > 0).all()
    assert (table[8:] == 0).all()


def test_a_mask_of_the_projects_own_head_is_off_after_training(tmp_path):
    class Own(ForeignModule):
        def __init__(self):
            super().__init__()
            self.classifier = LinearHead(8, 4)

    module = Own()
    make_trainer(tmp_path, [MaskRefresh("classifier", apply_in="always")]).fit(module, tuple_loader())
    assert type(module.classifier) is LinearHead
    assert module.classifier.edge_mask is None


def test_mask_always_survives_the_sanity_check_of_a_resume(tmp_path):
    def callback():
        return MaskRefresh("classifier", ratio=0.5, every_n_steps=100, apply_in="always")

    first = make_trainer(tmp_path, [callback()], max_epochs=1)
    first.fit(ForeignModule(), tuple_loader(), make_validation_loader())
    first.save_checkpoint(tmp_path / "one.ckpt")
    again, module = callback(), ForeignModule()
    trainer = make_trainer(tmp_path, [again], num_sanity_val_steps=1)
    trainer.fit(module, tuple_loader(), make_validation_loader(), ckpt_path=tmp_path / "one.ckpt")
    assert torch.equal(again.mask, first.callbacks[1].mask)


def test_mask_always_is_applied_in_predict(tmp_path):
    class Predicting(ForeignModule):
        def predict_step(self, batch, batch_idx):
            assert self.classifier.edge_mask is not None
            return self(batch[0])

    trainer = make_trainer(tmp_path, [MaskRefresh("classifier", apply_in="always")])
    module = Predicting()
    trainer.fit(module, tuple_loader())
    trainer.predict(module, make_validation_loader())
    assert type(module.classifier) is nn.Linear


def test_a_new_run_renews_the_mask(tmp_path):
    callback = MaskRefresh("classifier", ratio=0.5, every_n_steps=100)
    masks = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        module = ForeignModule()
        expected = node_mask(module.classifier.weight.detach().abs(), 0.5)
        make_trainer(tmp_path, [callback], max_epochs=1).fit(module, tuple_loader())
        masks.append(callback.mask)
        assert torch.equal(callback.mask, expected)
    assert not torch.equal(*masks)


@pytest.mark.parametrize("redraw", ["step", "epoch"])
def test_a_sample_that_comes_twice_an_epoch(tmp_path, redraw):
    x, noisy, _ = make_tensors()
    loader = torch.utils.data.DataLoader(IndexedDataset(TensorDataset(x, noisy)), 8, sampler=[*range(8)] * 12)
    spy, callback = CriterionSpy(), GradientSwitching(redraw=redraw, total_epochs=3, lam_random=20.0)
    make_trainer(tmp_path, [callback, spy], max_epochs=3).fit(ForeignModule(), loader)
    labels = torch.stack([target for _, target in spy.calls]).view(3, 12, 8)
    changes = (labels != labels[:, :1]).any(dim=1)
    assert bool(changes[1:].any()) is (redraw == "step")
    assert not torch.equal(labels[1, 0], labels[2, 0])
    grown = callback.section.stores["pool"].values[:8].sum().item()
    once = 8 * (1 + 20 / 3 + 40 / 3)
    assert grown > 5 * once if redraw == "step" else grown < 2 * once


def test_pool_schedule_stops_at_its_end(tmp_path):
    callback = GradientSwitching(total_epochs=1, lam_prediction=0.0, lam_random=4.0)
    make_trainer(tmp_path, [callback], max_epochs=3).fit(ForeignModule(), tuple_loader())
    pool = callback.section.stores["pool"].values
    assert (pool >= 2.0).all()
    assert (pool.sum(dim=1) < 1 + 1 + 2 * 4.0 + 1e-4).all()


def test_pool_seed_is_that_of_the_first_start(tmp_path, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    first = make_trainer(tmp_path, [GradientSwitching(total_epochs=4)])
    first.fit(ForeignModule(), tuple_loader())
    first.save_checkpoint(tmp_path / "two.ckpt")
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    kept, added = GradientSwitching(total_epochs=4), GradientSwitching(total_epochs=4)
    trainer = make_trainer(tmp_path, [kept], max_epochs=3)
    trainer.fit(ForeignModule(), tuple_loader(), ckpt_path=tmp_path / "two.ckpt")
    assert RunDriver.of(trainer).seed == 5
    plain = make_trainer(tmp_path)
    plain.fit(ForeignModule(), tuple_loader())
    plain.save_checkpoint(tmp_path / "plain.ckpt")
    trainer = make_trainer(tmp_path, [added], max_epochs=3)
    trainer.fit(ForeignModule(), tuple_loader(), ckpt_path=tmp_path / "plain.ckpt")
    assert RunDriver.of(trainer).seed == 7


def test_correction_accuracy_in_warm_up_is_that_of_the_given_labels(tmp_path):
    _, given, clean = make_tensors()
    callback = SELC(warmup_epochs=2, clean_targets=clean)
    make_trainer(tmp_path, [callback]).fit(ForeignModule(), tuple_loader())
    assert callback.history[0]["target/correction_acc"] == pytest.approx((given == clean).float().mean().item())


@pytest.mark.parametrize(("precision", "dtype"), [("64-true", torch.float64), ("bf16-true", torch.bfloat16)])
def test_soft_targets_have_the_dtype_of_the_logits(tmp_path, precision, dtype):
    x, noisy, _ = make_tensors()
    spy = CriterionSpy()
    loader = make_loader(IndexedDataset(TensorDataset(x.to(dtype), noisy)))
    make_trainer(tmp_path, [SELC(), spy], max_epochs=1, precision=precision).fit(ForeignModule(), loader)
    assert {target.dtype for _, target in spy.calls} == {dtype}


def test_figures_of_an_earlier_run_are_forgotten(tmp_path):
    callback = ConfidenceTracker()
    make_trainer(tmp_path, [callback], max_epochs=3).fit(ForeignModule(), tuple_loader())
    make_trainer(tmp_path, [callback], max_epochs=1).fit(ForeignModule(), tuple_loader())
    assert set(callback.history) == {0}


def test_a_fresh_run_of_the_same_callback_starts_afresh(tmp_path):
    callback = SELC(momentum=0.9)
    make_trainer(tmp_path, [callback]).fit(ForeignModule(), tuple_loader())
    make_trainer(tmp_path, [callback]).fit(ForeignModule(), tuple_loader(num_samples=16))
    assert callback.section.stores["target"].num_samples == 16


class Sometimes(ForeignModule):
    """Calls its criterion in every second batch from the second epoch on."""

    def training_step(self, batch, batch_idx):
        logits = self(batch[0])
        if self.current_epoch == 0 or batch_idx % 2:
            return logits.square().mean()
        return self.criterion(logits, batch[1])


def test_steps_may_leave_the_criterion_out(tmp_path):
    x, noisy, _ = make_tensors()
    selc = SELC()
    with pytest.warns(UserWarning, match="first training step has not called `criterion`: SELC wait until one does"):
        make_trainer(tmp_path, [selc], 3).fit(Sometimes(), make_loader(TensorDataset(x, noisy)))
    assert (selc.section.stores["target"].values.sum(dim=1) > 0).sum() == 16


def test_a_loss_gets_what_it_requires_from_its_place(tmp_path):
    calls = []

    class Needing(NoisyLabelLoss):
        def losses(self, logits, target, index, epoch, total_epochs, parameters):
            calls.append((index.tolist(), epoch, total_epochs, len(list(parameters))))
            return torch.nn.functional.cross_entropy(logits, target, reduction="none")

    module = ForeignModule()
    module.training_step = lambda batch, batch_idx: module.criterion(module(batch[0]), batch[1])
    module.criterion = Needing()
    x, noisy, _ = make_tensors()
    make_trainer(tmp_path, [LossMemory()]).fit(module, make_loader(TensorDataset(x, noisy)))
    rows = [list(range(start, start + 8)) for start in (0, 8, 16)]
    assert calls == [(row, epoch, 2, 4) for epoch in range(2) for row in rows]
    calls.clear()
    module.training_step = lambda batch, batch_idx: module.criterion(module(batch[0]), batch[1], epoch=7)
    make_trainer(tmp_path, [ConfidenceTracker()], 1).fit(module, make_loader(TensorDataset(x, noisy)))
    assert calls == [(row, 7, 1, 4) for row in rows]


def test_a_loss_sees_the_features_that_go_into_the_classifier(tmp_path):
    def fit(passing, callbacks):
        torch.manual_seed(0)
        module = ForeignModule()
        module.criterion = NoiseAttentionLoss(8)

        def step(batch, batch_idx):
            features = module.body(batch[0])
            more = {"features": features} if passing else {}
            return module.criterion(module.classifier(features), batch[1], **more)

        module.training_step = step
        x, noisy, _ = make_tensors()
        make_trainer(tmp_path, callbacks).fit(module, make_loader(TensorDataset(x, noisy)))
        assert not module.classifier._forward_pre_hooks
        return module.state_dict()

    assert_same(fit(False, [LossMemory("classifier"), SELC()]), fit(True, [SELC()]))
    with pytest.raises(NoisyLabelError, match="does not know which layer of ForeignModule is the classifier"):
        fit(False, [LossMemory()])
    with pytest.raises(NoisyLabelError, match="has no layer `head` whose input are the features"):
        fit(False, [LossMemory("head")])
    with pytest.raises(NoisyLabelError, match="features"):
        fit(False, [SELC()])
