"""State that survives a resume and a second process: per-sample stores, metrics of an epoch, and their one owner."""

from lightning_noisy.state.batch_listener import BatchListener
from lightning_noisy.state.class_names import class_names_in_use, saved_class_names
from lightning_noisy.state.epoch_sums import EpochSums
from lightning_noisy.state.loss_stores import LossStores, outermost_losses
from lightning_noisy.state.members import check_members
from lightning_noisy.state.run_driver import RunDriver
from lightning_noisy.state.run_state import RunState
from lightning_noisy.state.sample_store import SampleStore
from lightning_noisy.state.section import Section, Stateful
from lightning_noisy.state.training_set import TrainingSet, common_training_set

__all__ = [
    "BatchListener",
    "EpochSums",
    "LossStores",
    "RunDriver",
    "RunState",
    "SampleStore",
    "Section",
    "Stateful",
    "TrainingSet",
    "check_members",
    "class_names_in_use",
    "common_training_set",
    "outermost_losses",
    "saved_class_names",
]
