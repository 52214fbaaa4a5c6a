"""The pipeline at a criterion: what it binds, and what it refuses."""

import copy
import re
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric

from lightning_noisy import NoisyLabelError
from lightning_noisy.callbacks import SELC, ConfidenceTracker, GradientSwitching, MaskRefresh
from lightning_noisy.data import IndexedDataset
from lightning_noisy.data.batch import Batch, batch_index
from lightning_noisy.losses import EarlyLearningRegularization, NoiseAttentionLoss
from lightning_noisy.state import RunState, TrainingSet
from lightning_noisy.targets import check_soft_targets, pipeline_at
from tests.foreign import SHARDING, ForeignModule, make_loader, make_tensors, make_trainer


class Doubler:
    """Replaces the target by the next class and counts its calls."""

    replaces_target = True
    makes_soft_targets = False

    def __init__(self):
        self.calls = []

    def change_target(self, call):
        self.calls.append(call)
        return (call.given + 1) % call.num_classes


class Recorder:
    def __init__(self):
        self.calls = []

    def observe_target(self, call):
        self.calls.append(call)


def running(samples=6):
    """A run that trains on a set of so many samples."""
    run = RunState()
    run.begin(TrainingSet(samples), None, True, torch.device("cpu"), seed=0, max_epochs=1)
    return run


def several(batch):
    """A batch of several loaders whose samples carry their index."""
    parts = batch.items() if isinstance(batch, dict) else enumerate(batch)
    return Batch(batch, 0, 0, {str(name): partial(batch_index, part) for name, part in parts if part is not None})


def placed(criterion, run=None):
    root = nn.Module()
    root.criterion = criterion
    return pipeline_at(run or running(), root, None)


def enter(pipeline, index=None, epoch=0, batch_idx=0):
    """Begin a batch of samples with this index."""
    index = INDEX if index is None else index
    pipeline.run.enter_batch(Batch(None, epoch, batch_idx, {"": lambda: index}))


class WithContext(nn.Module):
    def forward(self, logits, target, *, index=None, weight=1.0):
        self.got = (target, index, weight)
        return nn.functional.cross_entropy(logits, target)


class Variadic(nn.Module):
    def forward(self, *args, **kwargs):
        return *args[1:], kwargs


LOGITS, TARGET, INDEX = torch.randn(3, 4), torch.tensor([0, 1, 3]), torch.tensor([5, 2, 0])


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c(LOGITS, TARGET),
        lambda c: c(LOGITS, target=TARGET),
        lambda c: c(input=LOGITS, target=TARGET),
        lambda c: c(target=TARGET, input=LOGITS),
    ],
)
def test_every_way_of_calling(call):
    criterion, changer = nn.CrossEntropyLoss(), Doubler()
    pipeline = placed(criterion)
    pipeline.add_changer(changer)
    enter(pipeline, epoch=7)
    expected = nn.functional.cross_entropy(LOGITS, (TARGET + 1) % 4)
    assert torch.equal(call(criterion), expected)
    (seen,) = changer.calls
    assert torch.equal(seen.given, TARGET)
    assert torch.equal(seen.index, INDEX)
    assert torch.equal(seen.logits, LOGITS)
    assert seen.epoch == 7


def test_other_arguments_pass_through():
    criterion = WithContext()
    pipeline = placed(criterion)
    pipeline.add_changer(Doubler())
    enter(pipeline)
    criterion(LOGITS, TARGET, weight=2.0, index=INDEX)
    target, index, weight = criterion.got
    assert torch.equal(target, (TARGET + 1) % 4)
    assert index is INDEX
    assert weight == 2.0


def test_inactive_outside_batches_and_gone_after_the_run():
    criterion, changer, observer = nn.CrossEntropyLoss(), Doubler(), Recorder()
    pipeline = placed(criterion)
    pipeline.add_changer(changer)
    pipeline.add_observer(observer)
    plain = criterion(LOGITS, TARGET)
    enter(pipeline)
    assert not torch.equal(criterion(LOGITS, TARGET), plain)
    pipeline.run.leave_batch()
    assert torch.equal(criterion(LOGITS, TARGET), plain)
    assert criterion._forward_pre_hooks
    pipeline.run.end()
    assert not criterion._forward_pre_hooks
    assert not pipeline.run.listeners


