"""Whether what a checkpoint holds is built as what a run would save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

_FREE_OPTIONS = ("foreach", "fused", "param_names")
"""Options of an optimizer that say how it computes; a run may choose them anew."""

_FIXED_OPTIONS = ("params", "capturable", "decoupled_weight_decay", "differentiable", "maximize")
"""Options in which another value is another optimizer, or one that cannot run here."""

_UNLIKE_PARAMETERS = ("Adafactor", "LBFGS")
"""Optimizers whose state is not shaped as their parameters."""

_POSITION: dict[str, Any] = {
    "epoch": 0,
    "seed": 0,
    "selection": None,
    "arranged": False,
    "waiting": [],
    "batches": 0,
    "batch_size": 1,
    "processes": 1,
}
_SECTION: dict[str, Any] = {"stores": {}, "sums": {"sums": {}, "counts": {}, "weights": {}}, "history": {}, "parts": {}}
_RUN: dict[str, Any] = {
    "num_samples": None,
    "labels_hash": None,
    "part_hash": None,
    "seed": 0,
    "max_epochs": None,
    "schedules": {},
}
_RUN |= {"open_epoch": None, "prepared_epoch": None, "sections": {}}

_OPTIONAL: tuple[tuple[str, Any], ...] = (
    *((name, 0) for name in ("num_samples", "max_epochs", "open_epoch", "prepared_epoch")),
    ("labels_hash", ""),
    ("part_hash", ""),
    ("class_names", []),
    ("broken_batch", {"epoch": 0, "batch": 0, "exact": "", "processes": 1}),
    ("validating", False),
)
"""What may be None in the state of a run, and what it is built as otherwise."""


def difference(saved: Any, expected: Any, path: str) -> str | None:
    """The first place where ``saved`` is built differently, None where there is none.

    Args:
        saved: What a checkpoint holds.
        expected: What a run would save: names, lengths and kinds count, values do not. None allows anything.
        path: The name of both.
    """
    if expected is None:
        return None
    if _kind(saved) != _kind(expected):
        return f"`{path}` is a {type(saved).__name__}"
    if isinstance(expected, Mapping):
        assert isinstance(saved, Mapping)
        missing = [key for key in expected if key not in saved]
        if missing:
            return f"`{path}` has no `{missing[0]}`"
        return _first(difference(saved[key], value, f"{path}.{key}") for key, value in expected.items())
    if isinstance(expected, (list, tuple)) and expected:
        if len(saved) != len(expected):
            return f"`{path}` has {len(saved)} entries, not {len(expected)}"
        return _first(difference(a, b, f"{path}[{i}]") for i, (a, b) in enumerate(zip(saved, expected, strict=True)))
    return None


def impossible_position(saved: Any, path: str) -> str | None:
    """A count of a loop that is negative or no integer, or more that has ended than begun."""
    if isinstance(saved, Mapping):
        begun, ended = saved.get("ready"), saved.get("completed")
        started, processed = saved.get("started", begun), saved.get("processed", ended)
        if "ready" in saved and not (_is_count(begun, processed, ended) and _is_count(begun, started)):
            return f"`{path}` has {begun} begun, {started} started, {processed} processed and {ended} ended"
        inside = {key: value for key, value in saved.items() if not key.endswith("state_dict")}
        return _first(impossible_position(value, f"{path}.{key}") for key, value in inside.items())
    return None if isinstance(saved, bool) or _is_count(saved) else f"`{path}` is {saved!r}"


def impossible_loader(saved: Any, loop: Mapping[str, Any]) -> str | None:
    """The position of one of our loaders that is not that of the fit loop; other loaders save what they like.

    Args:
        saved: What a loader has saved.
        loop: The state of the fit loop.
    """
    if not isinstance(saved, Mapping):
        return f"the position of a loader is a {type(saved).__name__}"
    if "processes" not in saved and "batches" not in saved:
        return None
    wrong = difference(saved, _POSITION, "loader")
    if wrong is not None:
        return wrong
    if not all(_is_selection(chosen) for chosen in ((saved["selection"], saved["arranged"]), *saved["waiting"])):
        return "the selection of a loader is no list of positions"
    epoch, batches = saved["epoch"], saved["batches"]
    epochs, ended = loop["epoch_progress"]["current"]["processed"], loop["epoch_loop.batch_progress"]["current"]
    counted = (
        all(_is_count(saved[key]) for key in ("seed", "batches", "batch_size", "processes")) and saved["batch_size"] > 0
    )
    if not counted or epoch not in (epochs, epochs - 1) or batches > ended["processed"]:
        return f"the loader is at batch {batches} of epoch {epoch}, training at {ended['processed']} of {epochs}"
    return None


def wrong_optimizer(saved: Mapping[str, Any], optimizer: Optimizer) -> str | None:
    """What shows that a state is another optimizer's, or of other parameters."""
    own = optimizer.state_dict()
    wrong = difference(
        {"state": saved.get("state"), "param_groups": _options(saved.get("param_groups"))},
        {"state": {}, "param_groups": _options(own["param_groups"])},
        "optimizer",
    )
    if wrong is not None:
        return wrong
    for group, there in zip(own["param_groups"], saved["param_groups"], strict=True):
        foreign = set(there) - set(group) - {"initial_lr", *_FREE_OPTIONS}
        if foreign:
            return f"it has the option `{min(foreign)}`"
        other = [name for name in _FIXED_OPTIONS if group.get(name) != there.get(name)]
        if other or any(there.get(name) not in (None, True, False) for name in ("foreach", "fused")):
            return f"its `{(*other, 'foreach')[0]}` is another"
    return _wrong_entries(saved["state"], optimizer)


