"""CDR in whole fits, against a training loop of our own in plain torch."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from lightning_noisy import NoisyLabelError
from lightning_noisy.callbacks import CDR, MaskRefresh, ParameterSchedule
from lightning_noisy.data import IndexedDataset
from tests.foreign import SHARDING, ForeignModule, make_loader, make_tensors, make_trainer

EPOCHS = 3


class Convolutional(ForeignModule):
    """Every kind of parameter: 1-D, 2-D, 3-D and 4-D, batch norm, and one that no step uses."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        convolution = nn.Sequential(nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.Tanh())
        self.body = nn.Sequential(convolution, nn.Flatten(2), nn.Conv1d(3, 4, 1))
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(8, 4))
        self.unused = nn.Linear(9, 9)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.3, momentum=0.9, weight_decay=1e-2)


def loader(dtype=torch.float64, batch_size=8):
    x, noisy, _ = make_tensors()
    return make_loader(IndexedDataset(TensorDataset(x.to(dtype), noisy)), batch_size)


def official(parameters, rate):
    """As the authors' code goes, with its threshold by ``topk``; returns the share of entries that learn."""
    chosen = [p for p in parameters if p.grad is not None and p.dim() in (2, 4)]
    metric = torch.cat([(p.grad * p.data).abs().view(-1) for p in chosen])
    threshold = metric.topk(int(round((1 - rate) * metric.numel(), 9))).values[-1]
    for p in chosen:
        p.grad *= ((p.data * p.grad).abs() >= threshold).to(p) * (1 - rate)
    return (metric >= threshold).double().mean().item()


def plain_run(module, rate=None, accumulate=1, clip=None, batch_size=8):
    """Weights after the same training without Lightning, in float64."""
    optimizer, shares = module.configure_optimizers(), []
    for _ in range(EPOCHS):
        for number, (x, y, _) in enumerate(loader(batch_size=batch_size), start=1):
            (module.criterion(module(x), y) / accumulate).backward()
            if number % accumulate == 0:
                if rate is not None:
                    shares.append(official(module.parameters(), rate))
                if clip is not None:
                    nn.utils.clip_grad_norm_(module.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
    return dict(module.state_dict()), shares


def assert_close(actual, expected):
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.45, 0.8])
def test_equals_the_official_algorithm(tmp_path, rate):
    module, twin = Convolutional(), Convolutional().double()
    make_trainer(tmp_path, [CDR(rate)], EPOCHS, precision="64-true").fit(module, loader())
    expected, shares = plain_run(twin, rate)
    assert_close(module.state_dict(), expected)
    assert shares == [pytest.approx(1 - rate, abs=1 / 50)] * 9


@pytest.mark.parametrize("options", [{"accumulate": 2}, {"clip": 0.05}, {"accumulate": 3, "clip": 0.1}])
def test_acts_on_the_whole_accumulated_gradient_and_before_clipping(tmp_path, options):
    accumulate, clip = options.get("accumulate", 1), options.get("clip")
    module, twin = Convolutional(), Convolutional().double()
    trainer = make_trainer(
        tmp_path, [CDR(0.4)], EPOCHS, precision="64-true", accumulate_grad_batches=accumulate, gradient_clip_val=clip
    )
    trainer.fit(module, loader(batch_size=4))
    assert_close(module.state_dict(), plain_run(twin, 0.4, accumulate, clip, batch_size=4)[0])


def test_a_rate_of_zero_changes_nothing(tmp_path):
    module, twin = Convolutional(), Convolutional()
    make_trainer(tmp_path, [CDR(0.0)]).fit(module, loader(torch.float32))
    make_trainer(tmp_path).fit(twin, loader(torch.float32))
    for name, value in twin.state_dict().items():
        assert torch.equal(module.state_dict()[name], value), name