def test_observers_see_given_and_final_target_whatever_the_order():
    criterion, observer = nn.CrossEntropyLoss(), Recorder()
    pipeline = placed(criterion)
    pipeline.add_observer(observer)
    pipeline.add_changer(Doubler())
    enter(pipeline)
    criterion(LOGITS, TARGET)
    criterion(LOGITS, TARGET)
    (seen,) = observer.calls
    assert torch.equal(seen.given, TARGET)
    assert torch.equal(seen.target, (TARGET + 1) % 4)


def test_two_pipelines_at_one_criterion_are_one():
    criterion, run = nn.CrossEntropyLoss(), running()
    assert placed(criterion, run) is placed(criterion, run)
    assert placed(nn.CrossEntropyLoss(), run) is not placed(criterion, run)


def test_an_observer_changes_nothing():
    """Mixup, a second head: without a changer every call gets its own arguments."""
    criterion = WithContext()
    pipeline = placed(criterion)
    pipeline.add_observer(Recorder())
    enter(pipeline)
    for labels in (TARGET, TARGET.flip(0)):
        criterion(LOGITS, labels)
        assert criterion.got[0] is labels
    criterion(LOGITS[:2], TARGET[:2])


def in_place(call):
    call.target[0] = 2
    return call.target


@pytest.mark.parametrize(
    ("change", "came"),
    [
        (lambda call: None, "NoneType"),
        (lambda call: call.target.float(), r"torch.float32 \(3,\)"),
        (lambda call: call.target[:2], r"torch.int64 \(2,\)"),
        (in_place, r"torch.int64 \(3,\)"),
    ],
)
def test_a_changer_returns_a_new_target(change, came):
    changer, criterion = Doubler(), nn.CrossEntropyLoss()
    changer.change_target = change
    pipeline = placed(criterion)
    pipeline.add_changer(changer)
    enter(pipeline)
    message = rf"Doubler.change_target has to return a new target, labels int64 \(3,\) or .* but returned {came}"
    with pytest.raises(NoisyLabelError, match=message):
        criterion(LOGITS, TARGET)


def test_probabilities_are_no_logits():
    criterion = nn.NLLLoss()
    pipeline = placed(criterion)
    pipeline.add_observer(Recorder())
    for rows in (LOGITS.log_softmax(1), LOGITS.softmax(1)):  # the first batch tells
        enter(pipeline)
        criterion(rows, TARGET)
    other = nn.NLLLoss()
    pipeline = placed(other)
    pipeline.add_observer(Recorder())
    enter(pipeline)
    with pytest.raises(
        NoisyLabelError, match="`criterion` gets probabilities, and whoever looks at it would take their"
    ):
        other(LOGITS.softmax(1), TARGET)


def test_a_changer_refuses_other_labels_in_the_same_batch():
    criterion = nn.CrossEntropyLoss()
    pipeline = placed(criterion)
    pipeline.add_changer(Doubler())
    enter(pipeline)
    criterion(LOGITS, TARGET)
    with pytest.raises(NoisyLabelError, match="called twice in a batch with different labels"):
        criterion(LOGITS, TARGET.flip(0))


def test_an_aborted_batch_does_not_lend_its_index_to_the_next():
    criterion, observer = nn.CrossEntropyLoss(), Recorder()
    pipeline = placed(criterion)
    pipeline.add_observer(observer)
    enter(pipeline)
    enter(pipeline, INDEX.flip(0), 1, 0)
    criterion(LOGITS, TARGET)
    assert torch.equal(observer.calls[0].index, INDEX.flip(0))


def test_members_read_the_index_at_one_place():
    root, run = ForeignModule(), running()
    assert pipeline_at(run, root, None).index_key is None
    assert pipeline_at(run, root, None, "id").index_key == "id"
    assert pipeline_at(run, root, None).index_key == "id"
    with pytest.raises(NoisyLabelError, match=r"read the index at 'id' and at 2: give one `index_key`"):
        pipeline_at(run, root, None, 2)


def parts(**indices):
    return {name: (None, None, torch.tensor(index)) for name, index in indices.items()}


