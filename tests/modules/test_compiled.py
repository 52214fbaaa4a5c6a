"""`compile`: the same training as uncompiled, few compilations, nothing left behind."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lightning_noisy import NoisyLabelError, NoisyLabelModule
from lightning_noisy.callbacks import GradientErrorTracker, MaskRefresh, StepSeed
from lightning_noisy.heads import KANHead, LinearHead, kan
from lightning_noisy.modules.compiled import compiled_head
from lightning_noisy.networks import SmallCNN
from tests.distributed import Pool
from tests.foreign import make_trainer
from tests.modules.strategies import STRATEGIES, make_data, make_strategy
from tests.small import NUM_CLASSES, SmallDataModule, assert_same, make_heads

EPOCHS, BATCH = 2, 12  # 40 samples: the last batch of an epoch has 4. ATen convolves from 16 images on in another way
QUICK = "a kan of few terms"
AS_WRITTEN, BY_AUTOGRAD = {"backend": "eager"}, {"backend": "aot_eager"}


def make(compile: Any = False, head: Any = LinearHead, dropout: float = 0.0) -> NoisyLabelModule:
    torch.manual_seed(0)
    backbone = SmallCNN(width=4, num_features=8, dropout=dropout)
    sgd = partial(torch.optim.SGD, lr=0.05, momentum=0.9)
    return NoisyLabelModule(backbone, head, nn.CrossEntropyLoss(), NUM_CLASSES, sgd, compile=compile)


class Steps(Callback):
    """Weights and masks after each step, and a copy of the module as it was in the last."""

    def __init__(self) -> None:
        self.copy: Any = None
        self.weights: list[dict[str, Tensor]] = []
        self.masks: list[list[Tensor]] = []

    def on_before_zero_grad(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        self.weights.append({name: value.clone() for name, value in pl_module.state_dict().items()})

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.copy = copy.deepcopy(pl_module)

    def on_after_backward(self, trainer: Trainer, pl_module: Any) -> None:
        masks = [getattr(module, "edge_mask", None) for module in pl_module.modules()]
        self.masks.append([mask.clone() for mask in masks if mask is not None])


def fit(folder: Path, module: Any, *callbacks: Callback, resume: Path | None = None, **options: Any) -> Trainer:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    data = SmallDataModule(seed=0, batch_size=BATCH)
    trainer = make_trainer(folder, callbacks, **{"max_epochs": EPOCHS, "num_sanity_val_steps": 1, **options})
    trainer.fit(module, datamodule=data, ckpt_path=resume)
    return trainer


def graphs() -> int:
    """How many functions were compiled since the last fit began."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def left_behind(module: nn.Module) -> list[str]:
    """Names of submodules that do not run as their class says."""
    return [
        name
        for name, part in module.named_modules()
        if {"forward", "basis", "logits", "batch_scores"} & vars(part).keys()
    ]


CASES = {
    # head, mask, compilations: of the backbone two, for training and for evaluation
    QUICK: (partial(KANHead, grid_size=1, spline_order=1), {}, 2 + 4),
    "linear": (LinearHead, {}, 2 + 2),
    "linear by epoch": (LinearHead, {"every_n_epochs": 1, "score": "random"}, 2 + 2),
    "kan": (KANHead, {}, 2 + 4),  # basis, scores and rest in training, all but scores in evaluation
    "kan by other steps": (KANHead, {"every_n_steps": 2}, 2 + 5),
    "kan by gradient, always": (KANHead, {"score": "gradient", "apply_in": "always"}, 2 + 4),
    "three heads": (make_heads, {"head": [f"network.head.{n}" for n in range(3)]}, 2 + 2 + 2 + 4),
}


@pytest.mark.parametrize(
    "case", [QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in CASES if name != QUICK)]
)
def test_training_is_that_of_the_module_as_written(tmp_path: Path, case: str) -> None:
    """Masks of every step, and weights after it; no compilation for the smaller last batch, none unasked."""
    head, mask, compilations = CASES[case]
    plain, compiled, module = Steps(), Steps(), make(AS_WRITTEN if case == QUICK else BY_AUTOGRAD, head)
    fit(tmp_path, make(head=head), MaskRefresh(ratio=0.5, **mask), plain)
    assert graphs() == 0
    fit(tmp_path, module, MaskRefresh(ratio=0.5, **mask), compiled)
    assert graphs() == compilations
    torch.testing.assert_close(compiled.masks, plain.masks, rtol=0, atol=0)
    torch.testing.assert_close(compiled.weights, plain.weights, rtol=1e-4, atol=1e-6)
    assert len({str(mask) for mask in compiled.masks}) > 1
    for part in compiled.copy.modules():
        vars(part).pop("edge_mask", None)  # the module's own heads have given theirs back
    images = torch.randn(3, 1, 8, 8)
    assert torch.equal(compiled.copy.eval()(images), module.eval()(images))
    assert graphs() == compilations, "copies, and the module after the fit, run as they are written"
    assert not left_behind(module)


