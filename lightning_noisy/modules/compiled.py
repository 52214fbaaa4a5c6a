"""Backbones and heads that run in compiled form while a fit lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.functional.scores import AllReduce
from lightning_noisy.heads.maskable import MaskableHead
from lightning_noisy.modules.private_api import compiler_failure, graphs_that_stay, may_differ_in_size
from lightning_noisy.networks.classifier import Classifier
from lightning_noisy.private_api import Callback, is_compiled


def compile_options(given: bool | dict[str, Any]) -> dict[str, Any] | None:
    """The keyword arguments of ``torch.compile``; None where nothing is to be compiled.

    Args:
        given: What the user gave.

    Raises:
        NoisyLabelError: ``torch.compile`` does not take them.
    """
    wanted = "a bool, or keyword arguments of torch.compile"
    check_argument(isinstance(given, (bool, dict)), "compile", wanted, given)
    if isinstance(given, bool):
        return {} if given else None
    try:
        torch.compile(nn.Identity(), **given)
    except (TypeError, ValueError, RuntimeError) as error:
        check_argument(False, "compile", f"{wanted} ({str(error).splitlines()[0]})", given)
    return dict(given)


class CompiledNetworks(Callback):
    """Compiles the networks of a module once all other callbacks have begun, and gives them back at the end of the fit.

    Compiled are functions of tensors alone: the forward pass of each backbone and head, teachers' too, and of a head
    that can be masked what it makes of features and mask. Hooks, the renewal of masks, criteria, stores and logging lie
    between them. Names in checkpoints are as ever, and copies of the module run as they are written.

    The module's ``compile_options`` say how; None leaves it as it is.
    """

    def __init__(self) -> None:
        self._compiled: list[CompiledMethod] = []
        self._around = ExitStack()

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._release()
        options = getattr(pl_module, "compile_options", None)
        if options is not None:
            self._compiled = list(_compiled_parts(pl_module, options))
            if any(getattr(one, "keeps_graph", False) for one in trainer.callbacks):  # type: ignore[attr-defined]
                self._around.enter_context(graphs_that_stay())
        for part in self._compiled:
            part.begin()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._release()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._release()

    def _release(self) -> None:
        for part in self._compiled:
            part.end()
        self._compiled = []
        self._around.close()

    def __getstate__(self) -> dict[str, Any]:
        """Copies have compiled nothing."""
        return vars(CompiledNetworks())


def _as_written(module: nn.Module, method: str) -> Any:
    """A method of a module as its class has it: what a copy of the module has in the place of the compiled one."""
    return getattr(type(module), method).__get__(module)


class CompiledMethod:
    """Stands in a module for one of its methods and runs it in compiled form.

    Args:
        module: The module.
        method: Name of the method, a function of tensors whose first one is a batch.
        name: Dotted name of the module, for messages.
        options: Keyword arguments of ``torch.compile``.
    """

    def __init__(self, module: nn.Module, method: str, name: str, options: dict[str, Any]) -> None:
        self.module, self.method, self.name = module, method, name
        self._before = {name: value for name, value in vars(module).items() if name == method}
        self._any_size = "dynamic" not in options
        self._function = torch.compile(self.function(), **options)

    def function(self) -> Callable[..., Tensor]:
        """What is compiled."""
        written: Callable[..., Tensor] = getattr(self.module, self.method)
        return written

    def begin(self) -> None:
        """Take the method's place."""
        vars(self.module)[self.method] = self

    def end(self) -> None:
        """Give it back."""
        vars(self.module).pop(self.method, None)
        vars(self.module).update(self._before)

    def __call__(self, *args: Any) -> Any:
        """The method's answer.

        Raises:
            NoisyLabelError: It cannot be compiled here.
        """
        if self._any_size and isinstance(args[0], Tensor):
            may_differ_in_size(args[0])
        around = self.module.looked_up() if isinstance(self.module, MaskableHead) else nullcontext()
        try:
            with around:
                outputs = self._function(*args)
        except RuntimeError as error:
            why = compiler_failure(error)
            if why is None:
                raise
            raise NoisyLabelError(
                f"`{self.name}` cannot be compiled here ({why}): torch.compile needs a C++ compiler, and on a GPU "
                "Triton; leave out `compile` to train without."
            ) from error
        # CUDA graphs write over what a pass without gradients has given as soon as the next one runs.
        return outputs.clone() if outputs.is_cuda and not outputs.requires_grad else outputs

    def __reduce__(self) -> tuple[Any, ...]:
        return _as_written, (self.module, self.method)


class _CompiledForward(CompiledMethod):
    """The forward pass of a head that can be masked, unless somebody looks at its basis: then that of the class.

    What is compiled around it, a network that has the head inside, breaks off there.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._outside = torch.compiler.disable(self._answer)  # type: ignore[no-untyped-call]

    def __call__(self, *args: Any) -> Any:
        return self._outside(*args)

    @override
    def function(self) -> Callable[..., Tensor]:
        head: Any = self.module
        cls = type(head)

        def answer(features: Tensor, mask: Tensor | None) -> Tensor:
            logits: Tensor = cls.logits(head, cls.basis(head, features), mask)
            return logits

        return answer

    def _answer(self, features: Tensor) -> Any:
        head: Any = self.module
        if head.on_basis is not None or features.shape[1:] != (head.in_features,):
            return type(head).forward(head, features)
        return super().__call__(features, head.edge_mask)


class _CompiledScores(CompiledMethod):
    """The spread or size of a head's edges in a batch; what processes add up, and other scores, as they are written."""

    @override
    def __call__(self, basis: Tensor, score: str, all_reduce: AllReduce | None = None) -> Any:
        if all_reduce is not None or score not in ("std", "activation"):
            return _as_written(self.module, self.method)(basis, score, all_reduce)
        return super().__call__(basis, score)


def _compiled_parts(root: nn.Module, options: dict[str, Any]) -> Iterator[CompiledMethod]:
    """What is compiled of a module, before it takes its place there."""
    for path, network in root.named_modules():
        if not isinstance(network, Classifier):
            continue
        for name, part in (("backbone", network.backbone), ("head", network.head)):
            place = f"{path}.{name}"
            if is_compiled(part):
                raise NoisyLabelError(f"`{place}` arrives compiled: leave out `compile`, or hand it over as it is.")
            for head in part.modules():
                if isinstance(head, MaskableHead):
                    yield from compiled_head(head, place, options)
            if not isinstance(part, MaskableHead):
                yield CompiledMethod(part, "forward", place, options)


def compiled_head(head: MaskableHead, name: str, options: dict[str, Any]) -> Iterator[CompiledMethod]:
    """The methods of a head that can be masked, before they take their places.

    Args:
        head: The head.
        name: Its dotted name, for messages.
        options: Keyword arguments of ``torch.compile``.
    """
    yield _CompiledForward(head, "forward", name, options)
    if head.num_terms > 1:  # else there is nothing to gain where its basis is looked at
        yield CompiledMethod(head, "basis", name, options)
        yield CompiledMethod(head, "logits", name, options)
        yield _CompiledScores(head, "batch_scores", name, options)