@pytest.mark.parametrize(
    ("batch", "key", "rows", "index"),
    [
        (parts(a=[0, 1], b=[2, 3, 4]), None, 2, [0, 1]),
        (parts(a=[0, 1], b=[2, 3, 4]), None, 3, [2, 3, 4]),
        (parts(a=[0, 1], b=[2, 3, 4]), None, 5, [0, 1, 2, 3, 4]),
        (parts(a=[0, 1], b=[2, 3]), "b", 2, [2, 3]),
        (list(parts(a=[0, 1], b=[2, 3]).values()), 1, 2, [2, 3]),
        ([*parts(a=[0, 1]).values(), None], None, 2, [0, 1]),  # a loader that is at its end
        (parts(a=[0, 1], b=[2, 3]), None, 2, "as many as several loaders give (a, b)"),
        (parts(a=[0, 1], b=[2, 3, 4]), None, 4, "4 rows of logits, but the batch has 2 + 3 indices"),
        (parts(a=[0, 1], b=[2, 6]), None, 4, "indices in [0, 6), but the batch has 0 to 6"),
    ],
)
def test_the_index_of_a_batch_from_several_loaders(batch, key, rows, index):
    criterion, observer, run = nn.CrossEntropyLoss(), Recorder(), running()
    root = nn.Module()
    root.criterion = criterion
    pipeline_at(run, root, None, key).add_observer(observer)
    call = torch.randn(rows, 4), torch.zeros(rows, dtype=torch.int64)
    if isinstance(index, str):
        with pytest.raises(NoisyLabelError, match=re.escape(index)):
            run.enter_batch(several(batch)) or criterion(*call)
    else:
        run.enter_batch(several(batch))
        criterion(*call)
        assert observer.calls[0].index.tolist() == index


def test_a_step_may_say_which_samples_a_call_is_about():
    criterion, observer = nn.CrossEntropyLoss(), Recorder()
    pipeline = placed(criterion)
    pipeline.add_observer(observer)
    enter(pipeline)
    pipeline.run.batch.called = INDEX[1:]
    criterion(LOGITS[1:], TARGET[1:])
    assert torch.equal(observer.calls[0].index, INDEX[1:])


def test_a_copy_of_the_criterion_is_left_alone():
    criterion, changer = nn.CrossEntropyLoss(), Doubler()
    pipeline = placed(criterion)
    pipeline.add_changer(changer)
    teacher = copy.deepcopy(criterion)
    enter(pipeline)
    assert torch.equal(teacher(LOGITS, TARGET), nn.functional.cross_entropy(LOGITS, TARGET))
    assert not changer.calls


def test_a_criterion_under_its_other_name_is_the_same():
    root = nn.Module()
    root.criterion = root.alias = nn.CrossEntropyLoss()
    run = running()
    assert pipeline_at(run, root, "alias") is pipeline_at(run, root, "criterion")


def test_labels_of_any_integer_type():
    criterion, changer = nn.CrossEntropyLoss(), Doubler()
    pipeline = placed(criterion)
    pipeline.add_changer(changer)
    pipeline.add_changer(changer)
    enter(pipeline)
    criterion(LOGITS, TARGET.to(torch.uint8))
    assert len(changer.calls) == 1
    assert changer.calls[0].given.dtype == torch.int64


def test_probabilities_keep_float64():
    criterion, changer = nn.CrossEntropyLoss(), Doubler()
    pipeline = placed(criterion)
    pipeline.add_changer(changer)
    enter(pipeline)
    criterion(LOGITS.double(), TARGET)
    torch.testing.assert_close(changer.calls[0].probabilities, LOGITS.double().softmax(1), rtol=1e-14, atol=0)


def test_changer_sees_no_gradient():
    criterion, changer = nn.CrossEntropyLoss(), Doubler()
    pipeline = placed(criterion)
    pipeline.add_changer(changer)
    enter(pipeline)
    criterion(LOGITS.clone().requires_grad_(), TARGET).backward()
    assert not changer.calls[0].logits.requires_grad


