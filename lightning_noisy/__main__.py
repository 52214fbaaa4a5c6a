"""``python -m lightning_noisy``."""

from lightning_noisy.cli import run

run()
