"""Masks of every score, granularity and head in training, against the formulas over all activations in float64."""

import copy
import itertools
import math
import warnings
from dataclasses import dataclass, field

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_noisy import NoisyLabelError
from lightning_noisy.callbacks import MaskRefresh, ParameterSchedule
from lightning_noisy.heads import CosineHead, KANHead, LinearHead
from tests.foreign import make_trainer

warnings.filterwarnings("ignore", ".*does not have many workers.*")

INPUTS, FEATURES, CLASSES = 6, 7, 5
RATIO = 0.5
DROPPED = {"node": 2, "edge": 17}  # of 5 edges of an input, and of 35 of the head
SCORES = ("std", "activation", "obd", "gradient", "magnitude", "signed")


class EfficientKAN(nn.Module):
    """efficient-kan's layer by attribute names and formula; knows nothing of the package."""

    def __init__(self, in_features, out_features, grid_size=5, spline_order=3, scaler=True, activation=nn.SiLU):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.grid_size, self.spline_order = grid_size, spline_order
        step = 2 / grid_size
        knots = torch.arange(-spline_order, grid_size + spline_order + 1) * step - 1
        self.register_buffer("grid", knots.expand(in_features, -1).contiguous())
        self.base_weight = nn.Parameter(0.4 * torch.randn(out_features, in_features))
        self.spline_weight = nn.Parameter(torch.randn(out_features, in_features, grid_size + spline_order))
        if scaler:
            self.spline_scaler = nn.Parameter(0.4 * torch.randn(out_features, in_features))
        self.enable_standalone_scale_spline = scaler
        self.base_activation = activation()

    def b_splines(self, x):
        x, grid = x.unsqueeze(-1), self.grid
        bases = ((x >= grid[:, :-1]) & (x < grid[:, 1:])).to(x.dtype)
        for k in range(1, self.spline_order + 1):
            left = (x - grid[:, : -(k + 1)]) / (grid[:, k:-1] - grid[:, : -(k + 1)])
            right = (grid[:, k + 1 :] - x) / (grid[:, k + 1 :] - grid[:, 1:-k])
            bases = left * bases[:, :, :-1] + right * bases[:, :, 1:]
        return bases

    def forward(self, x):
        scaled = self.spline_weight
        if self.enable_standalone_scale_spline:
            scaled = scaled * self.spline_scaler.unsqueeze(-1)
        base = F.linear(self.base_activation(x), self.base_weight)
        return base + F.linear(self.b_splines(x).flatten(1), scaled.flatten(1))


HEADS = {
    "linear": lambda: nn.Linear(FEATURES, CLASSES),
    "cosine": lambda: CosineHead(FEATURES, CLASSES, temperature=4.0),
    "kan": lambda: KANHead(FEATURES, CLASSES, grid_size=4, spline_order=2, scale_noise=4.0),
    "efficient": lambda: EfficientKAN(FEATURES, CLASSES),
}
EVERY_HEAD = [f"heads.{name}" for name in HEADS]


