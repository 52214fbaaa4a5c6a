"""What the package's callbacks add to a training step of a CIFAR ResNet-18."""

from __future__ import annotations

import logging
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LambdaCallback
from torch import Tensor, nn
from torchvision.transforms import v2
from typing_extensions import override

from lightning_noisy import NoisyLabelModule
from lightning_noisy.callbacks import (
    CDR,
    SELC,
    ConfidenceTracker,
    MaskRefresh,
    MaskTracker,
    MemorizationTracker,
    ParameterSchedule,
    RunSummary,
    StepSeed,
)
from lightning_noisy.data import LabeledImages, NoisyDataModule, SymmetricNoise
from lightning_noisy.heads import LinearHead
from lightning_noisy.losses import GeneralizedCrossEntropy
from lightning_noisy.networks import ResNet18

NUM_SAMPLES = 50_000
TARGET = 0.03
WARM_UP = 2


class RandomImages(NoisyDataModule):
    """As many samples as CIFAR-10 has, of its size; 256 different images of noise."""

    num_classes = 10

    @override
    def training_images(self) -> LabeledImages:
        images = torch.randn(256, 3, 32, 32)
        return LabeledImages(lambda index: images[index % 256], torch.arange(NUM_SAMPLES) % 10)

    @override
    def test_images(self) -> None:
        return None

    @override
    def training_transform(self) -> Callable[[Any], Tensor]:
        return v2.Identity()

    @override
    def evaluation_transform(self) -> Callable[[Any], Tensor]:
        return v2.Identity()


class Stopwatch:
    """Seconds in each part of each training step; time inside a nested part belongs to that part alone."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, dict[str, float]]] = []
        """Of each step: all of its seconds, and those of its parts."""
        self.between: dict[str, float] = defaultdict(float)
        """Seconds of the parts outside steps."""
        self._now = self.between
        self._began = self._last = 0.0
        self._stack: list[str] = []

    def begin_step(self) -> None:
        """From here on time belongs to a step."""
        self._now, self._began = defaultdict(float), time.process_time()

    def end_step(self) -> None:
        """The step is over."""
        self.steps.append((time.process_time() - self._began, self._now))
        self._now = self.between

    def enter(self, part: str) -> None:
        """Time belongs to this part until :meth:`leave`."""
        self._account()
        self._stack.append(part)

    def leave(self) -> None:
        """Time belongs to whatever was interrupted."""
        self._account()
        self._stack.pop()

    def watch(self, callback: Callback) -> Callback:
        """Account for all hooks of a callback, and for what it does at the criterion."""
        own = [name for name in dir(type(callback)) if _is_work(type(callback), name)]
        for name in own:
            setattr(callback, name, self._timed(type(callback).__name__, getattr(callback, name)))
        return callback

    def watch_criterion(self, criterion: nn.Module) -> list[Callback]:
        """Account for what comes between the call of a criterion and its forward: ``target pipeline``."""
        criterion.register_forward_pre_hook(lambda *_: self.enter("target pipeline"), prepend=True)

        def close(*_: Any) -> None:
            criterion.register_forward_pre_hook(lambda *_: self.leave())

        return [LambdaCallback(on_train_start=close)]

    def _account(self) -> None:
        now = time.process_time()
        if self._stack:
            self._now[self._stack[-1]] += now - self._last
        self._last = now

    def _timed(self, part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.enter(part)
            try:
                return method(*args, **kwargs)
            finally:
                self.leave()

        return timed


def all_callbacks() -> list[Callback]:
    """Every callback of the package that works in a training step, and can be together with the others."""
    return [
        MaskRefresh(),
        MaskTracker(),
        SELC(),
        ConfidenceTracker(),
        MemorizationTracker(),
        CDR(noise_rate=0.4),
        ParameterSchedule("loss.q", start=0.3, end=0.7, interval="step"),
        StepSeed(),
        RunSummary(),
    ]


def measure_callbacks(batch_size: int, rounds: int) -> dict[str, Any]:
    """Train for some steps with all callbacks, and relate the time inside them to the rest of the step."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    watch, module = Stopwatch(), NoisyLabelModule(ResNet18(), LinearHead, GeneralizedCrossEntropy(), 10, _sgd)
    callbacks = [watch.watch(callback) for callback in all_callbacks()]
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=WARM_UP + rounds,
        limit_val_batches=0,
        callbacks=[
            LambdaCallback(on_train_batch_start=lambda *_: watch.begin_step()),
            *callbacks,
            *watch.watch_criterion(module.loss),
            LambdaCallback(on_train_batch_end=lambda *_: watch.end_step()),
        ],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, RandomImages(SymmetricNoise(0.4), batch_size, seed=0))
    return _summary(watch, [type(callback).__name__ for callback in callbacks], batch_size, rounds)


def _summary(watch: Stopwatch, names: list[str], batch_size: int, rounds: int) -> dict[str, Any]:
    steps = watch.steps[WARM_UP:]
    added = statistics.median(sum(parts.values()) for _, parts in steps)
    rest = statistics.median(whole - sum(parts.values()) for whole, parts in steps)
    rows = {}
    for name in [*names, "target pipeline"]:
        seconds = statistics.median(parts[name] for _, parts in steps)
        rows[name] = {
            "ms": round(1e3 * seconds, 4),
            "share": round(seconds / rest, 6),
            "outside_of_steps_ms": round(1e3 * watch.between[name], 2),
        }
    print(f"\ncallbacks, ResNet-18, batch {batch_size}: {1e3 * rest:.1f} ms a step without them")
    for name, row in rows.items():
        print(f"  {name:<34}{row['ms']:>10.3f} ms{row['share']:>9.3%}, outside {row['outside_of_steps_ms']:.1f} ms")
    print(f"  {'together':<34}{1e3 * added:>10.3f} ms{added / rest:>9.3%}  wanted {TARGET:.0%}")
    return {
        "batch": batch_size,
        "rounds": rounds,
        "step_without_ms": round(1e3 * rest, 2),
        "share": round(added / rest, 5),
        "target": TARGET,
        "callbacks": rows,
    }


def _sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9)


def _is_work(kind: type, name: str) -> bool:
    if name in ("change_target", "observe_target"):
        return True
    return name.startswith("on_") and getattr(kind, name) is not getattr(Callback, name, None)
