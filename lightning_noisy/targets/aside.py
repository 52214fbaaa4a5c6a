"""The loss of a call with another target, of which nothing is left behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_noisy.targets.functional_criterion import FunctionalCriterion
from lightning_noisy.targets.module_criterion import ModuleCriterion
from lightning_noisy.targets.passes import pass_aside
from lightning_noisy.targets.signature import BoundCall


def loss_aside(
    place: ModuleCriterion | FunctionalCriterion, call: BoundCall, context: Mapping[str, Any], target: Tensor
) -> Tensor:
    """The mean loss of a call with another target, with the gradient of its logits.

    A copy of the criterion computes it, so that stores, draws, counts and statistics of the criterion are as before,
    and so are the random streams. Parameters that are penalized are kept from it.

    Args:
        place: The criterion.
        call: The call.
        context: What the criterion requires and the call does not pass.
        target: Labels (B,) or, where the criterion takes them, rows (B, K).

    Returns:
        Scalar.

    Raises:
        NoisyLabelError: The criterion cannot be copied.
    """
    args, kwargs = call.with_target(target, **context)
    if "parameters" in kwargs:
        kwargs["parameters"] = (torch.zeros(1, device=call.logits.device),)  # a penalty of nothing
    devices = [call.logits.device] if call.logits.is_cuda else []
    with pass_aside(), torch.enable_grad(), torch.random.fork_rng(devices=devices):
        return place.aside(args, kwargs).mean()