class Module(LightningModule):
    """Features without ties, and the sum of the losses of several heads."""

    def __init__(self, heads=tuple(HEADS), lr=0.8, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Linear(INPUTS, FEATURES), nn.Tanh())
        self.heads = nn.ModuleDict({name: HEADS[name]() for name in heads})
        self.lr = lr

    def forward(self, x):
        features = self.body(x)
        return [head(features) for head in self.heads.values()]

    def losses(self, x, y):
        return torch.stack([F.cross_entropy(logits, y) for logits in self(x)]).sum()

    def training_step(self, batch, batch_idx):
        return self.losses(*batch)

    def validation_step(self, batch, batch_idx):
        self.losses(*batch)

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def data(num_samples=18, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(num_samples, INPUTS, generator=generator)
    return TensorDataset(x.to(dtype), torch.randint(CLASSES, (num_samples,), generator=generator))


def fit(folder, module, callbacks, batch_size=6, dataset=None, validate=False, **options):
    loader = DataLoader(dataset or data(), batch_size)
    trainer = make_trainer(folder, callbacks, **options)
    trainer.fit(module, loader, DataLoader(data(6), 6) if validate else None)
    return trainer


def textbook_splines(x, knots, order):
    """Each spline of each point by the definition; x (B, D) and knots (D, n) in float64 give (B, n - order - 1, D)."""

    def spline(k, d):
        t = knots[:, k : k + d + 2]
        if d == 0:
            return ((x >= t[:, 0]) & (x < t[:, 1])).double()
        rising = (x - t[:, 0]) / (t[:, d] - t[:, 0]) * spline(k, d - 1)
        return rising + (t[:, d + 1] - x) / (t[:, d + 1] - t[:, 1]) * spline(k + 1, d - 1)

    return torch.stack([spline(k, order) for k in range(knots.shape[1] - order - 1)], dim=1)


def textbook(head, features):
    """Basis (B, F, D) and coefficients (K, F, D) of a head, in float64, without a line of the package."""
    x = features.detach().double()
    values = {
        name: value.detach().double().clone() for name, value in (*head.named_parameters(), *head.named_buffers())
    }
    if hasattr(head, "temperature"):
        weight = values["weight"]
        length = weight.square().sum(dim=1, keepdim=True).sqrt()
        return (x / x.square().sum(dim=1, keepdim=True).sqrt()).unsqueeze(1), head.temperature * (weight / length)[
            :, None
        ]
    if "grid" in values:
        splines = textbook_splines(x, values["grid"], head.spline_order)
        basis = torch.cat([splines, (x / (1 + (-x).exp())).unsqueeze(1)], dim=1)
        scaled = values["spline_weight"] * values["spline_scaler"].unsqueeze(2)
        return basis, torch.cat([scaled, values["base_weight"].unsqueeze(2)], dim=2).transpose(1, 2)
    return x.unsqueeze(1), values["weight"].unsqueeze(1)


@dataclass
class Pass:
    """One training forward pass of a head, as hooks saw it."""

    step: int
    epoch: int
    basis: torch.Tensor
    coefficients: torch.Tensor
    bias: torch.Tensor
    mask: torch.Tensor
    output: torch.Tensor
    slope: torch.Tensor = field(default=None)
    gradients: dict = field(default_factory=dict)

    def logits(self, mask=1.0, coefficients=None):
        coefficients = self.coefficients if coefficients is None else coefficients
        activations = torch.einsum("bfi,kfi->bki", self.basis, coefficients)
        return (activations * mask).sum(dim=2) + self.bias

    def dense_gradient(self):
        """By autograd through the head without a mask, at the gradient of the logits that was seen."""
        coefficients = self.coefficients.clone().requires_grad_()
        self.logits(coefficients=coefficients).backward(self.slope.double())
        return coefficients.grad

    def scores(self, score, earlier_gradient=None):
        coefficients = self.coefficients
        activations = torch.einsum("bfi,kfi->bki", self.basis, coefficients)
        if score == "std":
            return activations.var(dim=0, correction=0).sqrt()
        if score == "activation":
            return activations.square().mean(dim=0).sqrt()
        if score == "obd":
            p = self.logits().softmax(dim=1)
            return 0.5 * (p * (1 - p)).unsqueeze(2).mul(activations.square()).mean(dim=0)
        if score == "gradient":
            return (coefficients * earlier_gradient).sum(dim=1).abs()
        return coefficients.square().sum(dim=1).sqrt() if score == "magnitude" else coefficients.sum(dim=1)


class Spy(Callback):
    """Every training forward pass with gradients, by head; and the parameters' gradients of the last before a step."""

    def __init__(self):
        self.passes = {}
        self._handles = []

    def on_fit_start(self, trainer, pl_module):
        for name, head in pl_module.heads.items():
            passes = self.passes.setdefault(name, [])

            def note(head, args, output, passes=passes):
                if not torch.is_grad_enabled():
                    return
                bias, mask = getattr(head, "bias", None), getattr(head, "edge_mask", None)
                seen = Pass(
                    trainer.global_step,
                    trainer.current_epoch,
                    *textbook(head, args[0]),
                    torch.zeros(CLASSES).double() if bias is None else bias.detach().double().clone(),
                    None if mask is None else mask.clone(),
                    output.detach().clone(),
                )
                output.register_hook(lambda gradient: setattr(seen, "slope", gradient.clone()))
                passes.append(seen)

            self._handles.append(head.register_forward_hook(note))

    def on_after_backward(self, trainer, pl_module):
        for name, head in pl_module.heads.items():
            found = {key: value.grad.clone() for key, value in head.named_parameters() if value.grad is not None}
            if found:
                self.passes[name][-1].gradients = found

    def teardown(self, trainer, pl_module, stage):
        for handle in self._handles:
            handle.remove()


def sorted_mask(scores, granularity="node", drop="unimportant", ratio=RATIO):
    """The lowest scores of each input, or of the head, out by sorting; of equal ones the lower output, then input."""
    sign = 1 if drop == "unimportant" else -1
    edges = [(sign * scores[o, i].item(), o, i) for o in range(len(scores)) for i in range(scores.shape[1])]
    groups = [[edge for edge in edges if edge[2] == i] for i in range(scores.shape[1])]
    mask = torch.ones(scores.shape)
    for group in groups if granularity == "node" else [edges]:
        for _, o, i in sorted(group)[: math.floor(ratio * len(group))]:
            mask[o, i] = 0.0
    return mask


def expected_masks(passes, score, granularity="node", drop="unimportant", every_n_steps=1, every_n_epochs=None):
    """The masks of all passes of a head, in order."""
    masks, period, gradients = [], None, {}
    for one in passes:
        now = one.step // every_n_steps if every_n_epochs is None else one.epoch // every_n_epochs
        if now != period:
            earlier = [gradient for step, gradient in gradients.items() if step < one.step]
            first = score == "gradient" and not earlier
            scores = None if first else one.scores(score, *earlier[-1:])
            mask = torch.ones(CLASSES, FEATURES) if first else sorted_mask(scores, granularity, drop)
            period = now
        masks.append(mask)
        gradients[one.step] = gradients.get(one.step, 0) + one.dense_gradient()
    return masks


def assert_masks(spy, *args, **options):
    for name, passes in spy.passes.items():
        for position, (one, mask) in enumerate(zip(passes, expected_masks(passes, *args, **options), strict=True)):
            assert torch.equal(one.mask.float(), mask), (name, position)
            torch.testing.assert_close(one.output.double(), one.logits(mask.double()), rtol=1e-4, atol=1e-5)


def changes(passes):
    return [b.step for a, b in itertools.pairwise(passes) if not torch.equal(a.mask, b.mask)]


@pytest.mark.parametrize("drop", ["unimportant", "important"])
@pytest.mark.parametrize("granularity", ["node", "edge"])
@pytest.mark.parametrize("score", SCORES)
def test_every_step_has_the_mask_of_its_scores(tmp_path, score, granularity, drop):
    spy, callback = Spy(), MaskRefresh(EVERY_HEAD, RATIO, score=score, granularity=granularity, drop=drop)
    fit(tmp_path, Module(), [callback, spy])
    assert [len(passes) for passes in spy.passes.values()] == [6] * len(HEADS)
    assert_masks(spy, score, granularity, drop)
    for passes in spy.passes.values():
        for one in passes[1:] if score == "gradient" else passes:
            dropped = one.mask == 0
            counts = dropped.sum(dim=0).tolist() if granularity == "node" else [dropped.sum().item()]
            assert set(counts) == {DROPPED[granularity]}
    assert any(changes(passes) for passes in spy.passes.values()), "no mask has ever changed: this test sees little"


@pytest.mark.parametrize("score", SCORES)
def test_dropped_edges_have_no_gradient_and_come_back(tmp_path, score):
    heads = ("linear", "kan", "efficient")  # in a cosine head an edge is also part of its row's length
    spy, callback = Spy(), MaskRefresh([f"heads.{name}" for name in heads], RATIO, score=score)
    fit(tmp_path, Module(heads), [callback, spy], max_epochs=4)
    for name, passes in spy.passes.items():
        for one in passes:
            kept = one.mask == 1
            for key, gradient in one.gradients.items():
                if key == "bias":
                    assert (gradient != 0).all()
                    continue
                assert (gradient[~kept] == 0).all(), key
                assert torch.equal((gradient != 0).flatten(2).any(2) if gradient.ndim == 3 else gradient != 0, kept), (
                    key
                )
        returned = [(a.mask == 0) & (b.mask == 1) for a, b in itertools.pairwise(passes)]
        assert torch.stack(returned).any(), name


RHYTHMS = [
    ("std", "edge", {}, 4),
    ("std", "node", {"every_n_steps": 3}, 1),
    ("obd", "node", {"every_n_steps": 2}, 2),
    ("activation", "edge", {"every_n_epochs": 2}, 1),
    ("magnitude", "node", {}, 4),
    ("gradient", "node", {}, 4),
    ("gradient", "edge", {"every_n_steps": 3}, 1),
    ("gradient", "node", {"every_n_steps": 3}, 4),
    ("gradient", "node", {"every_n_epochs": 2}, 4),
    ("gradient", "node", {"every_n_epochs": 1}, 1),
]


@pytest.mark.parametrize(("score", "granularity", "rhythm", "accumulated"), RHYTHMS)
def test_a_mask_stays_until_it_is_due(tmp_path, score, granularity, rhythm, accumulated):
    """Six batches an epoch: with four in a step, the second step of an epoch has two."""
    spy, callback = Spy(), MaskRefresh(EVERY_HEAD, RATIO, score=score, granularity=granularity, **rhythm)
    fit(tmp_path, Module(lr=0.4), [callback, spy], 3, accumulate_grad_batches=accumulated, max_epochs=5)
    steps = 5 * -(-6 // accumulated)
    period = rhythm.get("every_n_steps") or rhythm.get("every_n_epochs", 0) * steps // 5 or 1
    assert_masks(spy, score, granularity, **rhythm)
    for passes in spy.passes.values():
        assert len(passes) == 30
        assert passes[-1].step == steps - 1
        assert changes(passes)
        assert all(step % period == 0 for step in changes(passes))


class Stream(IterableDataset):
    """Has no length, so that only the loader knows its last batch."""

    def __iter__(self):
        return iter(data())


@pytest.mark.parametrize("dataset", [data(), Stream()])
@pytest.mark.parametrize("options", [{}, {"limit_train_batches": 5}, {"max_steps": 5, "max_epochs": -1}])
def test_the_last_step_of_an_epoch_counts_however_it_ends(tmp_path, dataset, options):
    spy, callback = Spy(), MaskRefresh(EVERY_HEAD, RATIO, score="gradient", every_n_epochs=1)
    fit(tmp_path, Module(), [callback, spy], 3, dataset, accumulate_grad_batches=2, **options)
    assert_masks(spy, "gradient", every_n_epochs=1)
    assert all(changes(passes) for passes in spy.passes.values())


class Views(Module):
    """Two views of each batch, after a pass without gradients."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        with torch.no_grad():
            for head in self.heads.values():
                head(3 * torch.randn(4, FEATURES))
        return self.losses(x, y) + 0.5 * self.losses(-x.flip(1), y)


class SharpnessAware(torch.optim.SGD):
    """Calls the closure twice: here and at perturbed weights."""

    def step(self, closure):
        with torch.enable_grad():
            closure()
        parameters = [p for group in self.param_groups for p in group["params"]]
        moves = [0.1 * p.grad for p in parameters]
        with torch.no_grad():
            for p, move in zip(parameters, moves, strict=True):
                p.add_(move)
        with torch.enable_grad():
            loss = closure()
        with torch.no_grad():
            for p, move in zip(parameters, moves, strict=True):
                p.sub_(move)
        super().step()
        return loss


class Sharp(Module):
    def configure_optimizers(self):
        return SharpnessAware(self.parameters(), lr=self.lr)


class Manual(Module):
    """Two optimizers, so that each batch counts two steps."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizers = self.optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(self.losses(*batch))
        for optimizer in optimizers:
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), lr=self.lr) for part in (self.body, self.heads)]


