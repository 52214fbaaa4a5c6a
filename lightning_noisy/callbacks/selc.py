"""Self-ensembled targets (SELC), and with a gate and a floor the targets of noise attention learning (NAL)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from lightning_noisy.callbacks.clean_targets import CleanTargets
from lightning_noisy.callbacks.criterion_callback import CriterionCallback
from lightning_noisy.collectives import own_rows, sum_over_processes
from lightning_noisy.errors import NoisyLabelError, check_argument, check_count
from lightning_noisy.state import SampleStore
from lightning_noisy.targets import AttentiveCriterion, TargetCall, TargetPipeline


class SELC(CriterionCallback):
    r"""Replaces the given labels by a running mean of the network's own predictions.

    Row :math:`t_i` of a store starts as the one-hot given label, clipped from below at ``floor``. In epoch
    :math:`e \ge` ``warmup_epochs``, each time sample i is seen,

    .. math:: t_i \leftarrow m\, t_i + (1 - m) \operatorname{softmax}(z_i)

    and the criterion gets the updated row, clipped from below at ``floor``, as its soft target; before that the given
    label stands. Where each sample is seen once an epoch, the mean runs over epochs; a sample that a sampler shows more
    often moves at each visit, and of one that stands twice in a batch the first entry moves the row that both get.

    With ``attention_threshold`` :math:`\delta` only rows with :math:`\tau_i > \delta` are moved, where :math:`\tau_i`
    is the attention that the criterion pays to the sample in this very pass:
    :class:`~lightning_noisy.losses.NoiseAttentionLoss`, or any criterion with a method
    ``sample_attention(logits, **context)``, which gets what else the criterion is called with.

    When clean labels are known, ``target/correction_acc`` is logged each epoch: the share of samples whose row has its
    maximum at the clean label. A sample without a row, as in warm-up, counts with its given label, where the data set
    tells its labels, and else not at all.

    Args:
        momentum: m in [0, 1). Published: 0.9; 0.8 on Clothing1M.
        warmup_epochs: Epochs with the given labels. SELC counts epochs from 1 and warms up while e <= es, so
            ``warmup_epochs`` is its es; NAL warms up while e < es, so it is its es - 1.
        every_n_epochs: Rows are updated only in epochs e with (e + 1) divisible by it. SELC: 1. NAL's code: 10 on CIFAR
            (the epochs of lowest learning rate under its warm restarts), although the paper updates each epoch.
        floor: Least entry of a target, not renormalized; from the first epoch on if positive. SELC: 0. NAL: 1e-4.
        attention_threshold: :math:`\delta` in [0, 1); None moves all rows, whatever the criterion. NAL's code has 0,
            which is the same, since :math:`\tau` is positive.
        clean_targets: Clean labels: a tensor (N,) or the path of a .npy / .npz file; None asks the data module.
        clean_key: Name of the array inside an .npz file.
        **options: ``criterion``, ``index_key``, ``check_labels``, ``storage``, as in :class:`CriterionCallback`.

    Raises:
        NoisyLabelError: An argument outside its range; at start, a criterion that cannot take soft targets, one without
            attention beside ``attention_threshold``, or a second callback that replaces the target; at fit, a
            checkpoint of another data set.

    References:
        Lu and He, SELC: Self-Ensemble Label Correction Improves Learning with Noisy Labels, IJCAI 2022; Lu et al.,
        Noise Attention Learning, NeurIPS 2022. The official NAL code clips the whole store after each update, so that
        the rows of the very first one start from exact zeros; here all rows start clipped.

    Example::

        Trainer(callbacks=[SELC(momentum=0.9, warmup_epochs=10)])
    """

    replaces_target = True
    makes_soft_targets = True
    unfit_storage: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        momentum: float = 0.9,
        warmup_epochs: int = 0,
        every_n_epochs: int = 1,
        floor: float = 0.0,
        attention_threshold: float | None = None,
        clean_targets: Tensor | str | None = None,
        clean_key: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_argument(0 <= momentum < 1, "momentum", "a float in [0, 1)", momentum)
        check_count(warmup_epochs, "warmup_epochs", least=0)
        check_count(every_n_epochs, "every_n_epochs")
        check_argument(0 <= floor < 1, "floor", "a float in [0, 1)", floor)
        threshold = attention_threshold
        check_argument(threshold is None or 0 <= threshold < 1, "attention_threshold", "a float in [0, 1)", threshold)
        self.momentum = momentum
        self.warmup_epochs = warmup_epochs
        self.every_n_epochs = every_n_epochs
        self.floor = floor
        self.attention_threshold = attention_threshold
        self.clean_targets = CleanTargets(clean_targets, clean_key)
        self._clean: Tensor | None = None

    @override
    def join(self, pipeline: TargetPipeline) -> None:
        if self.attention_threshold is not None and not isinstance(pipeline.criterion, AttentiveCriterion):
            raise NoisyLabelError(
                f"Expected `{pipeline.name}` to pay attention to samples, since SELC has `attention_threshold`, but "
                f"{type(pipeline.criterion).__name__} has no `sample_attention`: use NoiseAttentionLoss, or leave "
                "`attention_threshold` out."
            )
        pipeline.add_changer(self)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self.section.num_samples is not None
        self._clean = self.clean_targets.resolve(trainer, self.section.num_samples, torch.device("cpu"))

    def begins_at(self) -> dict[str, int]:
        """The argument that delays something, and the epoch, from 0, in which it first happens."""
        return {"warmup_epochs": -(-(self.warmup_epochs + 1) // self.every_n_epochs) * self.every_n_epochs - 1}

    def change_target(self, call: TargetCall) -> Tensor:
        """Update the rows of the batch when it is their time, and return them."""
        if call.epoch < self.warmup_epochs and self.floor == 0:
            return call.target
        store = self.section.store("target", tuple(call.logits.shape[1:]), device=call.logits.device)
        rows = self._rows(store, call)
        if call.epoch >= self.warmup_epochs and (call.epoch + 1) % self.every_n_epochs == 0:
            rows = store.update(call.index, self._moved(call, rows).clamp(min=self.floor))
        return call.soft_target(rows)

    @property
    def targets(self) -> Tensor | None:
        """The targets (N, K) of now, zero where none was made yet; None before the end of the warm-up.

        In shards they are those of this process's samples, r, r + W, ...
        """
        store = self.section.stores.get("target")
        return None if store is None else store.rows()

    @override
    def epoch_metrics(self) -> dict[str, float]:
        if self._clean is None:
            return {}
        labels = torch.full_like(self._clean, -1) if self.run.labels is None else self.run.labels.clone()
        if "target" in self.section.stores:
            for index, rows in self.section.stores["target"].blocks():
                labels[index] = torch.where(rows.sum(dim=1) > 0, rows.argmax(dim=1), labels[index])
        labels, clean = own_rows(labels), own_rows(self._clean)
        counts = torch.stack([(labels == clean)[labels >= 0].sum(), (labels >= 0).sum()])
        right, known = sum_over_processes(counts).tolist()
        return {self.metric("target", "correction_acc"): right / known} if known else {}

    def _moved(self, call: TargetCall, rows: Tensor) -> Tensor:
        """Rows moved towards the prediction, where the criterion pays enough attention."""
        moved = torch.lerp(call.probabilities.to(rows), rows, self.momentum)
        if self.attention_threshold is None:
            return moved
        criterion = self.pipeline.criterion
        assert isinstance(criterion, AttentiveCriterion)
        attention = criterion.sample_attention(call.logits, **call.context)
        return torch.where((attention > self.attention_threshold).unsqueeze(1), moved, rows)

    def _rows(self, store: SampleStore, call: TargetCall) -> Tensor:
        """The batch's rows; those never written (all zero) are the given labels, one-hot and clipped."""
        rows = store.get(call.index)
        given = call.rows(call.given).to(rows).clamp(min=self.floor)
        return torch.where(rows.sum(dim=1, keepdim=True) > 0, rows, given)
