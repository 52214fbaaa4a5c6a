"""LightningModules."""

from lightning_noisy.modules.noisy_label_module import NoisyLabelModule

__all__ = ["NoisyLabelModule"]