@pytest.mark.parametrize(("score", "granularity"), [("std", "edge"), ("obd", "node"), ("gradient", "node")])
@pytest.mark.parametrize(("make", "passes_a_batch"), [(Views, 2), (Sharp, 2), (Manual, 1)])
def test_later_passes_of_a_batch_keep_the_mask_of_the_first(tmp_path, make, passes_a_batch, score, granularity):
    spy, callback = Spy(), MaskRefresh(EVERY_HEAD, RATIO, score=score, granularity=granularity)
    trainer = fit(tmp_path, make(), [callback, spy])
    assert trainer.global_step == (12 if make is Manual else 6)
    assert_masks(spy, score, granularity)
    for passes in spy.passes.values():
        assert len(passes) == 6 * passes_a_batch
        for batch in zip(*[iter(passes)] * passes_a_batch, strict=True):
            assert all(torch.equal(one.mask, batch[0].mask) for one in batch)
        assert changes(passes)


@pytest.mark.parametrize("granularity", ["node", "edge"])
@pytest.mark.parametrize("score", [*SCORES, "random"])
@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_masks_come_from_the_weights_as_they_are(tmp_path, precision, score, granularity):
    heads = ("linear", "kan")
    spy, callback = Spy(), MaskRefresh([f"heads.{name}" for name in heads], RATIO, score=score, granularity=granularity)
    dtype = {"bf16-mixed": torch.float32, "bf16-true": torch.bfloat16, "64-true": torch.float64}[precision]
    fit(tmp_path, Module(heads), [callback, spy], dataset=data(dtype=dtype), precision=precision)
    for name, passes in spy.passes.items():
        assert {one.mask.dtype for one in passes} == {dtype}
        expected = [] if score == "random" else expected_masks(passes, score, granularity)
        for position, (one, mask) in enumerate(zip(passes, expected, strict=False)):
            wrong = (one.mask.float() != mask).sum().item()
            # Half precision rounds inside the head (activations of KAN, features of obd's logits): a near tie may turn.
            assert wrong <= (2 if precision == "bf16-true" else 0), (name, position)
        dropped = {(one.mask == 0).sum().item() for one in passes[1:]}
        assert dropped == {DROPPED[granularity] * (FEATURES if granularity == "node" else 1)}