def test_a_compiled_kan_head_knows_its_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cubic splines are evaluated in closed form as long as the knots are even, and rightly when they no longer are."""
    torch._dynamo.reset()
    head = KANHead(6, 3).double()
    written, features = copy.deepcopy(head), torch.randn(9, 6, dtype=torch.float64)
    recursion = Mock(wraps=kan.bspline_basis)
    monkeypatch.setattr(kan, "bspline_basis", recursion)
    for method in compiled_head(head, "head", AS_WRITTEN):
        method.begin()
    for adapted in (False, True):
        if adapted:
            for one in (head, written):
                one.update_grid(features)
        assert recursion.called == adapted
        torch.testing.assert_close(head(features), written(features))
        scores = [one.batch_scores(one.basis(features), "std") for one in (head, written)]
        torch.testing.assert_close(scores[0], scores[1], rtol=1e-10, atol=0)
    exported = torch.export.export(copy.deepcopy(head), (features,)).module()
    torch.testing.assert_close(exported(features), written(features))


def broken(graph: Any, inputs: Any) -> Any:
    raise OSError("no such compiler\nand more")


def test_what_cannot_be_compiled_is_said_in_a_line(tmp_path: Path) -> None:
    module = make({"backend": broken})
    with pytest.raises(
        NoisyLabelError, match=r"^`network.backbone` cannot be compiled here \(OSError: no such compiler\)"
    ) as error:
        fit(tmp_path, module, MaskRefresh())
    assert "\n" not in str(error.value)
    assert type(module.network.head) is LinearHead
    assert not left_behind(module)


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    class Own(SmallCNN):
        def forward(self, images: Tensor) -> Tensor:
            raise RuntimeError("my own error")

    module = make(AS_WRITTEN)
    module.network.backbone = Own(width=4, num_features=8)
    with pytest.raises(RuntimeError, match="my own error"):
        fit(tmp_path, module)


@pytest.mark.parametrize("given", [None, "inductor", {"backend": "nothing"}, {"unknown": 1}])
def test_what_torch_compile_does_not_take_is_refused(given: Any) -> None:
    with pytest.raises(NoisyLabelError, match="Expected argument `compile` to be a bool, or keyword") as error:
        make(given)
    assert "\n" not in str(error.value)


def test_what_arrives_compiled_is_refused(tmp_path: Path) -> None:
    module = make(AS_WRITTEN)
    module.network.backbone.compile(backend="eager")
    with pytest.raises(NoisyLabelError, match=r"^`network\.backbone` arrives compiled: leave out `compile`"):
        fit(tmp_path, module)


@pytest.mark.slow
def test_a_tracker_passes_backward_before_training_does(tmp_path: Path) -> None:
    trackers = [GradientErrorTracker(every_n_steps=1), GradientErrorTracker(every_n_steps=1)]
    for tracker, compile in zip(trackers, (False, BY_AUTOGRAD), strict=True):
        fit(tmp_path, make(compile), tracker)
    name = "train/gradient_error/cosine"
    for epoch, plain in trackers[0].history.items():
        assert trackers[1].history[epoch][name] == pytest.approx(plain[name], abs=1e-4)
        assert plain[name] < 1


@pytest.mark.slow
@pytest.mark.parametrize("first", [False, AS_WRITTEN])
def test_a_resume_may_compile_or_not(tmp_path: Path, first: Any) -> None:
    """From within an epoch; checkpoints have the same names, and dropout draws the same."""
    save = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    options: dict[str, Any] = {"enable_checkpointing": True}
    whole = make(first, dropout=0.3)
    fit(tmp_path, whole, StepSeed(1), save, **options)
    resumed = make(AS_WRITTEN if first is False else False, dropout=0.3)
    fit(tmp_path, resumed, StepSeed(1), resume=tmp_path / "step=5.ckpt")
    assert_same(dict(resumed.state_dict()), dict(whole.state_dict()))
    saved = torch.load(tmp_path / "step=5.ckpt", weights_only=True)
    assert saved["state_dict"].keys() == make().state_dict().keys()
    assert "compile" not in saved["hyper_parameters"]


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """All stages, teachers, mixtures whose size differs from step to step, half precision and accumulated gradients."""
    monkeypatch.setattr(torch._dynamo.config, "fail_on_recompile_limit_hit", True, raising=False)
    weights = []
    for compile in (False, AS_WRITTEN):
        torch._dynamo.reset()
        module = make_strategy(name, compile=compile, head=KANHead)
        options: dict[str, Any] = {"max_epochs": 3, "precision": "bf16-mixed", "accumulate_grad_batches": 2}
        trainer = make_trainer(tmp_path, [StepSeed(1), MaskRefresh(ratio=0.5)], **options)
        trainer.fit(module, datamodule=make_data(name))
        weights.append(dict(module.state_dict()))
        assert not left_behind(module)
    torch.testing.assert_close(weights[1], weights[0], rtol=0.05, atol=0.02)


def fit_on(rank: int, name: str, folder: str, compile: Any) -> dict[str, Tensor]:
    module = make_strategy(name, compile=compile, head=KANHead)
    find = "ddp_find_unused_parameters_true" if name == "ELRPlus" else "ddp"
    trainer = make_trainer(folder, [MaskRefresh(ratio=0.5)], max_epochs=2, devices=2, strategy=find)
    trainer.fit(module, datamodule=make_data(name, num_samples=44))
    return dict(module.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["CoTeaching", "ELRPlus"])
def test_two_processes(pool: Pool, tmp_path: Path, name: str) -> None:
    plain, compiled = (pool.run(fit_on, name, str(tmp_path), compile, timeout=600) for compile in (False, BY_AUTOGRAD))
    torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("head", [LinearHead, KANHead])
def test_inductor(tmp_path: Path, head: Any) -> None:
    """With a C++ compiler, as ``compile: true`` has it."""
    plain, compiled = Steps(), Steps()
    fit(tmp_path, make(head=head), MaskRefresh(ratio=0.5), plain)
    fit(tmp_path, make(True, head), MaskRefresh(ratio=0.5), compiled)
    torch.testing.assert_close(compiled.masks, plain.masks, rtol=0, atol=0)
    torch.testing.assert_close(compiled.weights, plain.weights, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_no_compiler_is_said_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    with pytest.raises(NoisyLabelError, match="InvalidCxxCompiler: No working C\\+\\+ compiler found") as error:
        fit(tmp_path, make({"backend": "inductor", "options": {"fx_graph_cache": False}}))
    assert "\n" not in str(error.value)
