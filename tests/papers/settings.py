"""A row of a paper's table of settings, and how it is read from a configuration."""

import inspect
from typing import NamedTuple

from lightning_noisy import modules

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
    strategy: dict = {"NoisyLabelModule": {}}  # noqa: RUF012  with what the paper says of it
    optimizer: str = "SGD"


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


def together(entries):
    """{class name: arguments} of several entries; a list where a class stands more than once."""
    found = {}
    for name, arguments in (item for entry in entries for item in named(entry).items()):
        found.setdefault(name, []).append(arguments)
    return {name: given[0] if len(given) == 1 else given for name, given in found.items()}


def stepper(entry):
    """Name and arguments of an optimizer; of SAM those of the one that steps."""
    ((name, arguments),) = named(entry).items()
    return name, dict(named(arguments["base"])["SGD"] if name == "SAM" else arguments)


COMMON = {"num_classes", "backbone", "head", "loss", "optimizer", "lr_scheduler"}


def acting(entry, told):
    """A strategy with its own arguments in a recipe, and the defaults of those that the paper tells beside them."""
    ((name, arguments),) = named(entry).items()
    own = {key: value for key, value in arguments.items() if key not in COMMON}
    wanted = {key for arguments in told.values() for key in arguments}
    return {name: {key: own[key] if key in own else default(name, key) for key in {*own, *wanted}}}


def default(strategy, name):
    """Of an argument of a strategy, or of a base of it."""
    for ancestor in getattr(modules, strategy).__mro__:
        if name in (parameters := inspect.signature(ancestor.__init__).parameters):
            return parameters[name].default
    raise KeyError(name)