@pytest.mark.parametrize("name", ["linear", "kan"])
@pytest.mark.parametrize("score", SCORES)
def test_scores_under_autocast_are_computed_in_float32(tmp_path, monkeypatch, score, name):
    """Among 6000 edges, bfloat16 would confuse about a dozen around the mask's edge."""
    monkeypatch.setitem(HEADS, name, {"linear": lambda: nn.Linear(60, 100), "kan": lambda: KANHead(60, 100)}[name])
    monkeypatch.setattr(f"{__name__}.CLASSES", 100)
    monkeypatch.setattr(f"{__name__}.FEATURES", 60)
    spy, callback = Spy(), MaskRefresh(f"heads.{name}", RATIO, score=score, granularity="edge")
    fit(tmp_path, Module((name,)), [callback, spy], precision="bf16-mixed", max_epochs=1)
    first, second, third = spy.passes[name]
    for one, before in ((second, first), (third, second)):
        scores = one.scores(score, before.dense_gradient())
        kept = one.mask == 1
        assert kept.sum() == 3000
        slack = 2e-5 * scores[kept].min().abs()
        assert scores[~kept].max() <= scores[kept].min() + slack


def random_masks(folder, monkeypatch, seed, heads, epochs=2, callbacks=1):
    monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))
    spy, module = Spy(), Module(("linear", "cosine", "kan"))
    groups = [heads] if callbacks == 1 else [[name] for name in heads]
    fit(folder, module, [*(MaskRefresh(group, RATIO, score="random") for group in groups), spy], max_epochs=epochs)
    return {
        name: torch.stack([one.mask for one in passes])
        for name, passes in spy.passes.items()
        if passes[0].mask is not None
    }


def test_random_masks_are_a_function_of_seed_step_and_head(tmp_path, monkeypatch):
    heads = ["heads.linear", "heads.cosine", "heads.kan"]
    masks = random_masks(tmp_path, monkeypatch, 3, heads, epochs=20)
    torch.manual_seed(99)
    for again in (
        random_masks(tmp_path, monkeypatch, 3, heads[::-1]),
        random_masks(tmp_path, monkeypatch, 3, heads, callbacks=3),
        random_masks(tmp_path, monkeypatch, 3, heads[1:2]),
    ):
        for name, seen in again.items():
            assert torch.equal(seen, masks[name][:6])
    assert not torch.equal(random_masks(tmp_path, monkeypatch, 4, heads)["kan"], masks["kan"][:6])
    for one, other in itertools.combinations(masks.values(), 2):
        assert not torch.equal(one[0], other[0])
    for seen in masks.values():
        assert (seen.sum(dim=1) == CLASSES - 2).all()
        assert len({tuple(mask.flatten().tolist()) for mask in seen}) == 60
        kept = seen.mean(dim=0)  # of 60 draws with probability 0.6: the deviation is 0.063
        assert kept.min() > 0.35
        assert kept.max() < 0.85


