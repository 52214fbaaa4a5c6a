"""Backdoors: a pattern in some training images, which are labeled as one class."""

from lightning_noisy.data.backdoor.trigger import BackdoorTrigger, GlobalTrigger, LocalTrigger

__all__ = ["BackdoorTrigger", "GlobalTrigger", "LocalTrigger"]
