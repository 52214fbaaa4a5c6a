"""Which module of a project is its criterion, and what it can take."""

from __future__ import annotations

import copy
from difflib import get_close_matches

import torch
from torch import nn
from torchmetrics import Metric

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses import NoisyLabelLoss
from lightning_noisy.losses.class_weights import has_custom_class_weights
from lightning_noisy.targets.functional_criterion import FUNCTIONS, FunctionalCriterion
from lightning_noisy.targets.module_criterion import ModuleCriterion
from lightning_noisy.targets.signature import BoundCall

CRITERION_NAMES = ("loss", "criterion")
_TORCH = nn.CrossEntropyLoss.__module__


def find_criterion(root: nn.Module, name: str | None) -> ModuleCriterion | FunctionalCriterion:
    """The criterion of a project: a module of it, else the functions of torch that its step calls.

    Args:
        root: The LightningModule.
        name: Dotted name, or that of a function: ``F.cross_entropy``. None takes ``loss`` or ``criterion``, whichever
            is there, and without either ``F.cross_entropy`` or ``F.nll_loss``, whichever is called.

    Raises:
        NoisyLabelError: There is no such module, or both of the usual names.
    """
    if name in FUNCTIONS:
        return FunctionalCriterion((name,))
    modules = dict(root.named_modules(remove_duplicate=False))
    metrics = {found for found, module in modules.items() if isinstance(module, Metric)}
    names = [candidate for candidate in CRITERION_NAMES if candidate in modules and candidate not in metrics]
    if name is None and not names:
        return FunctionalCriterion(tuple(FUNCTIONS))
    if name is None and len({id(modules[candidate]) for candidate in names}) > 1:
        raise NoisyLabelError(
            f"{type(root).__name__} has both `loss` and `criterion`: say which one is called with logits and target, "
            'by `criterion="criterion"` or `criterion="loss"`.'
        )
    chosen = names[0] if name is None else name
    if chosen not in modules:
        near = get_close_matches(chosen, [*modules, *FUNCTIONS], 1)
        raise NoisyLabelError(
            f"{type(root).__name__} has no module `{chosen}`"
            + (f"; did you mean `{near[0]}`?" if near else ": give the dotted name of its criterion, or leave it out.")
        )
    return ModuleCriterion(modules[chosen], chosen)


def check_soft_targets(criterion: nn.Module | None, changer: str) -> None:
    """Refuse a criterion that cannot take soft targets.

    Args:
        criterion: The criterion.
        changer: Who makes them, for the message.

    Raises:
        NoisyLabelError: It takes class indices only, ignores some, or weighs classes in a way of its own.
    """
    hard_only = isinstance(criterion, (nn.NLLLoss, nn.MultiMarginLoss)) or not getattr(criterion, "soft_targets", True)
    ignored = getattr(criterion, "ignore_index", None)
    ignores = ignored is not None and ignored >= 0
    if hard_only or ignores:
        why = "its `ignore_index` has no meaning for them" if ignores else "it takes class indices only"
        raise NoisyLabelError(
            f"{changer} makes soft targets, but {type(criterion).__name__} cannot take them: {why}; "
            "use `nn.CrossEntropyLoss()` or a loss with `soft_targets`."
        )
    if criterion is not None and not isinstance(criterion, NoisyLabelLoss) and has_custom_class_weights(criterion):
        raise NoisyLabelError(
            f"{changer} makes soft targets, and how the class weights of {type(criterion).__name__} act on them is not "
            "known: use `nn.CrossEntropyLoss(weight=...)`, whose weights are then those of the given labels."
        )


def try_soft_targets(criterion: nn.Module | None, call: BoundCall, changer: str) -> None:
    """Ask a copy of a project's criterion whether it takes soft targets: at the first batch, not at the first change.

    Args:
        criterion: The criterion; torch's and ours are known, as is a function.
        call: How it was called, with labels.
        changer: Who makes them, for the message.

    Raises:
        NoisyLabelError: It does not.
    """
    if criterion is None or isinstance(criterion, NoisyLabelLoss) or type(criterion).__module__ == _TORCH:
        return
    rows = nn.functional.one_hot(call.target.long(), call.logits.shape[1]).to(call.logits.dtype)
    devices = [call.logits.device] if call.logits.is_cuda else []
    args, kwargs = call.with_target(rows)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            copy.deepcopy(criterion).forward(*args, **kwargs)
    except Exception as error:  # whatever a project's own code says to them
        raise NoisyLabelError(
            f"{changer} makes soft targets, but {type(criterion).__name__} fails with them "
            f"({type(error).__name__}: {' '.join(str(error).split())[:120]}): use `nn.CrossEntropyLoss()`, or let it "
            "take targets (B, K)."
        ) from error