def test_a_resumed_run_keeps_its_seed(tmp_path, monkeypatch):
    def run(seed, **options):
        monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))
        spy = Spy()
        callback = MaskRefresh("heads.linear", RATIO, score="random")
        trainer = make_trainer(tmp_path, [callback, spy], **{"max_epochs": 2, **options.pop("trainer", {})})
        trainer.fit(Module(("linear",)), DataLoader(data(), 6), **options)
        return trainer, [one.mask for one in spy.passes["linear"]]

    _, whole = run(3)
    first, _ = run(3, trainer={"max_epochs": 1})
    first.save_checkpoint(tmp_path / "one.ckpt")
    _, resumed = run(4, ckpt_path=tmp_path / "one.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(whole[3:], resumed, strict=True))


@pytest.mark.parametrize(("score", "granularity"), [("std", "node"), ("obd", "edge"), ("random", "node")])
def test_the_ratio_is_read_at_each_renewal(tmp_path, score, granularity):
    ratios = [0.0, 0.21, 0.4, 0.6, 0.99, 0.2]

    class Move(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step + 1 < len(ratios):
                callback.ratio = ratios[trainer.global_step + 1]

    spy, callback = Spy(), MaskRefresh(EVERY_HEAD, ratios[0], score=score, granularity=granularity)

    class Before(Move):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            callback.ratio = ratios[trainer.global_step]

    fit(tmp_path, Module(), [Before(), callback, spy])
    for passes in spy.passes.values():
        if granularity == "edge":
            assert [(one.mask == 0).sum().item() for one in passes] == [math.floor(r * 35) for r in ratios]
        else:
            assert [set((one.mask == 0).sum(dim=0).tolist()) for one in passes] == [{math.floor(r * 5)} for r in ratios]


def test_a_schedule_moves_the_ratio_and_keeps_to_its_range(tmp_path):
    spy, callback = Spy(), MaskRefresh("heads.linear", 0.0)
    schedule = ParameterSchedule("MaskRefresh.ratio", 0.0, 0.8, total_epochs=4)
    fit(tmp_path, Module(("linear",)), [callback, schedule, spy], max_epochs=4)
    dropped = [(one.mask[:, 0] == 0).sum().item() for one in spy.passes["linear"]]
    assert dropped == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    with pytest.raises(NoisyLabelError, match=r"`ratio` to be a float in \[0, 1\), but got 1"):
        callback.ratio = 1


def snapshot(layer):
    """Everything that is seen of a layer."""
    attributes = {name: value for name, value in vars(layer).items() if not name.startswith("_")}
    hooks = {name: list(value) for name, value in vars(layer).items() if name.endswith("_hooks")}
    return (
        type(layer),
        list(vars(layer)),
        attributes,
        hooks,
        {name: id(value) for name, value in layer.named_parameters()},
    )


class Boom(Callback):
    def __init__(self, moment):
        self.moment = moment

    def on_train_batch_end(self, trainer, pl_module, *rest):
        if self.moment == "after" and trainer.global_step == 2:
            raise RuntimeError("boom")

    def on_after_backward(self, trainer, pl_module):
        if self.moment == "inside" and trainer.global_step == 2:
            raise RuntimeError("boom")

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.moment == "before" and trainer.global_step == 2:
            raise RuntimeError("boom")


@pytest.mark.parametrize("apply_in", ["train", "always"])
@pytest.mark.parametrize("moment", ["never", "before", "inside", "after"])
@pytest.mark.parametrize("score", ["std", "obd", "gradient"])
def test_layers_are_given_back_as_they_were(tmp_path, score, moment, apply_in):
    module = Module()
    seen = []
    module.heads["efficient"].register_forward_hook(lambda *args: seen.append(1))
    before = {name: snapshot(head) for name, head in module.heads.items()}
    keys = list(module.state_dict())
    callback = MaskRefresh(EVERY_HEAD, score=score, apply_in=apply_in)
    if moment == "never":
        trainer = fit(tmp_path, module, [callback], validate=True)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
        fresh = Module(seed=1)
        fresh.load_state_dict(checkpoint["state_dict"], strict=True)
        x = torch.randn(4, INPUTS)
        assert all(torch.equal(a, b) for a, b in zip(module(x), fresh(x), strict=True))
    else:
        with pytest.raises(RuntimeError, match="boom"):
            fit(tmp_path, module, [callback, Boom(moment)], validate=True)
    assert seen
    assert list(module.state_dict()) == keys
    for name, head in module.heads.items():
        assert snapshot(head) == before[name]


def test_nothing_stays_on_the_layer_between_batches(tmp_path):
    """Copies that others take there, and passes that they make there, are plain."""
    copies = []

    class Between(Callback):
        def on_train_batch_end(self, trainer, pl_module, *rest):
            for layer in pl_module.heads.values():
                assert not layer._forward_hooks
                assert layer.on_basis is None
                assert layer.edge_mask is None
            copies.append(copy.deepcopy(pl_module))
            x = torch.randn(4, INPUTS)
            before = trainer.callbacks[1].state_dict()
            for logits, again in zip(pl_module(x), copies[-1](x), strict=True):
                assert torch.equal(logits, again)
            assert repr(trainer.callbacks[1].state_dict()) == repr(before)

    for score, rhythm in (("obd", {}), ("gradient", {}), ("gradient", {"every_n_epochs": 1})):
        callbacks = [MaskRefresh(EVERY_HEAD, score=score, **rhythm), Between()]
        fit(tmp_path, Module(), callbacks, accumulate_grad_batches=2)
        fit(tmp_path, copies[-1], [MaskRefresh(EVERY_HEAD, score=score, **rhythm)])


def test_copies_taken_inside_a_batch_train_on_their_own(tmp_path):
    copies = []

    class Copier(Callback):
        def on_after_backward(self, trainer, pl_module):
            copies.append((copy.deepcopy(trainer.callbacks[1]), copy.deepcopy(pl_module)))

    for score in ("std", "gradient"):
        fit(tmp_path, Module(), [MaskRefresh(EVERY_HEAD, RATIO, score=score), Copier()])
        twin, module = copies[-1]
        spy = Spy()
        fit(tmp_path, Module(), [twin, spy])
        assert_masks(spy, score)
        module(torch.randn(4, INPUTS))[0].sum().backward()


class Aborting(Module):
    """Skips the rest of each epoch from its second batch on."""

    def on_train_batch_start(self, batch, batch_idx):
        return -1 if batch_idx == 1 else None

    def on_train_epoch_end(self):
        self.seen = [*getattr(self, "seen", []), *(head.edge_mask for head in self.heads.values())]


@pytest.mark.parametrize("score", ["std", "obd", "gradient"])
def test_a_skipped_batch_leaves_no_mask_behind(tmp_path, score):
    module = Aborting()
    fit(tmp_path, module, [MaskRefresh(EVERY_HEAD, score=score)], validate=True)
    assert module.seen == [None] * 8


class Idle(Module):
    """Calls its heads in odd batches only, but always has a loss."""

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) if batch_idx % 2 else self.body(batch[0]).sum()

    def validation_step(self, batch, batch_idx):
        with torch.inference_mode(mode=False), torch.enable_grad():
            self.losses(batch[0].clone(), batch[1].clone())


class Late(Module):
    """Calls its heads from the second batch on."""

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) if batch_idx else self.body(batch[0]).sum()


