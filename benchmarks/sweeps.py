"""What the papers' sensitivity figures vary, as losses and callbacks by name, for features and for images alike.

Of the figures we know what they are about, not their axes: values here are ours, around the published ones. In the
middle of each sweep stands ``base``, the published arguments (of DCM's lost ratio, the package's default); each panel
varies one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

Spec = dict[str, Any]
"""A class and its arguments, as configuration files name them."""
Arguments = Mapping[str, Any]
Epochs = Callable[[float, int], int]
"""A number of epochs out of so many that were published, in those of the run."""


@dataclass(frozen=True)
class Method:
    """What trains a network."""

    loss: Spec
    callbacks: tuple[Spec, ...] = ()


@dataclass(frozen=True)
class Line:
    """One curve of a figure."""

    recipe: str
    """What it goes on top of on images; the head is its."""
    method: Callable[..., Method]
    """From :data:`Epochs` and the arguments of a point."""
    head: Spec | None = None
    """That of features; None is linear."""


@dataclass(frozen=True)
class Sweep:
    """A figure."""

    title: str
    lines: dict[str, Line]
    base: Arguments
    panels: dict[str, dict[str, Arguments]]
    """Name of an argument -> what stands on the axis -> what differs from ``base`` there."""
    noises: tuple[str, ...] = ("worse", "symmetric 0.6")
    """Of features."""
    rates: tuple[float, ...] = (0.4, 0.8)
    """Symmetric noise of images."""

    def points(self) -> dict[str, tuple[str, Arguments]]:
        """Line and arguments of each point by its name; one that stands in several panels is there once."""
        return {
            point_name(line, arguments): (line, arguments)
            for panel in self.panels
            for label in self.panels[panel]
            for line in self.lines
            for arguments in [self.arguments(panel, label)]
        }

    def arguments(self, panel: str, label: str) -> Arguments:
        """Those of a place on the axis of a panel."""
        return {**self.base, **self.panels[panel][label]}


def point_name(line: str, arguments: Arguments) -> str:
    """What a point is called in a record."""
    return ", ".join([line, *(f"{name} {value}" for name, value in arguments.items())])


def make(spec: Spec) -> Any:
    """The object that a spec names."""
    module, _, name = spec["class_path"].rpartition(".")
    return getattr(import_module(module), name)(**spec.get("init_args", {}))


def _spec(class_path: str, **arguments: Any) -> Spec:
    return {"class_path": class_path, "init_args": arguments}


def _callback(name: str, **arguments: Any) -> Spec:
    return _spec(f"lightning_noisy.callbacks.{name}", **arguments)


def _values(name: str, *values: float) -> dict[str, Arguments]:
    return {str(value): {name: value} for value in values}


CE = _spec("torch.nn.CrossEntropyLoss")
ANL = _spec("lightning_noisy.losses.ActiveNegativeLoss", alpha=5.0, beta=5.0, delta=5e-5)


def _masked(loss: Spec) -> Callable[..., Method]:
    def method(epochs: Epochs, ratio: float, interval: str) -> Method:
        lasts = {"every_n_epochs": 1} if interval == "epoch" else {"every_n_steps": 1}
        return Method(loss, (_callback("MaskRefresh", ratio=ratio, **lasts),))

    return method


def _switched(confidence: str) -> Callable[..., Method]:
    def method(epochs: Epochs, **weights: float) -> Method:
        return Method(CE, (_callback("GradientSwitching", confidence=confidence, **weights),))

    return method


def _attentive(epochs: Epochs, lam: float, momentum: float, start: int) -> Method:
    loss = _spec("lightning_noisy.losses.NoiseAttentionLoss", lam=lam, label_floor=1e-4)
    gate = {"warmup_epochs": epochs(start - 1, 500), "every_n_epochs": epochs(10, 500)}
    return Method(loss, (_callback("SELC", momentum=momentum, floor=1e-4, **gate),))


def _dynamic(epochs: Epochs, q_start: float, q_end: float) -> Method:
    loss = _spec("lightning_noisy.losses.DynamicsAwareLoss", q=q_start)
    return Method(loss, (_callback("DALSchedule", q_start=q_start, q_end=q_end, lam_end=1.0),))


SWEEPS: dict[str, Sweep] = {
    "dcm-6": Sweep(
        "DCM, figure 6: masking ratio, and interval",
        {
            "CE-DFC": Line("dcm/cifar10/ce", _masked(CE)),
            "ANL-DFC": Line("dcm/cifar10/anl", _masked(ANL)),
            "ANL-DKAN": Line(
                "dcm/cifar10/anl-kan", _masked(ANL), _spec("lightning_noisy.heads.KANHead", normalize=True)
            ),
        },
        {"ratio": 0.7, "interval": "step"},
        {
            "masking ratio": _values("ratio", 0.0, 0.1, 0.3, 0.5, 0.7, 0.9),
            "new mask": {"never": {"ratio": 0.0}, "each epoch": {"interval": "epoch"}, "each step": {}},
        },
        noises=("symmetric 0.4", "symmetric 0.8"),
    ),
    "gss-3": Sweep(
        "GSS, figure 3: weights of the predicted and of the random directions",
        {
            "GSS-SB": Line("gss/cifar10/ce", _switched("given")),
            "GSS-SB by the largest probability": Line("gss/cifar10/ce", _switched("max")),
        },
        {"lam_prediction": 2.0, "lam_random": 1.0},
        {
            "lambda 1": _values("lam_prediction", 0.0, 0.5, 1.0, 2.0, 4.0),
            "lambda 2": _values("lam_random", 0.0, 0.5, 1.0, 2.0, 4.0),
        },
    ),
    "nal-4": Sweep(
        "NAL, figure 4 e and f: its penalty, momentum and start",
        {"NAL": Line("nal/cifar10/ce", _attentive)},
        {"lam": 0.5, "momentum": 0.9, "start": 60},
        {
            "lambda": _values("lam", 0.1, 0.5, 1.0, 10.0, 50.0),
            "momentum": _values("momentum", 0.5, 0.7, 0.9, 0.99),
            "start, of 500 epochs": _values("start", 20, 60, 100, 200),
        },
    ),
    "dal-3": Sweep(
        "DAL, figure 3: first and last exponent",
        {"DAL": Line("ce/cifar10", _dynamic)},
        {"q_start": 0.8, "q_end": 1.5},
        {
            "q at the start": _values("q_start", 0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
            "q at the end": _values("q_end", 1.0, 1.2, 1.5, 1.8, 2.0),
        },
    ),
}
