"""Checkpoints that are written whole, and asked whether they belong to a run before anything else is."""

from lightning_noisy.checkpoints.io import AtomicCheckpointIO

__all__ = ["AtomicCheckpointIO"]