@pytest.mark.parametrize("score", ["obd", "magnitude"])
def test_masks_are_due_at_multiples_of_the_interval_also_after_a_late_one(tmp_path, score):
    spy, callback = Spy(), MaskRefresh(EVERY_HEAD, RATIO, score=score, every_n_steps=2)
    fit(tmp_path, Late(lr=4.0), [callback, spy], 3, max_epochs=1)
    for passes in spy.passes.values():
        assert [one.step for one in passes] == [1, 2, 3, 4, 5]
    assert_masks(spy, score, every_n_steps=2)
    assert any(changes(passes) == [2, 4] for passes in spy.passes.values())


class Silent(Module):
    """The second of three batches teaches nothing."""

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) * (batch_idx != 1)


@pytest.mark.parametrize("score", ["std", "obd", "gradient", "magnitude"])
def test_a_head_that_is_not_called_gets_its_mask_when_it_is(tmp_path, score):
    spy, callback = Spy(), MaskRefresh(EVERY_HEAD, RATIO, score=score)
    trainer = make_trainer(tmp_path, [callback, spy], val_check_interval=1)
    trainer.fit(Idle(), DataLoader(data(), 6), DataLoader(data(6), 6))
    for passes in spy.passes.values():
        trained = [one for one in passes if one.mask is not None]
        assert len(trained) == 2
        assert len(passes) == 2 + 6
        for one in trained:
            # No step before had a gradient of this head.
            expected = torch.ones(CLASSES, FEATURES) if score == "gradient" else sorted_mask(one.scores(score))
            assert torch.equal(one.mask, expected)


def test_a_step_without_a_gradient_is_followed_by_all_edges(tmp_path):
    spy = Spy()
    fit(tmp_path, Silent(), [MaskRefresh(EVERY_HEAD, RATIO, score="gradient"), spy])
    for passes in spy.passes.values():
        kept = [one.mask.sum().item() for one in passes]
        assert kept == [35, 21, 35, 21, 21, 35]


@pytest.mark.parametrize("score", ["std", "activation", "obd", "magnitude", "gradient", "signed"])
def test_a_head_that_starts_at_zero_learns_every_class(tmp_path, score):
    module = Module(("linear", "efficient"))
    for head in module.heads.values():
        for parameter in head.parameters():
            nn.init.zeros_(parameter)
    module.heads["efficient"].spline_scaler.data.fill_(1.0)
    spy = Spy()
    fit(tmp_path, module, [MaskRefresh(["heads.linear", "heads.efficient"], RATIO, score=score), spy], max_epochs=3)
    for passes in spy.passes.values():
        assert (passes[0].mask == 1).all()
        assert all((one.mask == 0).any() for one in passes[2:])
    assert (module.heads["linear"].weight != 0).all()
    assert (module.heads["efficient"].base_weight != 0).all()


