"""State that survives a resume and a second process: tables keyed by dataset index, sums and figures of an epoch."""

from lightning_noisy.state.epoch_figures import EpochFigures
from lightning_noisy.state.epoch_sums import EpochSums
from lightning_noisy.state.sample_store import SampleStore
from lightning_noisy.state.store_group import StoreGroup, TrainingSet

__all__ = ["EpochFigures", "EpochSums", "SampleStore", "StoreGroup", "TrainingSet"]