def test_weights_that_are_not_critical_only_decay(tmp_path):
    class Watch(Callback):
        """Remembers what was there before a step, and the gradient that the optimizer got."""

        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            self.before = pl_module.classifier[1].weight.detach().clone()

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            self.gradient = pl_module.classifier[1].weight.grad.clone()

    class Plain(Convolutional):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.5, weight_decay=0.1)

    module, watch = Plain(), Watch()
    make_trainer(tmp_path, [CDR(0.6), watch], precision="64-true").fit(module, loader())
    dropped = watch.gradient == 0
    assert dropped.any()
    assert not dropped.all()
    after = module.classifier[1].weight.detach()
    torch.testing.assert_close(after[dropped], watch.before[dropped] * (1 - 0.5 * 0.1))
    assert (after != watch.before * (1 - 0.5 * 0.1))[~dropped].all()


class TwoOptimizers(ForeignModule):
    def __init__(self):
        torch.manual_seed(2)
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), lr=0.2) for part in (self.body, self.classifier)]

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(self.criterion(self(batch[0]), batch[1]))
        for optimizer in self.optimizers():
            optimizer.step()


def test_each_optimizer_has_its_own_threshold(tmp_path):
    module, twin = TwoOptimizers(), TwoOptimizers().double()
    make_trainer(tmp_path, [CDR(0.7)], EPOCHS, precision="64-true").fit(module, loader())
    optimizers = twin.configure_optimizers()
    for _ in range(EPOCHS):
        for x, y, _ in loader():
            twin.zero_grad()
            twin.criterion(twin(x), y).backward()
            for part, optimizer in zip((twin.body, twin.classifier), optimizers, strict=True):
                official(part.parameters(), 0.7)
                optimizer.step()
    assert_close(module.state_dict(), twin.state_dict())


def test_masked_edges_and_cdr_go_together(tmp_path):
    class Watch(Callback):
        def __init__(self):
            self.gradients = []

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            self.gradients.append((pl_module.classifier.weight.grad.clone(), pl_module.classifier.edge_mask.clone()))

    watch = Watch()
    make_trainer(tmp_path, [MaskRefresh("classifier", ratio=0.5), CDR(0.5), watch]).fit(
        ForeignModule(), loader(torch.float32)
    )
    for gradient, mask in watch.gradients:
        assert not gradient[mask == 0].any()
        assert gradient.any()


def test_the_rate_can_be_scheduled(tmp_path):
    class Watch(Callback):
        def __init__(self):
            self.rates = []

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            self.rates.append(trainer.callbacks[1].noise_rate)

    watch = Watch()
    callbacks = [CDR(0.4), ParameterSchedule("CDR.noise_rate", 0.0, 0.4), watch]
    make_trainer(tmp_path, callbacks, max_epochs=2).fit(ForeignModule(), loader(torch.float32))
    assert watch.rates == [0.0] * 3 + [0.2] * 3