def test_dead_features_of_a_batch_rank_by_their_weights(tmp_path):
    """A feature that is constant in a batch: std is zero for all of its edges, and the linear head ranks by weight."""

    class Dead(Module):
        def forward(self, x):
            features = self.body(x) * torch.tensor([0.0] + [1.0] * (FEATURES - 1))
            return [head(features) for head in self.heads.values()]

    for granularity in ("node", "edge"):
        spy = Spy()
        fit(tmp_path, Dead(), [MaskRefresh(EVERY_HEAD, RATIO, granularity=granularity), spy])
        for passes in spy.passes.values():
            for one in passes:
                if granularity == "edge":
                    assert (one.mask[:, 0] == 0).all()
                    assert (one.mask == 0).sum() == 17
                else:
                    assert torch.equal(one.mask[:, :1], sorted_mask(one.scores("magnitude")[:, :1]))


def test_two_callbacks_mask_two_heads_at_once(tmp_path):
    callbacks = [
        MaskRefresh("heads.linear", RATIO, score="obd", granularity="edge"),
        MaskRefresh(["heads.kan", "heads.efficient"], RATIO, score="gradient", drop="important"),
    ]
    spy = Spy()
    fit(tmp_path, Module(), [*callbacks, spy])
    assert len({callback.state_key for callback in callbacks}) == 2
    alone = {name: passes for name, passes in spy.passes.items() if name == "linear"}
    others = {name: passes for name, passes in spy.passes.items() if name in ("kan", "efficient")}
    spy.passes = alone
    assert_masks(spy, "obd", "edge")
    spy.passes = others
    assert_masks(spy, "gradient", drop="important")
    assert list(callbacks[1].heads) == ["heads.kan", "heads.efficient"]
    assert torch.equal(callbacks[1].mask, callbacks[1].heads["heads.kan"].mask)


