"""Stochastic weight averaging: what is evaluated is the mean of the weights of the last epochs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, update_bn
from torch.utils.data import DataLoader
from typing_extensions import override

from lightning_noisy.collectives import process_count, process_rank, sum_over_processes
from lightning_noisy.data.samplers import EpochSampler
from lightning_noisy.errors import NoisyLabelError, check_count
from lightning_noisy.functional.random import hash_seed
from lightning_noisy.private_api import Callback
from lightning_noisy.state import RunDriver
from lightning_noisy.trainer_access import check_not_sharded, training_loaders

_STREAM = 0x617665726167  # keeps these draws apart from other draws under the same seed


class AveragedWeights(Callback):
    r"""Averages the weights at the end of each late epoch, and evaluates the average (SWA).

    .. math:: \bar w_n = \bar w_{n-1} + \frac{w_{s + n - 1} - \bar w_{n-1}}{n}

    over the ends of epochs s, s + 1, ... Training goes on with w. From epoch s on validation sees :math:`\bar w`, whose
    batch-norm statistics are computed anew for it: means over one pass over the training set in training mode, in
    shuffled batches with training augmentation, as torch's ``update_bn`` does. Several processes share the pass. It
    costs one forward pass an epoch, draws nothing from torch's streams, and is left out without batch norm.

    After training the module has :math:`\bar w`. A checkpoint has w as its weights, so that training goes on, as does
    another ``fit`` of the same Trainer, and the average beside, which ``test``, ``validate`` and ``predict`` of a
    Trainer with this callback evaluate.

    Lightning's callbacks do not serve: ``WeightAveraging`` (2.6) averages after an epoch's validation and leaves batch
    norm to the user; ``StochasticWeightAveraging`` never validates the average. Both copy the whole module.

    Args:
        start_epoch: Epoch s, from 0, the first whose end counts. Published: 120 of 200 (SURE).
        refresh_batch_norm: Whether batch-norm statistics are those of the average; else they are those of w.
        refresh_batches: Batches of that pass per process and loader, others in each epoch; None takes the whole
            training set, as SURE's code. Where an epoch is a part of the training set (``batches_per_epoch``), as many
            batches as it has are a pass over one epoch.

    Raises:
        NoisyLabelError: ``start_epoch`` < 0, or ``refresh_batches`` < 1; at fit, a strategy that shards weights; at
            validation, a training loader without length or batches without a tensor of images, neither of which can be
            passed over.

    References:
        Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, UAI 2018.
        Li et al., SURE, CVPR 2024, with :class:`~lightning_noisy.optim.SAM` and
        :class:`~lightning_noisy.optim.CosineToConstant`.

    Example::

        Trainer(max_epochs=200, callbacks=[AveragedWeights(start_epoch=120)])
    """

    def __init__(self, start_epoch: int, refresh_batch_norm: bool = True, refresh_batches: int | None = None) -> None:
        check_count(start_epoch, "start_epoch", 0)
        check_count(refresh_batches, "refresh_batches", optional=True)
        self.start_epoch = start_epoch
        self.refresh_batch_norm = refresh_batch_norm
        self.refresh_batches = refresh_batches
        self.average: AveragedModel | None = None
        """The mean weights in the order of ``module.parameters()``, and their number."""
        self._statistics: list[Tensor] = []
        self._own: list[Tensor] = []
        self._last_epoch = -1

    def begins_at(self) -> dict[str, int]:
        """The argument that delays something, and the epoch, from 0, in which it first happens."""
        return {"start_epoch": self.start_epoch}

    @property
    def num_averaged(self) -> int:
        """Epochs whose weights are in the average."""
        return 0 if self.average is None else int(self.average.n_averaged)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        RunDriver.of(trainer)
        if stage == "fit" and self._is_shown(pl_module):
            self._hide(pl_module)
        if self.average is None or (stage == "fit" and trainer.global_step == 0):
            self.average = AveragedModel(nn.ParameterList(pl_module.parameters()))
            self._statistics, self._own, self._last_epoch = [], [], -1

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_not_sharded(trainer, "AveragedWeights cannot average")
        assert self.average is not None
        self.average.to(pl_module.device)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self.average is not None
        if trainer.is_last_batch and trainer.current_epoch >= max(self.start_epoch, self._last_epoch + 1):
            self.average.update_parameters(nn.ParameterList(pl_module.parameters()))
            self._statistics, self._last_epoch = [], trainer.current_epoch

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show(trainer, pl_module)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self._hide(pl_module)

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show(trainer, pl_module)

    on_predict_start = on_train_end = on_test_start

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._hide(pl_module)

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        own = dict(zip(map(id, _shown(pl_module)), self._own, strict=False))  # nothing while they are in the module
        values = pl_module.state_dict(keep_vars=True).items()
        checkpoint["state_dict"] |= {name: own[id(value)] for name, value in values if id(value) in own}

    @override
    def state_dict(self) -> dict[str, Any]:
        average = None if self.average is None or self.num_averaged == 0 else self.average.state_dict()
        return {"average": average, "statistics": self._statistics, "last_epoch": self._last_epoch}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        assert self.average is not None, "Lightning sets up before it loads"
        self.average.n_averaged.zero_()
        if state_dict["average"] is not None:
            self.average.load_state_dict(state_dict["average"])
        self._statistics, self._last_epoch = list(state_dict["statistics"]), state_dict["last_epoch"]
        self._own = []

    def __getstate__(self) -> dict[str, Any]:
        """Copies have averaged nothing."""
        return {**self.__dict__, "average": None, "_statistics": [], "_own": [], "_last_epoch": -1}

    def _show(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average into the module, in a fit with statistics of its own."""
        if self.num_averaged == 0 or self._is_shown(pl_module):
            return
        assert self.average is not None
        self._own = [value.detach().clone() for value in _shown(pl_module)]
        statistics = _statistics(pl_module)
        _put(pl_module.parameters(), self.average.parameters())
        training = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if self.refresh_batch_norm and training and statistics and not self._statistics:
            _refresh(trainer, pl_module, self._last_epoch, self.refresh_batches)
            self._statistics = [value.clone() for value in statistics]
        elif self._statistics:
            _put(statistics, self._statistics)

    def _is_shown(self, pl_module: LightningModule) -> bool:
        """Whether the module has the average, as since a fit has ended."""
        own, average = list(pl_module.parameters()), [] if self.average is None else list(self.average.parameters())
        alike = bool(self._own) and len(own) == len(average)
        return alike and all(
            torch.equal(value, mean.to(value.device)) for value, mean in zip(own, average, strict=True)
        )

    def _hide(self, pl_module: LightningModule) -> None:
        """Put back what training goes on with."""
        if self._own:
            _put(_shown(pl_module), self._own)
        self._own = []


