"""Connection masking (DCM, SEM): trains the classifier on the edges that matter."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from operator import attrgetter
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from lightning_noisy.callbacks.classifier_layers import default_heads, warn_of_tied_weights
from lightning_noisy.callbacks.head_mask import HeadMask
from lightning_noisy.callbacks.mask_rule import MaskRule
from lightning_noisy.errors import check_argument
from lightning_noisy.private_api import Callback, batches_begun
from lightning_noisy.state import RunDriver
from lightning_noisy.trainer_access import check_not_sharded


class MaskRefresh(Callback):
    r"""Drops, for each input feature of a classifier, the share ``ratio`` of its edges with the lowest scores.

    .. math:: U_{oi} = \operatorname{std}_b\big(a_{oi}(x_{bi})\big), \qquad z_o = b_o + \sum_i M_{oi}\, a_{oi}(x_i),
              \qquad \textstyle\sum_o (1 - M_{oi}) = \lfloor pK \rfloor

    with the activation :math:`a_{oi}(x) = W_{oi} x` of an edge of a linear head (DFC), or its learned function in a KAN
    head (DKAN). Score and mask are renewed every step by default. Masked edges have no gradient in that step (but, in a
    cosine head, through the length of their row) and keep their value but for weight decay and momentum; the bias is
    not masked and kept edges are not rescaled.

    The scores of an edge, formulas in :mod:`lightning_noisy.functional.scores`:

    =============  ====================================================================  ==========================
    score          what it is                                                            comes from
    =============  ====================================================================  ==========================
    ``std``        spread of its activation (DCM)                                        this batch
    ``activation`` root mean square of its activation (SEM's "low activation")           this batch
    ``obd``        second-order cost of deleting it (Optimal Brain Damage)               this batch, unmasked logits
    ``gradient``   first-order cost of deleting it, by the dense gradient                the optimizer step before
    ``magnitude``  size of its weights                                                   the weights
    ``signed``     its weight with the sign: the lowest are the most negative            the weights
    ``random``     a draw of (seed, step)                                                nothing
    =============  ====================================================================  ==========================

    On a linear or cosine head ``std`` and ``activation`` rank the edges of one input as :math:`|W_{oi}|`, whatever the
    batch, so with ``granularity="node"`` they *are* ``magnitude``: the mask comes from the weights alone and is equal
    on all processes without communication. The published ablation "by weight" can therefore not be node-wise
    magnitude; ``signed``, and ``magnitude`` with ``granularity="edge"``, are its open readings. Where a score looks at
    the batch or at a gradient, processes add up their statistics with one all-reduce for each renewal and head, and the
    mask is that of the global batch; so each process has to call the head in each batch.

    With gradient accumulation the mask stays within an optimizer step; its first batch decides. A second forward pass
    of a step (SAM, a second view) keeps the mask, and passes without gradients do not count; where a batch has several
    optimizer steps, the first pass after each is the next step's. The gradient is summed over all passes of its step.
    Scores that are all zero rank nothing, and all edges stay: in the first step of ``gradient``, and for a head that
    starts at zero, whose classes of lowest index would otherwise never learn.

    It works on any project's ``nn.Linear``, its 1x1 ``nn.Conv2d`` of one group (each position is then a sample), and
    efficient-kan's layers, in place: state-dict keys, parameters and optimizer stay, and the layer is what it was after
    training and after an exception. A weight that is tied to another layer's keeps the gradient from there.

    Args:
        head: Dotted name of the classifier, or of several: an ``nn.Linear``, a 1x1 ``nn.Conv2d``, an efficient-kan
            layer or a head of this package. None takes that of each network of a module of this package, else ``head``.
        ratio: Share p of the edges to drop, in [0, 1): floor(p K) of each input, or floor(p K D) of the head. The value
            behind the published tables is lost. Of it is known that accuracy rises and then falls with it, that the
            best one grows with the noise, and that "only a few critical edges" are left; so the default, which the
            recipes take too, drops more than half. Try 0.3 to 0.8. It is read at each renewal:
            ``ParameterSchedule("MaskRefresh.ratio", ...)`` moves it.
        every_n_steps: Renew every n optimizer steps.
        every_n_epochs: Renew at the start of every n-th epoch instead.
        score: See the table.
        granularity: ``"node"``: the same number of edges for each input; ``"edge"``: the lowest of the whole head, so
            that an input may lose all of its edges (the published ablation).
        drop: ``"unimportant"`` drops low scores; ``"important"`` high ones (the published ablation).
        apply_in: ``"train"``; ``"always"`` also masks validation, test and prediction (the published ablation), with
            the mask of the last training batch, saved in checkpoints: nothing is scored anew there.

    Raises:
        NoisyLabelError: An argument outside its range; at start, no such layer, one that cannot be masked or is masked
            already, a compiled module, or a strategy that shards parameters; a checkpoint of another layer; at the end
            of training, a layer that no step has called, which the first batch warns of.

    References:
        Dynamic Connection Masking, arXiv 2508.09697; its third version calls it Selective Edge Masking and derives it
        from Optimal Brain Damage. The official code is not available: no rescaling, an untouched bias, a mask without
        gradient and SEM's formula are our reading.

    Example::

        Trainer(callbacks=[MaskRefresh(head="classifier", ratio=0.7)])
    """

    def __init__(
        self,
        head: str | Sequence[str] | None = None,
        ratio: float = 0.7,
        every_n_steps: int = 1,
        every_n_epochs: int | None = None,
        score: str = "std",
        granularity: str = "node",
        drop: str = "unimportant",
        apply_in: str = "train",
    ) -> None:
        check_argument(apply_in in ("train", "always"), "apply_in", "'train' or 'always'", apply_in)
        names = (head,) if isinstance(head, str) else tuple(head or ())
        unique = (len(names) > 0 or head is None) and len(names) == len(set(names))
        check_argument(unique, "head", "one name, several different ones or None", head)
        self.names = names
        """Names of the heads as given; empty takes those of the module."""
        self.heads = {name: HeadMask(name) for name in names}
        """The masks by the name of their head."""
        self.ratio = ratio
        self.rule = MaskRule(score, granularity, drop, every_n_steps, every_n_epochs)
        """Which edges are kept, and how long."""
        self.apply_in = apply_in

    every_n_steps = property(attrgetter("rule.every_n_steps"), doc="Optimizer steps from one renewal to the next.")
    every_n_epochs = property(attrgetter("rule.every_n_epochs"), doc="Epochs from one renewal to the next, or None.")

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(head=list(self.names))

    @property
    def ratio(self) -> float:
        """Share of the edges to drop."""
        return self._ratio

    @ratio.setter
    def ratio(self, ratio: float) -> None:
        check_argument(0 <= ratio < 1, "ratio", "a float in [0, 1)", ratio)
        self._ratio = ratio

    @property
    def mask(self) -> Tensor | None:
        """The mask of now (K, D) of the first head, None before the first step."""
        return next((head.mask for head in self.heads.values()), None)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        RunDriver.of(trainer)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        names = self.names or default_heads(pl_module, type(self).__name__)
        check_not_sharded(trainer, f"MaskRefresh cannot mask `{', '.join(names)}`")
        self.heads = {name: self.heads.get(name) or HeadMask(name) for name in names}
        for head in self.heads.values():
            head.take(pl_module)
            warn_of_tied_weights(pl_module, head.head, head.name)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        run = RunDriver.of(trainer)
        self.rule.seed = run.seed
        for head in self.heads.values():
            if run.fresh:
                head.forget()
            head.adopt()
            head.called = None
            self.rule.warn_if_nothing_drops(head, self.ratio)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        for head in self.heads.values():
            self._prepare(trainer, head)
            if not head.called:
                head.await_call()

    @override
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        for head in self.heads.values():
            head.await_step(trainer, partial(self._prepare, trainer))

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        for head in self.heads.values():
            head.end_batch(keep=self.apply_in == "always")
            if self.rule.score == "gradient":
                self.rule.end_batch(trainer, head)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for head in self.heads.values():  # a batch that the module skips, and the rest of the epoch with it, has no end
            head.leave_batch(keep=self.apply_in == "always")

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if RunDriver.of(trainer).fresh:  # what is left after a resume may be the turn of another network
            for head in self.heads.values():
                head.check_called()

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A run that begins has not yet forgotten the one before.
        if not (trainer.sanity_checking and batches_begun(trainer) == 0):
            self._apply_always(trainer, pl_module)

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._apply_always(trainer, pl_module)

    on_predict_start = on_test_start

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"heads": {name: head.state_dict() for name, head in self.heads.items()}}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, saved in state_dict["heads"].items():
            self.heads.setdefault(name, HeadMask(name)).load_state_dict(saved)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._release()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._release()

    def _prepare(self, trainer: Trainer, head: HeadMask) -> None:
        self.rule.begin_step(trainer, head, self.ratio)

    def _apply_always(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.apply_in != "always":
            return
        masked = [head for head in self.heads.values() if head.mask is not None]
        for head in masked:
            head.take(pl_module)
            head.adopt()
            head.show(head.mask)
        if not masked and trainer.state.fn != TrainerFn.FITTING:
            rank_zero_warn(
                "MaskRefresh(apply_in='always') has no mask to apply: give a checkpoint that was trained with it."
            )

    def _release(self) -> None:
        for head in self.heads.values():
            head.release()
