"""The contract between a loss and the module or project that calls it."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.losses._batch import batch_mean
from lightning_noisy.losses._store import Store
from lightning_noisy.private_api import calling_module
from lightning_noisy.storage import Storage, storage_for

_MEANINGS = {
    "index": ", the positions (B,) of the samples in the training set",
    "features": ", the features (B, D) that the logits were made of",
    "parameters": ", the parameters of the network",
    "views": ", the logits (B, K) of each view",
    "epoch": ", the number of the epoch, from 0",
    "total_epochs": ", the number of epochs",
}


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_SELF_LOGITS_TARGET = 3


class NoisyLabelLoss(nn.Module, ABC):
    """Base of the losses. A loss writes :meth:`losses`, the value of each sample; the rest is done here, once.

    **The contract.** ``loss(logits, target, **context)`` takes floating-point logits (B, K) and int64 labels (B,) or,
    where :attr:`soft_targets` is true, floating-point targets (B, K). ``context`` are the keywords in the signature of
    :meth:`losses`: those without a default have to be there, others are refused, and a NoisyLabelModule passes the ones
    that it knows by their names (:attr:`requires`). Logits may have any floating dtype: losses compute in float32
    (float64 for float64 logits). The result is reduced over the batch as ``reduction`` says.

    **Statistics of a batch** (weights that sum to B, a penalty on the mean prediction) belong into the value of each
    sample, such that the mean over the batch is the published loss: a penalty is in every entry, once in the mean and B
    times in the sum. A loss that has one value for a batch and none for a sample says so by :attr:`sample_values`.

    **Memory.** A loss that keeps rows for the training samples names its stores in :meth:`store_shapes` and reads and
    writes them through :meth:`recall`, in training mode only. A batch may hold a sample twice, and an epoch may visit
    it several times: its docstring says what a second visit does.

    **Names.** A loss bears the spelled-out name of its method. ``Loss`` ends it where the words before could not stand
    for the method alone (``FocalLoss``, ``JensenShannonLoss``), not where they can (``GeneralizedCrossEntropy``,
    ``SelfAdaptiveTraining``). Its function of :mod:`lightning_noisy.functional.losses` is in the file of the same name.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the batch, as in torch.
        storage: How the stores of a loss with memory keep their rows; None in whole float32 rows.

    Raises:
        NoisyLabelError: Another reduction, ``"none"`` for a loss without values of samples, or a storage that the loss
            cannot live with.
    """

    requires: ClassVar[tuple[str, ...]] = ()
    """Keywords that the caller passes, out of index, features, parameters, views, epoch, total_epochs: those in the
    signature of :meth:`losses`. A loss whose signature has ``**context`` names them itself."""

    soft_targets: ClassVar[bool] = False
    """Whether the loss takes targets (B, K)."""

    sample_values: ClassVar[bool] = True
    """Whether each sample has a loss of its own. Else the value of the batch stands in every entry: the mean is that
    value, the sum is B times it, and ``reduction="none"`` and :func:`per_sample` are refused."""

    extra_outputs: ClassVar[int] = 0
    """Outputs of the network that the loss needs beside the K of the classes, after which they stand."""

    unfit_storage: ClassVar[Mapping[str, str]] = {"top_k": "they are no probabilities of classes"}
    """Arguments of :class:`~lightning_noisy.Storage` that its stores cannot live with, and why."""

    _left_to_parts: ClassVar[bool] = False
    """Whether required keywords that are not in the signature of :meth:`losses` are missed by the parts of the loss."""

    _optional: ClassVar[dict[str, bool]] = {}
    """The keywords in the signature of :meth:`losses`, and whether they have a default."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "losses" not in vars(cls):
            return
        parameters = inspect.signature(cls.losses).parameters.values()
        closed = all(parameter.kind not in _VARIADIC for parameter in parameters)
        own = [parameter for parameter in parameters if parameter.kind not in _VARIADIC][_SELF_LOGITS_TARGET:]
        cls._optional = {parameter.name: parameter.default is not parameter.empty for parameter in own}
        if closed and "requires" not in vars(cls):
            cls.requires = tuple(cls._optional)

    def __init__(self, reduction: str = "mean", storage: Storage | None = None) -> None:
        super().__init__()
        check_argument(reduction in ("mean", "sum", "none"), "reduction", "'mean', 'sum' or 'none'", reduction)
        self.reduction = reduction
        self.storage = storage_for(type(self).__name__, storage, self.unfit_storage)
        """How its stores keep their rows."""
        self.stores: dict[str, Store] = {}
        self.check_sample_values()

    @abstractmethod
    def losses(self, logits: Tensor, target: Tensor, *args: Any, **context: Any) -> Tensor:
        """The loss of each sample, with the arguments as they are now; in training it may write stores.

        A subclass spells its keywords out: ``def losses(self, logits, target, index, epoch)``.

        Args:
            logits: Floating-point tensor (B, K), and :attr:`extra_outputs` more.
            target: int64 labels (B,), or floating-point targets (B, K) where the loss takes them.
            args: None.
            context: The keywords of the loss.

        Returns:
            Tensor (B,).
        """

    @final  # type: ignore[misc]
    @override
    def forward(self, logits: Tensor, target: Tensor, **context: Any) -> Tensor:
        """The loss of a batch.

        Args:
            logits: Floating-point tensor (B, K), and :attr:`extra_outputs` more.
            target: int64 labels (B,), or floating-point targets (B, K) where :attr:`soft_targets` is true.
            context: The keywords in the signature of :meth:`losses`.

        Returns:
            Scalar, or (B,) without reduction.

        Raises:
            NoisyLabelError: A keyword that is missing or unknown, logits or a target of another dtype or shape, a store
                that nobody has attached, or :meth:`losses` does not give (B,).
        """
        self._check_context(context)
        self._check_batch(logits, target)
        losses = self.losses(logits, target, **context)
        if losses.shape != target.shape[:1]:
            raise NoisyLabelError(
                f"{type(self).__name__}.losses returned a tensor of shape {tuple(losses.shape)} for a batch of "
                f"{len(target)}: wanted ({len(target)},), the loss of each sample."
            )
        if self.reduction == "none":
            return losses
        return losses.mean() if self.reduction == "mean" else losses.sum()

    def bind(self, num_features: int, num_classes: int) -> None:
        """Make the parts whose size depends on the network. Called once, before the optimizer is made."""

    def store_shapes(self, num_classes: int) -> dict[str, tuple[int, ...]]:
        """The per-sample stores of the loss: name -> shape of a row. They start at zero; ``{}`` means no memory."""
        return {}

    def storage_of(self, name: str) -> Storage:
        """How the store ``name`` of :meth:`store_shapes` keeps its rows."""
        return self.storage

    def recall(self, name: str) -> Store:
        """The store ``name`` of :meth:`store_shapes`.

        Raises:
            NoisyLabelError: Nobody has attached it; or a Trainer trains, and no run owns it.
        """
        store = self.stores.get(name)
        if not getattr(store, "in_run", False) and calling_module() is not None:
            raise NoisyLabelError(
                f"{type(self).__name__} keeps a store of the training set, which nobody would save or merge here: add "
                "the callback `LossMemory()` to the Trainer, or use the loss in a NoisyLabelModule."
            )
        if store is None:
            raise NoisyLabelError(
                f"{type(self).__name__} keeps a store of the training set that is not attached yet: in a loop of your "
                f"own give the loss to `NoisyLoop(criterion=...)` with the callback `LossMemory()`."
            )
        return store

    def batch_mean(self, values: Tensor) -> Tensor:
        """The mean over samples, (B, ...) -> (...): of all processes in training, a collective; else of this one."""
        return batch_mean(values) if self.training else values.mean(dim=0)

    def missing(self, name: str) -> NoisyLabelError:
        """The error to raise where a keyword with a default turns out to be needed."""
        way_out = f"pass `{name}=...`, add the callback `LossMemory()`, or use it in a NoisyLabelModule"
        if not self.training:
            way_out = "in validation and test call another criterion, such as `F.cross_entropy`"
        return NoisyLabelError(
            f"{type(self).__name__} expects `{name}`{_MEANINGS.get(name, '')}, but got None: {way_out}."
        )

    def check_sample_values(self) -> None:
        """Refuse ``reduction="none"`` where samples have no values.

        Raises:
            NoisyLabelError: They have none.
        """
        if self.reduction == "none" and not self.sample_values:
            raise no_sample_values(self)

    @override
    def extra_repr(self) -> str:
        """The plain arguments, for ``print``."""
        plain = (int, float, str, bool)
        arguments = {k: v for k, v in vars(self).items() if not k.startswith("_") and isinstance(v, plain)}
        return ", ".join(f"{name}={value!r}" for name, value in arguments.items() if name != "training")

    def _check_context(self, context: dict[str, Any]) -> None:
        known = dict.fromkeys((*self.requires, *self._optional))
        for name in known:
            if context.get(name) is None and not self._optional.get(name, self._left_to_parts):
                raise self.missing(name)
        if unknown := [f"`{name}`" for name in context if name not in known]:
            takes = ", ".join(f"`{name}`" for name in known) or "none"
            raise NoisyLabelError(
                f"{type(self).__name__} was called with {', '.join(unknown)}, but the keywords that it takes are "
                f"{takes}: leave the others out."
            )

    def _check_batch(self, logits: Tensor, target: Tensor) -> None:
        """Refuse dtypes and shapes. Looks at no value, so it costs an accelerator nothing."""
        if logits.ndim != 2 or not logits.is_floating_point():
            raise NoisyLabelError(
                f"{type(self).__name__} expects floating-point logits (B, K), but got a {logits.dtype} tensor of shape "
                f"{tuple(logits.shape)}."
            )
        labels = target.dtype == torch.int64 and target.shape == logits.shape[:1]
        soft = target.is_floating_point() and target.shape == logits.shape
        if labels or (soft and self.soft_targets):
            return
        wanted = "int64 labels (B,)" + (" or floating-point targets (B, K)" if self.soft_targets else "")
        way_out = ": give labels (`target.argmax(dim=1)`) or use a loss with `soft_targets = True`" if soft else ""
        raise NoisyLabelError(
            f"{type(self).__name__} expects {wanted} for its logits of shape {tuple(logits.shape)}, but got a "
            f"{target.dtype} target of shape {tuple(target.shape)}{way_out}."
        )


def no_sample_values(loss: NoisyLabelLoss) -> NoisyLabelError:
    """The error where values of samples are asked of a loss that has none."""
    return NoisyLabelError(
        f"{type(loss).__name__} has one value for a batch and none for each sample: use it with reduction='mean', "
        "without selection of samples."
    )
