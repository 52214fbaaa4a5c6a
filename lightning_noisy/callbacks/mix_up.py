"""MixUp: training on convex combinations of two samples and of their targets."""

from __future__ import annotations

import math
from collections.abc import MutableMapping, MutableSequence, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from lightning_noisy.callbacks.criterion_callback import CriterionCallback
from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.functional.mixing import mix, mixing_partners, mixing_share
from lightning_noisy.targets import TargetCall, TargetPipeline

_STREAM = 0x6D69787570  # keeps these draws apart from other draws under the same seed


class MixUp(CriterionCallback):
    r"""Mixes the inputs of each training batch with one another, and the targets at the criterion alike.

    .. math::
        \tilde x_i = \lambda x_i + (1 - \lambda) x_{\pi(i)}, \quad
        \tilde t_i = \lambda t_i + (1 - \lambda) t_{\pi(i)}, \qquad
        \lambda \sim \operatorname{Beta}(\alpha, \alpha)

    with one :math:`\lambda` and one random permutation :math:`\pi` a batch, functions of (seed, epoch, batch) and
    (seed, epoch, batch, index). For cross entropy it is :math:`\lambda \mathcal{L}(y_i) + (1 - \lambda)
    \mathcal{L}(y_{\pi(i)})`, also with class weights; other losses get the soft target.

    The inputs are floating-point tensors (B, ...), images or features, or a list of views, which are mixed alike. The
    entry of the batch is replaced, so the batch has to be a list, as PyTorch's collation makes of tuples, or a dict.
    Nothing is mixed in validation.

    Targets are mixed last: those of SELC and of other callbacks that change them are what is mixed, in whatever order
    the callbacks are listed. Whatever keeps predictions (SELC, gradient switching, trackers, ELR) sees those of mixed
    inputs; in the published methods that keep targets, MixUp belongs to a second run on their final labels (SELC+: see
    :class:`LabelWriter`).

    With several processes :math:`\lambda` is the same in all, but partners are of the same process: this is one of the
    exceptions from "two processes equal one".

    Args:
        alpha: Parameter of the Beta distribution, finite and more than 0. SELC+ has 0.9; large ones mix halves.
        seed: Seed of the draws; None takes the run's (``seed_everything``), else 0.
        input_key: Where the batch holds the inputs; None takes the first entry of a list, or ``image`` of a dict.
        **options: ``criterion``, ``index_key``, ``check_labels``, ``storage``, as in :class:`CriterionCallback`.

    Raises:
        NoisyLabelError: ``alpha`` outside its range; at start, a criterion that cannot take soft targets; at a batch
            that is no list or dict, or without floating-point inputs; at fit, a checkpoint of another data set.

    References:
        Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018. Its code draws from a stream; a sample may
        be its own partner there as here.

    Example::

        Trainer(callbacks=[MixUp(alpha=1.0)])
    """

    replaces_target = False
    makes_soft_targets = True

    def __init__(
        self,
        alpha: float = 1.0,
        seed: int | None = None,
        input_key: int | str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_argument(0 < alpha < math.inf, "alpha", "a finite float > 0", alpha)
        self.alpha = alpha
        self.seed = seed
        self.input_key = input_key
        self._lam = 1.0
        self._partners: Tensor | None = None

    @override
    def join(self, pipeline: TargetPipeline) -> None:
        """Nothing yet: the other callbacks join at the start of the fit, this one at that of training, so last."""

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.pipeline.add_changer(self)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        assert self.run.batch is not None
        seed = self.run.seed if self.seed is None else self.seed
        keys = _STREAM, seed, trainer.current_epoch, batch_idx
        self._lam = mixing_share(self.alpha, *keys)
        self._partners = mixing_partners(self.run.batch.index(self.index_key), *keys)
        key = self._key(batch)
        batch[key] = self._mixed_inputs(batch[key])

    def change_target(self, call: TargetCall) -> Tensor:
        """Mix the targets of the batch as its inputs were."""
        return call.soft_target(self.mix(call.rows(call.target)))

    def mix(self, values: Tensor) -> Tensor:
        """Values of the batch's samples (B, ...), mixed as its inputs are."""
        assert self._partners is not None
        return mix(values, self._partners, self._lam)

    def _mixed_inputs(self, inputs: Any) -> Any:
        if isinstance(inputs, (list, tuple)):
            return [self._mixed_inputs(view) for view in inputs]
        if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
            came = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
            raise NoisyLabelError(
                f"MixUp expects floating-point inputs (B, ...), but got {came}: name their entry of the batch with "
                "`input_key`, or convert them in the transform."
            )
        return self.mix(inputs)

    def _key(self, batch: Any) -> Any:
        """Where the batch holds its inputs."""
        listed = isinstance(batch, MutableSequence)
        if not listed and not isinstance(batch, MutableMapping):
            raise NoisyLabelError(
                f"MixUp replaces the inputs in the batch, but a {type(batch).__name__} cannot be changed: let the "
                "collation return a list or a dict."
            )
        default: int | str = 0 if listed else "image"
        key: Any = default if self.input_key is None else self.input_key
        if self.input_key is None and listed:
            _check_one_input(batch)
        known = list(range(-len(batch), len(batch))) if listed else list(batch)
        check_argument(key in known, "input_key", f"one of {known}, where the batch holds its inputs", key)
        return key


def _check_one_input(batch: Sequence[Any]) -> None:
    """Refuse a batch of which several entries may be its inputs."""
    rows = [part for part in batch if isinstance(part, Tensor) and part.ndim and part.is_floating_point()]
    if len(rows) > 1:
        shapes = " and ".join(str(tuple(part.shape)) for part in rows)
        raise NoisyLabelError(
            f"MixUp finds several floating-point entries in the batch, {shapes}: name the inputs by `input_key`."
        )
