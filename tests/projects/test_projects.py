"""Callbacks on the modules of other projects: they fit, act exactly, resume, load strictly and leave nothing behind."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection

from lightning_noisy.callbacks import SELC, ConfidenceTracker, GradientSwitching, MaskRefresh, StepSeed
from tests.projects.known import BATCH_SIZE, CLASSES, KNOWN, NEEDED, SAMPLES, Order, Project, given_labels
from tests.small import assert_same

pytestmark = pytest.mark.slow

EPOCHS, MOMENTUM, RATIO = 3, 0.7, 0.5
STEPS = SAMPLES // BATCH_SIZE


@pytest.fixture(params=KNOWN)
def project(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    for package in NEEDED[request.param]:
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)  # some write where they run
    return KNOWN[request.param]()


@dataclass
class Kernel:
    """What the cross entropies of torch get in the end, below all that could change it; they may fail at a call."""

    calls: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    evaluated: list[Tensor] = field(default_factory=list)
    fails_at: int | None = None

    def watch(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def watched(logits: Tensor, target: Tensor, *rest: Any) -> Tensor:
            if not torch.is_grad_enabled():
                self.evaluated.append(target.clone())
            elif len(self.calls) == self.fails_at:
                raise RuntimeError("boom")
            else:
                self.calls.append((logits.detach().double(), target.clone()))
            return function(logits, target, *rest)

        return watched


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    spy = Kernel()
    for name in ("cross_entropy_loss", "nll_loss_nd"):
        monkeypatch.setattr(torch._C._nn, name, spy.watch(getattr(torch._C._nn, name)))
    return spy


def loader(project: Project) -> Any:

    return project.loader(project.samples, batch_size=BATCH_SIZE, sampler=Order())


def make_module(project: Project) -> Any:
    torch.manual_seed(0)
    return project.module()


def fit(
    project: Project, folder: Path, callbacks: list[Any], module: Any = None, loaders: Any = None, **options: Any
) -> Any:
    """Train as the project's own scripts do; a checkpoint after each epoch."""
    lightning = importlib.import_module(project.library)
    saving = lightning.callbacks.ModelCheckpoint(folder, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    trainer = lightning.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=1,
        max_epochs=EPOCHS,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[*callbacks, StepSeed(7), saving],
    )
    training = loader(project) if loaders is None else loaders
    validation = project.loader(project.samples, batch_size=BATCH_SIZE)
    trainer.fit(make_module(project) if module is None else module, training, validation, **options)
    return trainer


