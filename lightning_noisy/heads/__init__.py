"""Heads: maps from features (B, D) to logits (B, K) that can be masked."""

from lightning_noisy.heads.linear import LinearHead
from lightning_noisy.heads.maskable import MaskableHead

__all__ = ["LinearHead", "MaskableHead"]
