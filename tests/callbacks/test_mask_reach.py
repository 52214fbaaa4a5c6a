"""Masks where a batch has several steps and a classifier is a convolution; and masks that would act on nothing."""

import warnings

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_noisy import NoisyLabelError
from lightning_noisy.callbacks import SELC, MaskRefresh
from lightning_noisy.data import IndexedDataset
from tests.callbacks.test_mask_refresh import (
    CLASSES,
    EVERY_HEAD,
    FEATURES,
    RATIO,
    Module,
    Spy,
    assert_masks,
    changes,
    data,
    fit,
)
from tests.foreign import ForeignModule, make_tensors, make_trainer


class SeveralSteps(Module):
    """Two optimizer steps a batch, each with two passes."""

    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for _ in range(2):
            self.optimizers().zero_grad()
            for _ in range(2):
                self.manual_backward(self.losses(*batch))
            with torch.no_grad():
                self.losses(*batch)
            self.optimizers().step()


@pytest.mark.parametrize("every_n_steps", [1, 2, 3])
@pytest.mark.parametrize("score", ["std", "obd", "gradient", "magnitude"])
def test_each_step_of_a_batch_has_its_mask(tmp_path, score, every_n_steps):
    spy, callback = Spy(), MaskRefresh(EVERY_HEAD, RATIO, score=score, every_n_steps=every_n_steps)
    fit(tmp_path, SeveralSteps(), [callback, spy], max_epochs=1)
    assert_masks(spy, score, every_n_steps=every_n_steps)
    for passes in spy.passes.values():
        assert [one.step for one in passes] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    if every_n_steps != 2:
        assert any(step % 2 for passes in spy.passes.values() for step in changes(passes))


class CompiledFunction(Module):
    """Calls its heads inside a function that is compiled, which no module tells."""

    def __init__(self):
        super().__init__(("linear", "kan"))
        self.compiled = torch.compile(super().forward, backend="eager")

    def forward(self, x):
        return self.compiled(x)


@pytest.mark.slow
@pytest.mark.parametrize("score", ["std", "gradient", "magnitude"])
def test_heads_in_a_compiled_function_are_masked(tmp_path, score):
    torch._dynamo.reset()
    spy = Spy()
    fit(tmp_path, CompiledFunction(), [MaskRefresh(["heads.linear", "heads.kan"], RATIO, score=score), spy])
    assert_masks(spy, score)


class Convolutional(LightningModule):
    """A classifier of positions, averaged; or the same as a linear layer."""

    def __init__(self, convolution, head=None):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Conv2d(2, FEATURES, 2)
        self.head = head or nn.Conv2d(FEATURES, CLASSES, 1)
        if not convolution:
            weight, bias = self.head.weight.detach(), self.head.bias.detach()
            self.head = nn.Linear(FEATURES, CLASSES)
            self.head.load_state_dict({"weight": weight.flatten(1), "bias": bias})
        self.seen = []

    def forward(self, x):
        maps = self.body(x).tanh()
        if isinstance(self.head, nn.Conv2d):
            return self.head(maps).mean(dim=(2, 3))
        return self.head(maps.movedim(1, -1)).mean(dim=(1, 2))

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.seen.append(self.head.edge_mask.clone())
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


@pytest.mark.parametrize("granularity", ["node", "edge"])
@pytest.mark.parametrize("score", ["std", "obd", "gradient", "magnitude", "random"])
def test_a_pointwise_convolution_is_masked_as_the_linear_layer_that_it_is(tmp_path, score, granularity):
    images = torch.randn(12, 2, 4, 3, generator=torch.Generator().manual_seed(1))
    loader = DataLoader(TensorDataset(images, torch.arange(12) % CLASSES), 4)
    modules = Convolutional(True).double(), Convolutional(False).double()
    for module in modules:
        callback = MaskRefresh("head", RATIO, score=score, granularity=granularity)
        make_trainer(tmp_path, [callback], precision="64-true").fit(module, loader)
    convolution, linear = modules
    assert type(convolution.head) is nn.Conv2d
    assert torch.stack(convolution.seen).sum() < CLASSES * FEATURES * len(convolution.seen)
    for one, other in zip(convolution.seen, linear.seen, strict=True):
        assert torch.equal(one, other)
    torch.testing.assert_close(convolution.head.weight.flatten(1), linear.head.weight)
    torch.testing.assert_close(convolution.body.weight, linear.body.weight)


