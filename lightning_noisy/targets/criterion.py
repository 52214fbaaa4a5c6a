"""Which module of a project is its criterion, and what it can take."""

from __future__ import annotations

from torch import nn

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses import NoisyLabelLoss
from lightning_noisy.losses.class_weights import weighs_in_its_own_way

CRITERION_NAMES = ("loss", "criterion")
_TWO_LINES = (
    "make it a submodule, `self.criterion = nn.CrossEntropyLoss()` in __init__ and "
    "`loss = self.criterion(logits, target)` in training_step, or give its dotted name as `criterion`"
)


def find_criterion(root: nn.Module, name: str | None) -> tuple[str, nn.Module]:
    """A criterion among the submodules of ``root``, and its dotted name.

    Args:
        root: The LightningModule.
        name: Dotted name; None takes the one of ``loss``, ``criterion`` that exists.

    Raises:
        NoisyLabelError: There is none, or there are both.
    """
    names = CRITERION_NAMES if name is None else (name,)
    submodules = dict(root.named_modules(remove_duplicate=False))
    present = [candidate for candidate in names if candidate in submodules]
    found = present[0] if present else None
    if len({id(submodules[candidate]) for candidate in present}) > 1:
        raise NoisyLabelError(
            f"{type(root).__name__} has both `loss` and `criterion`: say which one gets logits and target, with "
            "`criterion='loss'` or `criterion='criterion'`."
        )
    if found is None:
        wanted = " or ".join(f"`{candidate}`" for candidate in names)
        raise NoisyLabelError(f"{type(root).__name__} has no criterion module {wanted}: {_TWO_LINES}.")
    return found, submodules[found]


def check_soft_targets(criterion: nn.Module | None, changer: str) -> None:
    """Refuse a criterion that cannot take soft targets.

    Args:
        criterion: The criterion.
        changer: Who makes them, for the message.

    Raises:
        NoisyLabelError: It takes class indices only, ignores some, or weighs classes in a way of its own.
    """
    hard_only = isinstance(criterion, (nn.NLLLoss, nn.MultiMarginLoss)) or not getattr(criterion, "soft_targets", True)
    ignores = getattr(criterion, "ignore_index", -100) >= 0
    if hard_only or ignores:
        why = "its `ignore_index` has no meaning for them" if ignores else "it takes class indices only"
        raise NoisyLabelError(
            f"{changer} makes soft targets, but {type(criterion).__name__} cannot take them: {why}; "
            "use `nn.CrossEntropyLoss()` or a loss with `soft_targets`."
        )
    if criterion is not None and not isinstance(criterion, NoisyLabelLoss) and weighs_in_its_own_way(criterion):
        raise NoisyLabelError(
            f"{changer} makes soft targets, and how the class weights of {type(criterion).__name__} act on them is not "
            "known: use `nn.CrossEntropyLoss(weight=...)`, whose weights are then those of the given labels."
        )
