"""State that survives a resume and a second process: tables keyed by dataset index, sums over an epoch."""

from lightning_noisy.state.epoch_sums import EpochSums
from lightning_noisy.state.sample_store import SampleStore
from lightning_noisy.state.store_group import StoreGroup, TrainingSet

__all__ = ["EpochSums", "SampleStore", "StoreGroup", "TrainingSet"]
