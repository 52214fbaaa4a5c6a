"""SAM: steps by the gradient of the worst loss nearby."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.private_api import calling_module
from lightning_noisy.trainer_access import check_not_sharded

_TINY = 1e-12


class SAM(Optimizer):
    r"""Sharpness-aware minimization around any optimizer: the gradient comes from the worst point nearby.

    .. math:: \epsilon = \rho\, \frac{g}{\lVert g \rVert_2}, \qquad g = \nabla L(w), \qquad
              w \leftarrow \operatorname{base}\big(w, \nabla L(w + \epsilon)\big)

    with the norm over all parameters of all groups. ``adaptive`` scales each weight by its size (ASAM): :math:`\epsilon
    = \rho\, w^2 g / \lVert\, |w|\, g \,\rVert_2`.

    A step evaluates the loss twice, so it costs two, and takes a closure that clears gradients, evaluates and runs
    backward, as Lightning's automatic optimization gives it. The step returns the loss of the first pass; our module
    logs that one and writes memories once. Weights are put back exactly, also when the second pass fails.

    Both passes see the batch, and both gradients are averaged over processes, so two processes equal one with the
    whole batch (the paper's code lets each process climb by its own gradient). Both are clipped, which leaves the
    direction of the first as it is when clipping is by norm. Dropout draws anew in the second pass, as in the official
    codes, and batch norm moves its running statistics in both.

    Groups and state are the base optimizer's: schedulers act on its learning rates, and a checkpoint is one of the
    base optimizer with ``rho`` and ``adaptive`` beside in each group.

    Args:
        params: Parameters or groups; a group may have its own ``rho`` and ``adaptive``.
        base: Makes the optimizer that steps, from parameters; None is SGD. From Python a class or
            ``functools.partial`` too, with the further keywords of ``SAM`` as its own. On the command line
            ``--model.optimizer SAM`` goes around the optimizer that the configuration has.
        rho: Radius :math:`\rho \ge 0`. Published: 0.05; adaptive: 2.0 or 0.5.
        adaptive: Whether a weight's share of the radius is proportional to its size.
        **options: Arguments of ``base``, e.g. ``lr=0.1``.

    Raises:
        NoisyLabelError: ``rho`` < 0; neither ``base`` nor ``lr``; in a step: no closure, as float16 with a gradient
            scaler leaves it out; gradient accumulation, whose earlier batches the second pass would lack; a strategy
            that shards parameters; a closure without gradients in the second pass.

    References:
        Foret et al., Sharpness-Aware Minimization for Efficiently Improving Generalization, ICLR 2021.
        Kwon et al., ASAM, ICML 2021.

    Example::

        optimizer=lambda parameters: SAM(parameters, torch.optim.SGD, lr=0.1, momentum=0.9)

    In YAML::

        optimizer:
          class_path: lightning_noisy.optim.SAM
          init_args:
            base: {class_path: torch.optim.SGD, init_args: {lr: 0.1, momentum: 0.9}}
    """

    def __init__(
        self,
        params: Iterable[Any],
        base: OptimizerCallable | None = None,
        rho: float = 0.05,
        adaptive: bool = False,
        **options: Any,
    ) -> None:
        check_argument(rho >= 0, "rho", "a float of at least 0", rho)
        if base is None and "lr" not in options:
            raise NoisyLabelError(
                "SAM steps by another optimizer, whose learning rate nobody has told: give `base`, in YAML "
                "{class_path: SGD, init_args: {lr: 0.1}} and on the command line `--model.optimizer.base SGD "
                "--model.optimizer.base.lr 0.1`, or from Python `lr`."
            )
        super().__init__(params, {"rho": rho, "adaptive": adaptive})
        self.base = (torch.optim.SGD if base is None else base)(self.param_groups, **options)
        """The optimizer that steps."""
        self._share()

    @override
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Climb, look, come back, and step.

        Args:
            closure: Clears gradients, evaluates the loss, runs backward and returns it.

        Returns:
            The loss of the first pass.
        """
        if closure is None:
            raise NoisyLabelError(
                "SAM evaluates the loss twice in a step, and got no closure to do so: use precision 'bf16-mixed' or 32 "
                "instead of float16 with a gradient scaler, or call `optimizer.step(closure)`."
            )
        _check_trainer()
        with torch.enable_grad():
            loss = closure()
        before = self._climb()
        try:
            self.zero_grad()
            with torch.enable_grad():
                closure()
            if before and not self._gradients():
                raise NoisyLabelError(
                    "SAM called its closure a second time, and no parameter got a gradient: under manual optimization "
                    "call `optimizer.step(closure)` with one that evaluates the loss and runs backward."
                )
        finally:
            for weight, value in before:
                weight.copy_(value)
        self.base.step()
        return loss

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.base.load_state_dict(state_dict)
        self._share()

    @override
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        if hasattr(self, "base"):  # whose defaults the new group lacks
            for name, value in self.base.defaults.items():
                self.param_groups[-1].setdefault(name, value)

    @override
    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "base": self.base}

    def _share(self) -> None:
        """One list of groups and one state for both."""
        self.param_groups, self.state = self.base.param_groups, self.base.state

    def _gradients(self) -> list[tuple[Tensor, Tensor, dict[str, Any]]]:
        return [(p, p.grad, group) for group in self.param_groups for p in group["params"] if p.grad is not None]

    def _climb(self) -> list[tuple[Tensor, Tensor]]:
        """Go to the worst point nearby.

        Returns:
            The weights that have moved, and where they were.
        """
        found = self._gradients()
        if not found:
            return []
        scaled = [gradient * weight.abs() if group["adaptive"] else gradient for weight, gradient, group in found]
        home = scaled[0].device
        norm = torch.stack([torch.linalg.vector_norm(part).to(home) for part in scaled]).norm() + _TINY
        before = [(weight, weight.clone()) for weight, _, _ in found]
        for (weight, _, group), part in zip(found, scaled, strict=True):
            direction = part * weight.abs() if group["adaptive"] else part
            weight.add_(direction * (group["rho"] / norm).to(weight))
        return before


def _check_trainer() -> None:
    module = calling_module()
    if module is None:
        return
    check_not_sharded(module.trainer, "SAM cannot measure its gradient")
    batches = module.trainer.accumulate_grad_batches
    if batches > 1:
        raise NoisyLabelError(
            f"SAM cannot step with accumulate_grad_batches={batches}: its second pass would see the last of them "
            "alone; use 1, and a larger batch."
        )