class Unused(Module):
    """Uses the weight of its first head, and its second head not at all."""

    def losses(self, x, y):
        head = self.heads["linear"]
        return F.cross_entropy(F.linear(self.body(x), head.weight, head.bias), y)


@pytest.mark.parametrize("head", ["heads.linear", "heads.kan"])
@pytest.mark.parametrize("options", [{"score": "std"}, {"score": "gradient"}, {"score": "magnitude"}])
def test_a_head_that_is_never_called_is_said_at_once_and_refused_at_the_end(tmp_path, head, options):
    line = rf"^No training step has called `{head}`, so its mask acted on nothing: name the layer .*$"
    with (
        pytest.warns(UserWarning, match=f"^The first training step has not called `{head}`: its mask waits until"),
        pytest.raises(NoisyLabelError, match=line),
    ):
        fit(tmp_path, Unused(), [MaskRefresh(head, **options)])


def test_a_head_whose_forward_is_called_directly_is_called(tmp_path):
    class Direct(Module):
        def forward(self, x):
            features = self.body(x)
            return [head.forward(features) for head in self.heads.values()]

    fit(tmp_path, Direct(), [MaskRefresh(EVERY_HEAD)])


def warned(folder, module, callback):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(folder, module, [callback])
    return [str(one.message) for one in caught if "dge" in str(one.message)]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            {"ratio": 0.1},
            "drops nothing of `heads.linear`: floor(0.1 x 5) is 0 edges of an input; use a ratio of at least",
        ),
        (
            {"ratio": 0.01, "granularity": "edge"},
            "floor(0.01 x 35) is 0 edges of the head; use a ratio of at least 0.029",
        ),
        ({"ratio": 0.2}, None),
        ({"ratio": 0.0}, None),
    ],
)
def test_a_ratio_that_drops_nothing_is_said(tmp_path, options, line):
    lines = warned(tmp_path, Module(("linear",)), MaskRefresh("heads.linear", **options))
    assert len(lines) == (line is not None)
    assert line is None or line in lines[0]


def test_a_tied_weight_is_said(tmp_path):
    tied, plain = Module(("linear",)), Module(("linear",))
    tied.embedding = nn.Embedding(CLASSES, FEATURES)
    tied.embedding.weight = tied.heads["linear"].weight
    tied.alias = tied.heads["linear"]
    (line,) = warned(tmp_path, tied, MaskRefresh("heads.linear"))
    assert "`heads.linear` is also that of `embedding`: masked edges keep the gradient" in line
    assert not warned(tmp_path, plain, MaskRefresh("heads.linear"))


def test_always_without_a_mask_is_said(tmp_path):
    trainer = make_trainer(tmp_path, [MaskRefresh("heads.linear", apply_in="always")])
    with pytest.warns(UserWarning, match="has no mask to apply"):
        trainer.test(Module(), DataLoader(data(6), 6), verbose=False)


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.criterion = nn.Linear(6, 4), nn.CrossEntropyLoss()

    def forward(self, x, target):
        return self.criterion(self.head(x), target)


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize(
    ("callback", "name"),
    [(lambda n: MaskRefresh(f"{n}.head"), "head"), (lambda n: SELC(criterion=f"{n}.criterion"), "criterion")],
)
def test_what_lies_in_a_compiled_module_is_refused(tmp_path, callback, name, in_place):
    module = ForeignModule()
    module.inner = nn.Sequential(Inner())
    path = "inner.0" if in_place else "inner._orig_mod.0"
    if in_place:
        module.inner.compile(backend="eager")
    else:
        module.inner = torch.compile(module.inner, backend="eager")
    x, given, _ = make_tensors()
    with pytest.raises(NoisyLabelError, match=rf"^`inner`, which `{path}.{name}` lies in, is compiled, .*$"):
        make_trainer(tmp_path, [callback(path)]).fit(module, DataLoader(IndexedDataset(TensorDataset(x, given)), 8))