@pytest.mark.parametrize(
    ("logits", "target", "message"),
    [
        (torch.randn(6, 4), TARGET.repeat(2), "6 rows of logits, but the batch has 3 indices"),
        (torch.randn(3, 1), torch.zeros(3, dtype=torch.int64), "K >= 2 classes, but got (3, 1)"),
        (torch.randn(3), TARGET, "logits (B, K)"),
        (torch.randn(3, 4, 2), TARGET, "logits (B, K)"),
        (LOGITS, torch.tensor([0, 1, 4]), "labels in [0, 4) at `criterion`, but the batch has 0 to 4"),
        (LOGITS, torch.tensor([0, -1, 3]), "labels in [0, 4) at `criterion`, but the batch has -1 to 3"),
        (LOGITS, LOGITS.softmax(1), "labels (B,) of integers"),
        (
            torch.tensor([[0.0, 1, 2, 3], [0, 1, float("nan"), 3], [0, 1, 2, 3]]),
            TARGET,
            "epoch 2, batch 5, samples [2]",
        ),
    ],
)
def test_refused_calls(logits, target, message):
    criterion = nn.CrossEntropyLoss()
    pipeline = placed(criterion)
    pipeline.add_observer(Recorder())
    enter(pipeline, INDEX, 2, 5)
    with pytest.raises(NoisyLabelError) as caught:
        criterion(logits, target)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_criterion_of_any_arguments_takes_the_first_two():
    criterion, seen = Variadic(), Recorder()
    pipeline = placed(criterion)
    pipeline.add_observer(seen)
    pipeline.add_changer(Doubler())
    enter(pipeline)
    target, *more = criterion(LOGITS, TARGET, "more", scale=2)
    assert torch.equal(target, (TARGET + 1) % 4)
    assert more == ["more", {"scale": 2}]
    assert seen.calls[0].context == {"scale": 2}


class OneArgument(nn.Module):
    def forward(self, logits):
        return logits


def test_refused_signature():
    criterion = OneArgument()
    pipeline = placed(criterion)
    pipeline.add_observer(Recorder())
    enter(pipeline)
    with pytest.raises(NoisyLabelError, match=r"called as criterion\(logits, target\), but its forward is \(logits\)"):
        criterion(LOGITS)


@pytest.mark.parametrize("ignored", [None, -100])
def test_a_criterion_that_ignores_nothing_takes_soft_targets(ignored):
    criterion = nn.CrossEntropyLoss()
    criterion.ignore_index = ignored
    check_soft_targets(criterion, "SELC")


@pytest.mark.parametrize("index", [[5, 2, 6], [-1, 2, 0]])
def test_index_out_of_range(index):
    criterion = nn.CrossEntropyLoss()
    pipeline = placed(criterion)
    pipeline.add_observer(Recorder())
    enter(pipeline, torch.tensor(index), 0, 0)
    with pytest.raises(NoisyLabelError, match=r"indices in \[0, 6\), but the batch has"):
        criterion(LOGITS, TARGET)


def tuple_loader(labels=None):
    x, noisy, _ = make_tensors()
    return make_loader(IndexedDataset(TensorDataset(x, noisy if labels is None else labels)))


def refuses(tmp_path, callbacks, module, loader, message, **options):
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(NoisyLabelError) as caught:
        make_trainer(tmp_path, callbacks, **options).fit(module, loader)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    for name, value in module.state_dict().items():
        assert torch.equal(value, weights[name]), "a step was made before the error"
    assert not list(tmp_path.rglob("*.ckpt"))
    return caught.value