def rows_of(step: int) -> Tensor:
    """The samples of a step."""
    return Order.permutation(step // STEPS).view(STEPS, BATCH_SIZE)[step % STEPS]


def check_selc(kernel: Kernel, callback: SELC) -> None:
    given, table = given_labels(), F.one_hot(given_labels(), CLASSES).double()
    for step, (logits, target) in enumerate(kernel.calls):
        rows = rows_of(step)
        if step < STEPS:
            assert torch.equal(target, given[rows])
        else:
            table[rows] = MOMENTUM * table[rows] + (1 - MOMENTUM) * logits.softmax(dim=1)
            torch.testing.assert_close(target.double(), table[rows], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(callback.section.stores["target"].values.double(), table, rtol=1e-5, atol=1e-6)


def check_switching(kernel: Kernel, callback: GradientSwitching) -> None:
    given, pool = given_labels(), F.one_hot(given_labels(), CLASSES).double()
    switched = 0
    for step, (logits, target) in enumerate(kernel.calls):
        share, rows, p = step // STEPS / EPOCHS, rows_of(step), logits.softmax(dim=1)
        assert (pool[rows, target] > 0).all()
        switched += int((target != given[rows]).sum())
        confidence = p.gather(1, given[rows].unsqueeze(1)).squeeze(1)
        gain = torch.full((BATCH_SIZE, CLASSES), share / CLASSES, dtype=torch.float64)
        gain[torch.arange(BATCH_SIZE), given[rows]] += confidence * (1 - share)
        gain[torch.arange(BATCH_SIZE), p.argmax(dim=1)] += confidence * 2 * share
        pool[rows] += gain
    assert switched > 0
    torch.testing.assert_close(callback.section.stores["pool"].values.double(), pool, rtol=1e-5, atol=1e-6)


def check_confidence(kernel: Kernel, callback: ConfidenceTracker) -> None:
    given, clean = given_labels(), torch.arange(SAMPLES) % CLASSES
    for epoch in range(EPOCHS):
        confidence = torch.empty(SAMPLES, dtype=torch.float64)
        for step in range(epoch * STEPS, (epoch + 1) * STEPS):
            (logits, target), rows = kernel.calls[step], rows_of(step)
            assert torch.equal(target, given[rows])
            confidence[rows] = logits.softmax(dim=1).gather(1, given[rows].unsqueeze(1)).squeeze(1)
        assert callback.history[epoch] == pytest.approx(
            {
                "train/conf/clean": confidence[given == clean].mean().item(),
                "train/conf/noisy": confidence[given != clean].mean().item(),
            },
            abs=1e-6,
        )


CALLBACKS: dict[str, tuple[Callable[[], Any], Callable[[Kernel, Any], None]]] = {
    "SELC": (lambda: SELC(momentum=MOMENTUM, warmup_epochs=1), check_selc),
    "GradientSwitching": (lambda: GradientSwitching(2.0, 1.0, total_epochs=EPOCHS, seed=5), check_switching),
    "ConfidenceTracker": (lambda: ConfidenceTracker(torch.arange(SAMPLES) % CLASSES), check_confidence),
}
"""At the criterion: how each is made, and how it is replayed from what the kernel got."""


def all_callbacks(project: Project) -> dict[str, Callable[[], Any]]:
    return {name: make for name, (make, _) in CALLBACKS.items()} | {"MaskRefresh": lambda: mask(project)}


def mask(project: Project) -> MaskRefresh:
    if project.head is None:
        pytest.skip("its linear layer is of a class of its own")
    return MaskRefresh(project.head, ratio=RATIO)


NAMES = [*CALLBACKS, "MaskRefresh"]


@pytest.mark.parametrize("name", CALLBACKS)
def test_targets_are_exactly_those_of_the_samples(project: Project, kernel: Kernel, tmp_path: Path, name: str) -> None:
    make, check = CALLBACKS[name]
    callback = make()
    fit(project, tmp_path, [callback])
    assert len(kernel.calls) == EPOCHS * STEPS
    check(kernel, callback)
    for target in kernel.evaluated[::STEPS]:
        assert torch.equal(target, given_labels()[:BATCH_SIZE])


def test_the_mask_is_exactly_that_of_the_weights(project: Project, kernel: Kernel, tmp_path: Path) -> None:
    seen = []

    class Watch(importlib.import_module(project.library).Callback):  # type: ignore[misc]
        def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
            weight = pl_module.get_submodule(project.head).weight
            seen.append((weight.detach().clone(), weight.grad.clone()))

    fit(project, tmp_path, [mask(project), Watch()])
    assert len(seen) == EPOCHS * STEPS
    for weight, gradient in seen:
        dropped = torch.zeros_like(weight, dtype=torch.bool)
        dropped.scatter_(0, weight.abs().argsort(dim=0)[: int(RATIO * CLASSES)], True)
        assert (gradient[dropped] == 0).all()
        live = (gradient != 0).any(dim=0)
        assert live.any()
        assert ((gradient != 0) == ~dropped)[:, live].all()


@pytest.mark.parametrize("name", NAMES)
def test_a_resume_equals_the_uninterrupted_run(project: Project, tmp_path: Path, name: str) -> None:
    def ending(fitted: Any) -> dict[str, Any]:
        driver = next(callback for callback in fitted.callbacks if callback.state_key == "lightning_noisy")
        return {"weights": fitted.lightning_module.state_dict(), "state": driver.state_dict()}

    make = all_callbacks(project)[name]
    whole = fit(project, tmp_path, [make()])
    path = tmp_path / "epoch=1.ckpt"
    again = fit(project, tmp_path / "again", [make()], ckpt_path=path, weights_only=False)
    assert again.current_epoch == whole.current_epoch == EPOCHS
    assert_same(ending(again), ending(whole))
    make_module(project).load_state_dict(torch.load(path, weights_only=False)["state_dict"], strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_an_exception_leaves_module_and_loader_as_they_were(
    project: Project, kernel: Kernel, tmp_path: Path, name: str
) -> None:
    module, training = make_module(project), loader(project)
    before = shape_of(module, training)
    kernel.fails_at = STEPS + 1
    with pytest.raises(RuntimeError, match="boom"):
        fit(project, tmp_path, [all_callbacks(project)[name]()], module, training)
    assert shape_of(module, training) == before
    assert [i for batch in training.batch_sampler for i in batch] == Order.permutation(1).tolist()
    kernel.fails_at, kernel.calls = None, []
    fit(project, tmp_path, [], make_module(project), training)
    assert torch.equal(kernel.calls[0][1].view(-1), given_labels()[rows_of(0)])


def shape_of(module: nn.Module, training: Any) -> Any:
    """What a callback may have changed: classes, hooks and attributes of modules, the loader's parts, torch's modes."""
    parts = [
        (name, type(part), len(part._forward_pre_hooks), len(part._forward_hooks), sorted(vars(part)))
        for name, part in module.named_modules()
        if part is not module and not isinstance(part, (Metric, MetricCollection))
    ]
    own = sorted(name for name in vars(module) if name.endswith("_step"))
    return parts, own, type(training.sampler), type(training.batch_sampler), torch._C._len_torch_function_stack()