def wrong_scheduler(saved: Any, own: Mapping[str, Any]) -> str | None:
    """What shows that a state is another scheduler's."""
    flat = {
        key: {} if isinstance(value, Mapping) else [] if isinstance(value, list) else value
        for key, value in own.items()
    }
    return difference(saved, flat, "scheduler")


def wrong_run_state(state: Any) -> str | None:
    """Where what a run has kept is not whole."""
    wrong = difference(state, _RUN, "state")
    wrong = wrong or _first(_wrong_value(state, *optional) for optional in _OPTIONAL)
    for key, section in state["sections"].items() if wrong is None else ():
        wrong = (
            wrong or difference(section, _SECTION, key) or _wrong_stores(key, section["stores"], state["num_samples"])
        )
        wrong = wrong or _wrong_sums(key, section)
    return wrong


def _wrong_value(state: Mapping[str, Any], name: str, expected: Any) -> str | None:
    value = state.get(name)
    return None if value is None else difference(value, expected, f"state.{name}")


def _wrong_stores(key: str, stores: Mapping[str, Any], num_samples: int | None) -> str | None:
    for name, store in stores.items():
        known = store if isinstance(store, Mapping) else {}
        columns = ("values", "writer", *(["classes"] if "num_classes" in known else []))
        tensors = [known.get(column) for column in columns]
        counts = {len(tensor) if isinstance(tensor, Tensor) and tensor.ndim > 0 else None for tensor in tensors}
        alone = (
            len(counts) == 1 and known.get("num_samples", -1) == num_samples
        )  # rows of one process: no start of a fit
        if None in counts or not (alone or counts == {num_samples}):
            return f"store `{name}` of {key} has not {num_samples} rows"
    return None


def _wrong_sums(key: str, section: Mapping[str, Any]) -> str | None:
    sums, weights = section["sums"]["sums"], section["sums"]["weights"]
    same = sums.keys() == weights.keys() and all(
        isinstance(total, Tensor) and total.ndim == 0 for total in sums.values()
    )
    numbers = all(_kind(weight) == "number" for weight in weights.values())
    history = all(
        isinstance(epoch, int)
        and isinstance(seen, Mapping)
        and all(_kind(value) == "number" for value in seen.values())
        for epoch, seen in section["history"].items()
    )
    return None if same and numbers and history else f"sums or history of {key} are broken"


def _wrong_entries(state: Mapping[Any, Any], optimizer: Optimizer) -> str | None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    names = {frozenset(entry) if isinstance(entry, Mapping) else None for entry in state.values()}
    if len(names) > 1 or None in names or not set(state) <= set(range(len(parameters))):
        return "its parameters have states of different kinds"
    if type(optimizer).__name__ in _UNLIKE_PARAMETERS:
        return None
    kinds = {(name, _kind(value)) for entry in state.values() for name, value in entry.items()}
    if len(kinds) > len({name for name, _ in kinds}):
        return "its parameters have states of different kinds"
    for position, entry in state.items():
        for name, value in entry.items():
            if isinstance(value, Tensor) and value.ndim and value.shape != parameters[position].shape:
                shapes = f"{tuple(value.shape)}, the parameter {tuple(parameters[position].shape)}"
                return f"`{name}` of parameter {position} has shape {shapes}"
            if not isinstance(value, (Tensor, int, float)) and value is not None:
                return f"`{name}` of parameter {position} is a {type(value).__name__}"
    return None


def _options(groups: Any) -> Any:
    if not isinstance(groups, list) or not all(isinstance(group, Mapping) for group in groups):
        return groups
    return [{key: value for key, value in group.items() if key not in _FREE_OPTIONS} for group in groups]


def _is_count(*falling: Any) -> bool:
    """Whether these are integers of at least 0, none greater than the one before."""
    integers = all(isinstance(value, int) and not isinstance(value, bool) for value in falling)
    return integers and sorted(falling, reverse=True) == list(falling) and falling[-1] >= 0


def _is_selection(chosen: Any) -> bool:
    """Whether these are positions or None, and whether they are arranged."""
    if not isinstance(chosen, Sequence) or [_kind(part) for part in chosen[1:]] != ["bool"]:
        return False
    positions = chosen[0]
    return positions is None or (
        isinstance(positions, Tensor) and positions.dtype == torch.int64 and positions.ndim == 1
    )


def _first(found: Any) -> str | None:
    return next(filter(None, found), None)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)) or (isinstance(value, Tensor) and value.ndim == 0):
        return "number"
    for kind, types in (("mapping", Mapping), ("text", str), ("tensor", Tensor), ("list", Sequence)):
        if isinstance(value, types):
            return kind
    return type(value).__name__


def is_known(code: Any) -> bool:
    """Whether a class or function is of Lightning or of this package, and not a project's own."""
    return code.__module__.partition(".")[0] in ("lightning", "pytorch_lightning", "lightning_noisy")
