"""Convolutions in the memory format that tensor cores want."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule, Trainer
from typing_extensions import override

from lightning_noisy.private_api import Callback


class ChannelsLast(Callback):
    """Keeps a module's weights in channels-last memory format, for convolutions on a GPU with tensor cores.

    Weights (O, C, H, W) lie as (O, H, W, C); shapes, values, gradients and names in checkpoints are as ever. A
    convolution with such weights gives its output in that format whatever its input is in, so images need nothing. On a
    CPU it may be faster or slower; half precision (``precision="bf16-mixed"``) gains most.

    Example::

        Trainer(callbacks=[ChannelsLast()], precision="bf16-mixed")
    """

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        pl_module.to(memory_format=torch.channels_last)  # DDP lays out its buckets by the weights, right afterwards

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.to(memory_format=torch.channels_last)  # networks that `configure_model` has made