class TestAtStart:
    def test_two_changers(self, tmp_path):
        callbacks = [SELC(), GradientSwitching(total_epochs=2)]
        message = "SELC and GradientSwitching both replace the target of `criterion`"
        refuses(tmp_path, callbacks, ForeignModule(), tuple_loader(), message)

    @pytest.mark.parametrize(
        ("criterion", "message"),
        [
            (nn.NLLLoss(), "SELC makes soft targets, but NLLLoss cannot take them"),
            (nn.CrossEntropyLoss(ignore_index=0), "`ignore_index` has no meaning"),
            (nn.MultiMarginLoss(), "SELC makes soft targets, but MultiMarginLoss cannot take them"),
        ],
    )
    def test_criterion_without_soft_targets(self, tmp_path, criterion, message):
        module = ForeignModule()
        module.criterion = criterion
        refuses(tmp_path, [SELC()], module, tuple_loader(), message)

    def test_hard_draws_go_to_any_criterion(self, tmp_path):
        module = ForeignModule()
        module.criterion = nn.NLLLoss()
        module.classifier = nn.Sequential(nn.Linear(8, 4), nn.LogSoftmax(dim=1))
        make_trainer(tmp_path, [GradientSwitching(total_epochs=2)]).fit(module, tuple_loader())

    def test_a_criterion_that_is_not_called(self, tmp_path):
        class Unused(ForeignModule):
            def training_step(self, batch, batch_idx):
                return nn.functional.cross_entropy(self(batch[0]), batch[1])

        message = "No training step has called `criterion`, so SELC did nothing: name the criterion"
        with (
            pytest.raises(NoisyLabelError, match=message),
            pytest.warns(UserWarning, match="first training step has not called `criterion`: SELC wait"),
        ):
            make_trainer(tmp_path, [SELC()]).fit(Unused(), tuple_loader())

    def test_two_that_might_be_the_criterion(self, tmp_path):
        module = ForeignModule()
        module.loss = nn.MSELoss()
        refuses(tmp_path, [SELC()], module, tuple_loader(), "has both `loss` and `criterion`: say which")
        make_trainer(tmp_path, [SELC(criterion="criterion")]).fit(module, tuple_loader())
        module.loss = MeanMetric()
        make_trainer(tmp_path, [SELC()]).fit(module, tuple_loader())

    def test_a_criterion_that_fails_with_soft_targets(self, tmp_path):
        class Own(nn.Module):
            def forward(self, logits, target):
                return -logits.log_softmax(1).gather(1, target.unsqueeze(1)).mean()

        module = ForeignModule()
        module.criterion = Own()
        message = "SELC makes soft targets, but Own fails with them (RuntimeError: gather"
        refuses(tmp_path, [SELC(warmup_epochs=1)], module, tuple_loader(), message)
        make_trainer(tmp_path, [GradientSwitching(total_epochs=2)]).fit(module, tuple_loader())

    def test_head_that_does_not_exist(self, tmp_path):
        message = "ForeignModule has no layer `head` to mask: the layers that can be masked are body.0, classifier."
        refuses(tmp_path, [MaskRefresh("head")], ForeignModule(), tuple_loader(), message)

    @pytest.mark.parametrize("strategy", SHARDING)
    def test_strategies_that_shard(self, strategy):
        trainer = SimpleNamespace(strategy=strategy.__new__(strategy))
        with pytest.raises(NoisyLabelError, match=f"under {strategy.__name__}, which shards its weights"):
            MaskRefresh("classifier").on_fit_start(trainer, ForeignModule())

    def test_layer_that_cannot_be_masked(self, tmp_path):
        error = refuses(
            tmp_path, [MaskRefresh("body")], ForeignModule(), tuple_loader(), "`body`, a Sequential of torch"
        )
        assert str(error).endswith("here these are body.0, classifier.")

    @pytest.mark.parametrize(
        ("loss", "needed"), [(NoiseAttentionLoss(8), "features"), (EarlyLearningRegularization(), "`LossMemory()`")]
    )
    def test_loss_with_needs_in_a_foreign_module(self, tmp_path, loss, needed):
        module = ForeignModule()
        module.criterion = loss
        error = refuses(tmp_path, [ConfidenceTracker()], module, tuple_loader(), needed)
        assert type(loss).__name__ in str(error)

    @pytest.mark.parametrize("wrong", [-1, 4])
    def test_labels_outside_the_classes(self, tmp_path, wrong):
        labels = make_tensors()[1].clone()
        labels[20] = wrong
        message = f"sample 20 has label {wrong}"
        refuses(tmp_path, [SELC()], ForeignModule(), tuple_loader(labels), message)

    def test_batch_without_the_index_that_was_named(self, tmp_path):
        error = refuses(tmp_path, [SELC(index_key="id")], ForeignModule(), tuple_loader(), "has no index")
        assert "float32 tensor (8, 6)" in str(error)
        assert "`index_key`" in str(error)

    def test_indices_of_another_set(self, tmp_path):
        x, noisy, _ = make_tensors()
        loader = make_loader(TensorDataset(x, noisy, torch.arange(20, 44)))
        refuses(
            tmp_path, [SELC(index_key=2)], ForeignModule(), loader, "indices in [0, 24), but the batch has 20 to 27"
        )

    def test_clean_targets_of_another_length(self, tmp_path):
        callbacks = [ConfidenceTracker(torch.zeros(5, dtype=torch.int64))]
        refuses(tmp_path, callbacks, ForeignModule(), tuple_loader(), "integers of shape (24,)")

    def test_loader_that_cannot_be_counted(self, tmp_path):
        class Stream(torch.utils.data.IterableDataset):
            def __iter__(self):
                x, noisy, _ = make_tensors()
                return iter([(a, b, i) for i, (a, b) in enumerate(zip(x, noisy, strict=True))])

        loader = DataLoader(Stream(), batch_size=8)
        refuses(tmp_path, [SELC()], ForeignModule(), loader, "needs DataLoaders over a map-style data set")

    def test_compiled_modules(self, tmp_path):
        module = ForeignModule()
        module.criterion = torch.compile(module.criterion)
        refuses(tmp_path, [SELC()], module, tuple_loader(), "`criterion` or its LightningModule is compiled")
        module = ForeignModule()
        module.classifier.compile()
        refuses(tmp_path, [MaskRefresh("classifier")], module, tuple_loader(), "is compiled")


