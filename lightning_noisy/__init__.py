"""Train classifiers on data whose labels are partly wrong, inside PyTorch Lightning."""

from importlib.metadata import version

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.loop import NoisyLoop
from lightning_noisy.modules import NoisyLabelModule
from lightning_noisy.state import SampleStore
from lightning_noisy.storage import Storage

__all__ = ["NoisyLabelError", "NoisyLabelModule", "NoisyLoop", "SampleStore", "Storage"]
__version__ = version("lightning-noisy")
