"""Heads: maps from features (B, D) to logits (B, K) that can be masked."""

from lightning_noisy.heads.kan import KANHead
from lightning_noisy.heads.linear import CosineHead, DropConnectHead, DropoutHead, LinearHead
from lightning_noisy.heads.maskable import MaskableHead

__all__ = ["CosineHead", "DropConnectHead", "DropoutHead", "KANHead", "LinearHead", "MaskableHead"]