def fit_and_save(tmp_path, callbacks):
    trainer = make_trainer(tmp_path, callbacks)
    trainer.fit(ForeignModule(), tuple_loader())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


class TestCheckpointOfAnotherDataSet:
    @pytest.mark.parametrize("make", [SELC, lambda: GradientSwitching(total_epochs=4), ConfidenceTracker])
    def test_other_labels_and_other_size(self, tmp_path, make):
        path = fit_and_save(tmp_path, [make()])
        x, noisy, _ = make_tensors()
        others = {
            "other given labels": TensorDataset(x, (noisy + 1) % 4),
            "24 training samples, this run has 16": TensorDataset(x[:16], noisy[:16]),
        }
        for what, dataset in others.items():
            with pytest.raises(NoisyLabelError, match=what):
                make_trainer(tmp_path, [make()], max_epochs=4).fit(
                    ForeignModule(), make_loader(IndexedDataset(dataset)), ckpt_path=path
                )

    def test_is_no_matter_at_validation(self, tmp_path):
        path = fit_and_save(tmp_path, [SELC()])
        x, noisy, _ = make_tensors(10)
        make_trainer(tmp_path, [SELC()]).validate(ForeignModule(), make_loader(TensorDataset(x, noisy)), ckpt_path=path)

    def test_what_a_test_has_loaded_does_not_enter_a_fresh_fit(self, tmp_path):
        path, callback = fit_and_save(tmp_path, [SELC()]), SELC()
        x, noisy, _ = make_tensors(16)
        make_trainer(tmp_path, [callback]).validate(
            ForeignModule(), make_loader(TensorDataset(x, noisy)), ckpt_path=path
        )
        make_trainer(tmp_path, [callback]).fit(ForeignModule(), make_loader(IndexedDataset(TensorDataset(x, noisy))))
        assert callback.section.stores["target"].num_samples == 16

    def test_other_number_of_classes(self, tmp_path):
        path = fit_and_save(tmp_path, [SELC()])

        class Wider(ForeignModule):
            strict_loading = False

            def __init__(self):
                super().__init__(num_classes=5)

            def on_load_checkpoint(self, checkpoint):
                checkpoint["state_dict"] = self.state_dict()
                checkpoint["optimizer_states"] = [
                    {"state": {}, "param_groups": checkpoint["optimizer_states"][0]["param_groups"]}
                ]

        with pytest.raises(NoisyLabelError, match=r"rows of shape \(4,\), this run needs \(5,\)"):
            make_trainer(tmp_path, [SELC()], max_epochs=4).fit(Wider(), tuple_loader(), ckpt_path=path)


def test_error_in_a_foreign_module_names_it():
    class Bare(LightningModule):
        pass

    with pytest.raises(NoisyLabelError, match=r"^Bare has no module `aux.loss`"):
        pipeline_at(running(), Bare(), "aux.loss")


def test_one_module_of_both_usual_names_is_the_criterion():
    root = nn.Module()
    root.criterion = root.loss = nn.CrossEntropyLoss()
    assert pipeline_at(running(), root, None).name == "loss"
