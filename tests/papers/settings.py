"""A row of a paper's table of settings, and how it is read from a configuration."""

from typing import NamedTuple

SYMMETRIC = {"SymmetricNoise": {"rate": 0.4, "include_true_class": True}}
COSINE = {"CosineAnnealingLR": {"T_max": 150}}
RESTARTS = {"CosineAnnealingWarmRestarts": {"T_0": 10, "eta_min": 1e-3}}
STEPS = {"MultiStepLR": {"milestones": [40, 80], "gamma": 0.1}}
CROSS_ENTROPY = {"CrossEntropyLoss": {}}


class Settings(NamedTuple):
    """A row of a paper's table of settings: class name -> arguments where something is a class."""

    epochs: int
    net: str | dict
    batch: int
    lr: float
    wd: float
    schedule: dict
    loss: dict
    method: dict
    noise: dict = SYMMETRIC
    val: float = 0.0
    head: dict = {"LinearHead": {}}  # noqa: RUF012
    clip: float | None = None
    data: str = "CIFAR10DataModule"
    images: dict = {}  # noqa: RUF012  further arguments of the data module
    sgd: dict = {"momentum": 0.9}  # noqa: RUF012
    machine: dict = {"accelerator": "auto", "devices": 1}  # noqa: RUF012


def named(entry):
    """{class name: arguments} of an entry with class_path and init_args."""
    return {entry["class_path"].rpartition(".")[2]: entry.get("init_args", {})}


def brief(entry):
    """The class name alone where there are no arguments."""
    ((name, arguments),) = named(entry).items()
    return {name: arguments} if arguments else name


def plain(loss):
    """A loss made of losses: theirs beside its own arguments."""
    ((name, arguments),) = loss.items()
    parts = [argument for argument in arguments.values() if isinstance(argument, dict)]
    numbers = {key: value for key, value in arguments.items() if not isinstance(value, dict)}
    return {name: {**numbers, **{key: value for part in parts for key, value in named(part).items()}}}
