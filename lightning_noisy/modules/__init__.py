"""LightningModules."""

from lightning_noisy.modules.multi_network import MultiNetworkModule
from lightning_noisy.modules.noisy_label_module import NoisyLabelModule
from lightning_noisy.modules.strategy import StrategyModule

__all__ = ["MultiNetworkModule", "NoisyLabelModule", "StrategyModule"]
