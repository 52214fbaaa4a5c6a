"""CDR: only the gradients of critical parameters train."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.functional.gradients import hinder_memorization_
from lightning_noisy.private_api import Callback
from lightning_noisy.trainer_access import check_not_sharded


class CDR(Callback):
    r"""Lets the share 1 - ``noise_rate`` of a network's weights learn from a step, and no other.

    Before each optimizer step, over all weights of the optimizer jointly,

    .. math:: g_j \leftarrow (1 - \tau)\, g_j\, [\, |w_j g_j| \ge s \,]

    where s is the :math:`\lfloor (1 - \tau) n \rfloor`-th largest of the n scores :math:`|w_j g_j|`: weights that score
    lower are not critical for what is learned early, and would memorize wrong labels. They change by weight decay and
    momentum alone.

    Weights are all parameters with a gradient and two or four dimensions: of linear layers and 2-d convolutions. Others
    (biases, batch norm) train as ever. Gradients are those of the whole accumulated batch, averaged over processes and
    freed of the gradient scaler's factor; they are clipped afterwards. Scores are float32 (float64 of float64 weights).
    Works in any project, and keeps nothing that would have to be saved.

    Args:
        noise_rate: Share :math:`\tau` of wrong labels, known or estimated, in [0, 1).

    Raises:
        NoisyLabelError: A rate outside its range; at start, a strategy that shards parameters; a sparse gradient.

    References:
        Xia et al., Robust early-learning: Hindering the memorization of noisy labels, ICLR 2021. Published with SGD,
        learning rate 0.01, momentum 0.9 and weight decay 1e-3. Its code prepares a factor that falls from 1 to
        :math:`1 - \tau` over the first epochs, and then overwrites it with :math:`1 - \tau`, as here;
        ``ParameterSchedule("CDR.noise_rate", ...)`` moves both the factor and the share.

    Example::

        Trainer(callbacks=[CDR(noise_rate=0.4)])
    """

    def __init__(self, noise_rate: float) -> None:
        self.noise_rate = noise_rate
        self._scratch: Tensor | None = None

    @property
    def noise_rate(self) -> float:
        """Share of wrong labels."""
        return self._noise_rate

    @noise_rate.setter
    def noise_rate(self, noise_rate: float) -> None:
        check_argument(0 <= noise_rate < 1, "noise_rate", "a float in [0, 1)", noise_rate)
        self._noise_rate = noise_rate

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_not_sharded(trainer, "CDR cannot rank the weights")

    @override
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.ndim in (2, 4)]
        weights = [parameter for parameter in parameters if parameter.grad is not None]
        if not weights:
            return
        _check_dense(pl_module, weights)
        gradients = [weight.grad for weight in weights]
        with torch.no_grad():
            hinder_memorization_(weights, gradients, self.noise_rate, self._room(weights))

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._scratch = None

    def __getstate__(self) -> dict[str, Any]:
        """Copies take no scratch memory along."""
        return {**self.__dict__, "_scratch": None}

    def _room(self, weights: Sequence[Tensor]) -> Tensor:
        """Memory for the scores, kept between steps: on the CPU fresh memory would cost more than all the rest."""
        count, device = sum(weight.numel() for weight in weights), weights[0].device
        dtype = reduce(torch.promote_types, (weight.dtype for weight in weights), torch.float32)
        kept = self._scratch
        if kept is None or kept.numel() < count or (kept.dtype, kept.device) != (dtype, device):
            kept = self._scratch = torch.empty(count, dtype=dtype, device=device)
        return kept[:count]


def _check_dense(pl_module: LightningModule, weights: Sequence[nn.Parameter]) -> None:
    for weight in weights:
        if weight.grad is not None and weight.grad.layout != torch.strided:
            name = next((name for name, parameter in pl_module.named_parameters() if parameter is weight), "a weight")
            raise NoisyLabelError(f"CDR cannot rank the sparse gradient of `{name}`: make its layer with sparse=False.")