def refusal(folder, module, *callbacks, **options):
    with pytest.raises(NoisyLabelError) as caught:
        fit(folder, module, callbacks, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_layers_that_cannot_be_masked_are_refused_and_others_given_back(tmp_path):
    plain = Module()
    plain.heads["scalerless"] = EfficientKAN(FEATURES, CLASSES, scaler=False)
    plain.heads["norm"] = nn.BatchNorm1d(FEATURES)
    before = {name: snapshot(head) for name, head in plain.heads.items()}
    line = refusal(tmp_path, plain, MaskRefresh(["heads.linear", "heads.efficient", "heads.scalerless"]))
    assert "cannot mask `heads.scalerless`, a EfficientKAN of tests: wanted an nn.Linear" in line
    assert "spline_scaler" in line
    assert "`heads.norm`, a BatchNorm1d" in refusal(tmp_path, plain, MaskRefresh(["heads.linear", "heads.norm"]))
    assert "no layer `heads.linea`" in refusal(tmp_path, plain, MaskRefresh(["heads.linear", "heads.linea"]))
    for name, head in plain.heads.items():
        assert snapshot(head) == before[name]


@pytest.mark.parametrize("make", [lambda: nn.Linear(FEATURES, CLASSES), lambda: EfficientKAN(FEATURES, CLASSES)])
def test_a_layer_is_masked_once(tmp_path, make):
    module = Module(("linear",))
    module.heads["tied"] = module.heads["again"] = make()
    plain = snapshot(module.heads["tied"])
    for callbacks in (
        [MaskRefresh(["heads.tied", "heads.again"])],
        [MaskRefresh("heads.again"), MaskRefresh(["heads.linear", "heads.tied"])],
    ):
        assert "is masked already" in refusal(tmp_path, module, *callbacks)
        assert snapshot(module.heads["tied"]) == plain
    fit(tmp_path, module, [MaskRefresh("heads.tied")])
    assert snapshot(module.heads["tied"]) == plain


def test_head_names_are_one_or_several_different_ones():
    for head in ([], ["a", "b", "a"]):
        with pytest.raises(NoisyLabelError, match="`head` to be one name, several different ones or None"):
            MaskRefresh(head)
    assert list(MaskRefresh(("a", "b")).heads) == ["a", "b"]


@pytest.mark.parametrize("apply_in", ["train", "always"])
def test_a_mask_of_another_shape_is_refused_by_name(tmp_path, apply_in):
    class Narrow(Module):
        def __init__(self):
            super().__init__(("linear", "kan"))

    class Wide(Narrow):
        def __init__(self):
            super().__init__()
            self.heads["kan"] = KANHead(FEATURES, CLASSES + 1, grid_size=4, spline_order=2)

        def on_load_checkpoint(self, checkpoint):
            checkpoint["state_dict"] = self.state_dict()

    heads = ["heads.linear", "heads.kan"]
    trainer = fit(tmp_path, Narrow(), [MaskRefresh(heads, apply_in=apply_in)], max_epochs=1)
    trainer.save_checkpoint(tmp_path / "narrow.ckpt")
    again = make_trainer(tmp_path, [MaskRefresh(heads, apply_in=apply_in)])
    for run in (again.fit, again.test) if apply_in == "always" else (again.fit,):
        with pytest.raises(NoisyLabelError, match=r"mask of `heads\.kan` has shape \(5, 7\), the layer \(6, 7\)"):
            run(Wide(), DataLoader(data(), 6), ckpt_path=tmp_path / "narrow.ckpt")


def test_a_callback_starts_afresh_with_a_model_of_another_shape(tmp_path):
    callback = MaskRefresh("heads.linear", RATIO, score="gradient", every_n_steps=100, apply_in="always")
    fit(tmp_path, Module(("linear",)), [callback], max_epochs=1)
    wide, spy = Module(("linear",)), Spy()
    wide.heads["linear"] = nn.Linear(FEATURES, CLASSES + 2)
    fit(tmp_path, wide, [callback], validate=True, num_sanity_val_steps=1)
    assert callback.mask.shape == (CLASSES + 2, FEATURES)
    fit(tmp_path, Module(("linear",)), [callback, spy])
    assert (spy.passes["linear"][0].mask == 1).all()


@pytest.mark.parametrize(("score", "every_n_steps"), [("std", 1), ("obd", 4), ("gradient", 1), ("random", 4)])
def test_always_masks_validation_and_test_with_the_mask_of_the_last_step(tmp_path, score, every_n_steps):
    class Evaluated(Module):
        def validation_step(self, batch, batch_idx):
            masks = [head.edge_mask.clone() for head in self.heads.values()]
            assert {mask.dtype for mask in masks} == {torch.float32}
            self.seen = [*getattr(self, "seen", []), (self.trainer.global_step, masks)]
            features = self.body(batch[0])
            for head, mask, logits in zip(self.heads.values(), masks, self(batch[0]), strict=True):
                basis, coefficients = textbook(head, features)
                bias = getattr(head, "bias", None)
                expected = torch.einsum("bfi,kfi->bk", basis, coefficients * mask.unsqueeze(1))
                torch.testing.assert_close(
                    logits.double() - (0 if bias is None else bias), expected, rtol=1e-4, atol=1e-5
                )

        test_step = validation_step

        def on_train_epoch_end(self):
            assert all(head.edge_mask is not None for head in self.heads.values())

    spy, callback = Spy(), MaskRefresh(EVERY_HEAD, RATIO, every_n_steps, score=score, apply_in="always")
    module = Evaluated()
    trainer = make_trainer(tmp_path, [callback, spy], val_check_interval=2, num_sanity_val_steps=0)
    trainer.fit(module, DataLoader(data(), 6), DataLoader(data(6), 6))
    last = {
        (passes[0].step, name): passes[-1].mask
        for name, whole in spy.passes.items()
        for _, group in itertools.groupby(whole, key=lambda one: one.step)
        for passes in [list(group)]
    }
    assert [step for step, _ in module.seen] == [2, 5]
    for step, masks in module.seen:
        for name, mask in zip(HEADS, masks, strict=True):
            assert torch.equal(mask, last[step - 1, name])
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    fresh = Evaluated()
    make_trainer(tmp_path, [MaskRefresh(EVERY_HEAD, apply_in="always")]).test(
        fresh, DataLoader(data(6), 6), ckpt_path=tmp_path / "last.ckpt"
    )
    ((_, masks),) = fresh.seen
    for name, mask in zip(HEADS, masks, strict=True):
        assert torch.equal(mask, last[5, name])
    assert type(fresh.heads["linear"]) is nn.Linear
    assert type(fresh.heads["efficient"]) is EfficientKAN


@pytest.mark.parametrize("score", ["std", "gradient"])
def test_training_goes_on_after_a_test(tmp_path, score):
    spy, callback = Spy(), MaskRefresh(EVERY_HEAD, RATIO, 4, score=score, apply_in="always")
    module = Module()
    trainer = fit(tmp_path, module, [callback, spy], max_epochs=1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    trainer.test(module, DataLoader(data(6), 6), tmp_path / "one.ckpt", verbose=False)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, DataLoader(data(), 6))
    for name in HEADS:
        whole = [one for one in spy.passes[name] if one.slope is not None]
        assert [one.step for one in whole] == [0, 1, 2, 3, 4, 5]
        for one in whole[:3]:
            assert torch.equal(whole[3].mask, one.mask)
    spy.passes = {name: [one for one in passes if one.slope is not None] for name, passes in spy.passes.items()}
    assert_masks(spy, score, every_n_steps=4)


def test_the_real_efficient_kan_is_masked(tmp_path):
    kan = pytest.importorskip("efficient_kan")
    module = Module(("efficient",))
    module.heads["efficient"] = kan.KANLinear(FEATURES, CLASSES)
    before, spy = snapshot(module.heads["efficient"]), Spy()
    fit(tmp_path, module, [MaskRefresh("heads.efficient", RATIO), spy])
    assert_masks(spy, "std")
    assert snapshot(module.heads["efficient"]) == before


def test_a_masked_foreign_kan_computes_what_the_plain_one_does(tmp_path):
    """With nothing dropped, training under the callback is training without it."""
    plain, masked = Module(("efficient",)), Module(("efficient",))
    fit(tmp_path, plain, [])
    fit(tmp_path, masked, [MaskRefresh("heads.efficient", 0.0)])
    for (name, one), other in zip(plain.state_dict().items(), masked.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=name)


def test_a_linear_head_of_the_package_and_a_plain_layer_get_the_same_masks(tmp_path):
    ours, plain = Module(("linear",)), Module(("linear",))
    state = plain.heads["linear"].state_dict()
    ours.heads["linear"] = LinearHead(FEATURES, CLASSES)
    ours.heads["linear"].load_state_dict(state)
    for module in (ours, plain):
        fit(tmp_path, module, [MaskRefresh("heads.linear", RATIO, score="obd")])
    for one, other in zip(ours.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(one, other)