@torch.no_grad()
def _put(values: Iterable[Tensor], others: Iterable[Tensor]) -> None:
    for value, other in zip(values, others, strict=True):
        value.copy_(other)


def _shown(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *_statistics(module)]


def _batch_norms(module: nn.Module) -> list[_BatchNorm]:
    norms = (part for part in module.modules() if isinstance(part, _BatchNorm))
    return [norm for norm in norms if norm.running_mean is not None]


def _statistics(module: nn.Module) -> list[Tensor]:
    return [value for norm in _batch_norms(module) for value in norm.buffers()]


def _refresh(trainer: Trainer, pl_module: LightningModule, epoch: int, most: int | None) -> None:
    """Batch-norm statistics of the module's weights, equal on all processes."""
    seed = RunDriver.of(trainer).seed
    devices = [] if pl_module.device.type == "cpu" else [pl_module.device]
    with torch.random.fork_rng(devices), trainer.precision_plugin.forward_context():
        torch.manual_seed(hash_seed(_STREAM, seed, epoch, process_rank()))
        update_bn(_images(trainer, seed, epoch, most), pl_module)
    for norm in _batch_norms(pl_module):
        for value in (norm.running_mean, norm.running_var):
            assert value is not None
            value.copy_(sum_over_processes(value) / process_count())


def _images(trainer: Trainer, seed: int, epoch: int, most: int | None) -> Iterator[Tensor]:
    """Shuffled batches of the training set with training augmentation, at most so many; each process its part."""
    for loader in training_loaders(trainer):
        if not hasattr(loader.dataset, "__len__"):
            raise NoisyLabelError(
                "AveragedWeights passes over the training set for batch norm, but its loader is a stream: set "
                "refresh_batch_norm=False."
            )
        sampler = EpochSampler(loader.dataset, seed=seed)
        sampler.set_epoch(epoch)
        size = loader.batch_size or getattr(loader.batch_sampler, "batch_size", 1)
        batches = DataLoader(
            loader.dataset, size, sampler=sampler, num_workers=loader.num_workers, collate_fn=loader.collate_fn
        )
        for batch in islice(batches, most):
            yield _first_tensor(trainer.strategy.batch_to_device(batch))


def _first_tensor(batch: Any) -> Tensor:
    """The images of a batch: its first part, and of several views the first."""
    while isinstance(batch, (tuple, list)) and batch:
        batch = batch[0]
    if not isinstance(batch, Tensor):
        raise NoisyLabelError(
            "AveragedWeights passes over the training set for batch norm and looks for images first in each batch, but "
            f"found {type(batch).__name__}: set refresh_batch_norm=False."
        )
    return batch