def test_a_schedule_that_leaves_the_range_is_refused(tmp_path):
    """A factor 1 - 1.5 would turn the gradients round."""
    callbacks = [CDR(0.4), ParameterSchedule("CDR.noise_rate", 0.0, 3.0)]
    with pytest.raises(NoisyLabelError, match=r"`noise_rate` to be a float in \[0, 1\), but got 1\.5"):
        make_trainer(tmp_path, callbacks, max_epochs=2).fit(ForeignModule(), loader(torch.float32))


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_trains_in_half_precision(tmp_path, precision):
    dtype = torch.bfloat16 if precision == "bf16-true" else torch.float32
    module, kept = ForeignModule(), []

    class Watch(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            gradients = [p.grad for p in pl_module.parameters() if p.ndim == 2]
            kept.append(sum(int((gradient != 0).sum()) for gradient in gradients))

    make_trainer(tmp_path, [CDR(0.75), Watch()], precision=precision).fit(module, loader(dtype))
    assert all(p.isfinite().all() for p in module.parameters())
    entries = sum(p.numel() for p in module.parameters() if p.ndim == 2)
    assert len(kept) == 6
    assert all(0 < count <= entries / 4 + 8 for count in kept)  # some tie


class Scaled(ForeignModule):
    """Its gradient overflows in one batch."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * (math.inf if self.global_step == 1 else 1.0)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_gradients_are_unscaled_and_a_step_that_overflows_is_skipped(tmp_path):
    class Watch(Callback):
        def __init__(self):
            self.weights, self.gradients = [], []

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            self.gradients.append(pl_module.classifier.weight.grad.clone())

        def on_train_batch_end(self, trainer, pl_module, *_):
            self.weights.append(pl_module.classifier.weight.detach().clone())

    runs = []
    for scale in (1.0, 2.0**10):
        torch.manual_seed(0)
        watch = Watch()
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        trainer = make_trainer(
            tmp_path, [CDR(0.5), watch], plugins=[MixedPrecision("16-mixed", "cpu", scaler)], max_epochs=1
        )
        trainer.fit(Scaled(), loader(torch.float32))
        runs.append(watch)
    for watch in runs:
        assert torch.equal(watch.weights[0], watch.weights[1])
        assert not torch.equal(watch.weights[1], watch.weights[2])
        assert not watch.gradients[1].isfinite().all()
    torch.testing.assert_close(runs[0].gradients[0], runs[1].gradients[0], rtol=1e-2, atol=1e-4)


def test_without_a_gradient_there_is_nothing_to_do(tmp_path):
    class Idle(ForeignModule):
        def training_step(self, batch, batch_idx):
            return None

    module = Idle()
    before = copy.deepcopy(module.state_dict())
    make_trainer(tmp_path, [CDR(0.5)]).fit(module, loader(torch.float32))
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)


def test_a_sparse_gradient_is_refused_by_name(tmp_path):
    class Sparse(ForeignModule):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(4, 6, sparse=True)

        def training_step(self, batch, batch_idx):
            return self.criterion(self(batch[0] + self.words(batch[1])), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    with pytest.raises(NoisyLabelError, match=r"sparse gradient of `words\.weight`.*sparse=False") as caught:
        make_trainer(tmp_path, [CDR(0.5)]).fit(Sparse(), loader(torch.float32))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("strategy", SHARDING)
def test_strategies_that_shard(strategy):
    trainer = SimpleNamespace(strategy=strategy.__new__(strategy))
    with pytest.raises(NoisyLabelError, match=rf"CDR cannot rank .* under {strategy.__name__}, .*strategy='ddp'"):
        CDR(0.5).on_fit_start(trainer, ForeignModule())


def test_nothing_is_saved_or_copied_and_memory_is_given_back(tmp_path):
    copies = []

    class Copier(Callback):
        def on_train_batch_end(self, trainer, *_):
            copies.append(copy.deepcopy(trainer.callbacks[0]))

    callback = CDR(0.3)
    trainer = make_trainer(tmp_path, [callback, Copier()], precision="64-true")
    trainer.fit(Convolutional(), loader())
    assert callback.state_dict() == {}
    assert all(twin._scratch is None for twin in [*copies, callback])
    module, twin = Convolutional(), Convolutional()
    for again, trained in ((callback, module), (copies[0], twin)):  # another dtype than before
        make_trainer(tmp_path, [again]).fit(trained, loader(torch.float32))
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), twin.parameters(), strict=True))


def test_one_number_of_scores_serves_several_optimizers(tmp_path):
    """The larger optimizer's memory serves the smaller one, whose scores must not see what lies beyond."""
    callback, shares = CDR(0.5), []
    module = TwoOptimizers()

    class Watch(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            (group,) = optimizer.param_groups
            gradients = torch.cat([p.grad.flatten() for p in group["params"] if p.ndim == 2])
            shares.append((gradients != 0).double().mean().item())

    make_trainer(tmp_path, [callback, Watch()], precision="64-true").fit(module, loader())
    assert F.relu(torch.tensor(shares) - 0.5).max() == 0
    assert max(shares) > 0.4


def test_scores_of_one_optimizer_are_double_though_those_of_another_are_single():
    callback, module = CDR(0.5), nn.ModuleList([nn.Linear(3, 3).float(), nn.Linear(2, 1).double()])
    for layer in module:
        nn.init.ones_(layer.weight)
        layer.weight.grad = torch.ones_like(layer.weight)
    module[1].weight.grad[0, 1] += 1e-12  # float32 would see a tie
    for layer in module:
        callback.on_before_optimizer_step(None, module, torch.optim.SGD(layer.parameters(), lr=0.1))
    assert (module[0].weight.grad == 0.5).all()
    assert (module[1].weight.grad != 0).tolist() == [[False, True]]
