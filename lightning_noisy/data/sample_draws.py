"""What a data set of somebody else draws for a sample, as a function of what is asked for."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

from lightning_noisy.data.epoch_index import EpochIndex
from lightning_noisy.functional.random import hash_seed
from lightning_noisy.trainer_access import run_seed

_STREAM = 0x73616D706C65  # keeps these draws apart from other draws under the same seed


def drawn_sample(dataset: Any, index: EpochIndex) -> Any:
    """A sample whose draws from torch's CPU stream, NumPy's and ``random`` are a function of (seed, epoch, index).

    The streams go on afterwards as if nothing was drawn, so that samples are the same whoever asks for them, and when:
    in a worker, in another process, after a resume. The seed is that of ``seed_everything``. It takes some 0.1 ms a
    sample, and a part of that in a worker, whose streams nobody else draws from.

    Args:
        dataset: The data set.
        index: The position, which knows its epoch.
    """
    seed = hash_seed(_STREAM, run_seed(None), index.epoch, int(index))
    if get_worker_info() is not None:
        _start_streams(seed)
        return dataset[index]
    of_torch, of_python = torch.default_generator.get_state(), random.getstate()
    of_numpy = np.random.get_state()  # noqa: NPY002  the stream that data sets draw from
    _start_streams(seed)
    try:
        return dataset[index]
    finally:
        torch.default_generator.set_state(of_torch)
        np.random.set_state(of_numpy)  # noqa: NPY002
        random.setstate(of_python)


def _start_streams(seed: int) -> None:
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)
