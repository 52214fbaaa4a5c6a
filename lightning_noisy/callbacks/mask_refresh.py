"""Connection masking (DCM, SEM): trains the classifier on the edges that matter."""

from __future__ import annotations

from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.checks import check_not_compiled
from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.functional.masks import node_mask
from lightning_noisy.heads import LinearHead, MaskableHead
from lightning_noisy.trainer import starts_afresh


class MaskRefresh(Callback):
    r"""Drops, for each input feature of a classifier, the share ``ratio`` of its edges with the lowest scores.

    .. math:: U_{oi} = \operatorname{std}_b(x_{bi} W_{oi}), \qquad z = (W \odot M)\, x + b, \qquad
              \textstyle\sum_o (1 - M_{oi}) = \lfloor pK \rfloor

    Score and mask are renewed every step by default. Masked edges have no gradient in that step and keep their value
    but for weight decay and momentum; the bias is not masked and kept edges are not rescaled. On a linear head the
    score ranks the edges of an input as :math:`|W_{oi}|` whatever the batch, so the mask comes from the weights alone
    and is equal on all processes.

    It works on any project's ``nn.Linear``, in place: state-dict keys, parameters and optimizer stay, and the plain
    layer is back after training and after an exception.

    Args:
        head: Dotted name of the classifier: an ``nn.Linear`` or a head of this package.
        ratio: Share p of each input's edges to drop, in [0, 1): floor(p K) edges. The value behind the published tables
            is lost; the text says the best ratio grows with the noise. Try 0.3 to 0.8.
        every_n_steps: Renew every n optimizer steps. Within one step, gradient accumulation included, the mask stays.
        every_n_epochs: Renew at the start of every n-th epoch instead.
        score: ``"std"``.
        granularity: ``"node"``: the same number of edges for each input feature.
        drop: ``"unimportant"`` drops low scores; ``"important"`` high ones (the published ablation).
        apply_in: ``"train"``; ``"always"`` also masks validation, test and prediction.

    Raises:
        NoisyLabelError: An argument outside its range; at start, no such layer, one that cannot be masked, a compiled
            module, or a strategy that shards parameters.

    References:
        Dynamic Connection Masking, arXiv 2508.09697; its third version calls it Selective Edge Masking. The official
        code is not available: no rescaling, an untouched bias and a mask without gradient are our reading.

    Example::

        Trainer(callbacks=[MaskRefresh(head="classifier", ratio=0.7)])
    """

    def __init__(
        self,
        head: str = "head",
        ratio: float = 0.7,
        every_n_steps: int = 1,
        every_n_epochs: int | None = None,
        score: str = "std",
        granularity: str = "node",
        drop: str = "unimportant",
        apply_in: str = "train",
    ) -> None:
        check_argument(0 <= ratio < 1, "ratio", "a float in [0, 1)", ratio)
        check_argument(every_n_steps >= 1, "every_n_steps", "an int of at least 1", every_n_steps)
        check_argument(every_n_epochs is None or every_n_epochs >= 1, "every_n_epochs", "at least 1", every_n_epochs)
        check_argument(score == "std", "score", "'std'", score)
        check_argument(granularity == "node", "granularity", "'node'", granularity)
        check_argument(drop in ("unimportant", "important"), "drop", "'unimportant' or 'important'", drop)
        check_argument(apply_in in ("train", "always"), "apply_in", "'train' or 'always'", apply_in)
        self.head = head
        self.ratio = ratio
        self.every_n_steps = every_n_steps
        self.every_n_epochs = every_n_epochs
        self.score = score
        self.granularity = granularity
        self.drop = drop
        self.apply_in = apply_in
        self.mask: Tensor | None = None
        """The mask of now (K, D), None before the first step."""
        self._renewed_at: int | None = None
        self._layer: nn.Module | None = None
        self._was_plain = False

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(head=self.head)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(trainer.strategy, (FSDPStrategy, ModelParallelStrategy)):
            raise NoisyLabelError(
                f"MaskRefresh cannot mask `{self.head}` under {type(trainer.strategy).__name__}, which shards its "
                "weights: use strategy='ddp'."
            )
        self._take(pl_module)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if starts_afresh(trainer):
            self.mask = self._renewed_at = None
        self._adopt_mask()

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        now = trainer.global_step if self.every_n_epochs is None else trainer.current_epoch
        interval = self.every_n_epochs or self.every_n_steps
        if self.mask is None or self._renewed_at is None or now // interval != self._renewed_at // interval:
            mask = node_mask(self._head.edge_scores(score=self.score), self.ratio, self.drop)
            self.mask = mask.to(self._weight.dtype)
            self._renewed_at = now
        self._head.edge_mask = self.mask

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.apply_in == "train":
            self._head.edge_mask = None

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._apply_always(pl_module)

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._apply_always(pl_module)

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._apply_always(pl_module)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"mask": None if self.mask is None else self.mask.bool().cpu(), "renewed_at": self._renewed_at}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.mask = state_dict["mask"]
        self._renewed_at = state_dict["renewed_at"]

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._release()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._release()

    def __getstate__(self) -> dict[str, Any]:
        """Copies have no layer: the original has it."""
        return {**self.__dict__, "_layer": None, "_was_plain": False}

    @property
    def _head(self) -> MaskableHead:
        assert self._layer is not None
        return cast(MaskableHead, self._layer)

    @property
    def _weight(self) -> nn.Parameter:
        assert self._layer is not None
        return next(self._layer.parameters())

    def _take(self, pl_module: LightningModule) -> None:
        """Find the layer and make it maskable: a plain Linear becomes a LinearHead, the same object."""
        layer: Any = dict(pl_module.named_modules(remove_duplicate=False)).get(self.head)
        if layer is None:
            linears = [name for name, module in pl_module.named_modules() if isinstance(module, nn.Linear)]
            raise NoisyLabelError(
                f"{type(pl_module).__name__} has no layer `{self.head}` to mask: its linear layers are "
                f"{', '.join(linears[-8:]) or 'none'}."
            )
        check_not_compiled(pl_module, layer, self.head)
        if type(layer) is nn.Linear:
            layer.__class__ = LinearHead
            self._was_plain = True
        elif not isinstance(layer, MaskableHead):
            raise NoisyLabelError(
                f"MaskRefresh cannot mask `{self.head}`, a {type(layer).__name__}: wanted an nn.Linear or a head of "
                "lightning_noisy.heads."
            )
        self._layer = layer

    def _adopt_mask(self) -> None:
        """Bring a mask that a checkpoint may have brought to the layer's dtype and device."""
        if self.mask is None:
            return
        edges = self._head.edge_scores(score=self.score).shape
        if self.mask.shape != edges:
            raise NoisyLabelError(
                f"The checkpoint's mask of `{self.head}` has shape {tuple(self.mask.shape)}, the layer "
                f"{tuple(edges)}: resume with the model that wrote it."
            )
        # Validation comes first at a resume, and what is made in inference mode cannot be trained with.
        with torch.inference_mode(mode=False):
            self.mask = self.mask.to(self._weight.device, self._weight.dtype, copy=True)

    def _apply_always(self, pl_module: LightningModule) -> None:
        if self.apply_in == "always" and self.mask is not None:
            if self._layer is None:
                self._take(pl_module)
            self._adopt_mask()
            self._head.edge_mask = self.mask

    def _release(self) -> None:
        if self._layer is not None:
            self._head.edge_mask = None
            if self._was_plain:
                del self._layer.edge_mask
                self._layer.__class__ = nn.Linear
        self._layer, self._was_plain = None, False
