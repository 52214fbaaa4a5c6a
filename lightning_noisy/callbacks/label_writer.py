"""The labels that a run has come to, in a file that another run can start from."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from typing_extensions import override

from lightning_noisy.callbacks._npz_file import check_npz_path, write_npz
from lightning_noisy.callbacks.criterion_callback import CriterionCallback
from lightning_noisy.targets import TargetCall, TargetPipeline

_UNKNOWN = -1


class LabelWriter(CriterionCallback):
    """Writes the hard labels that the criterion was given last, as other callbacks have changed them.

    At the end of training the file holds ``labels``, int64 (N,): for each training sample the maximum of the target it
    had when it was last seen. That is the maximum of SELC's final table, or of the mean that joint optimisation used in
    the last epoch. A sample that was never seen has its given label. Nothing is written in a ``fast_dev_run``.

    A second run takes them with ``FileNoise(path)``, for SELC+ and for joint optimisation one from scratch, for SELC+
    with :class:`MixUp`. ``FileNoise`` wants labels for the whole training set: have no validation split in either
    (``val_fraction=0``).

    Args:
        path: Name of the file, ending in .npz; relative names lie in the run's folder (without a logger, in the
            Trainer's ``default_root_dir``).
        criterion: Dotted name of the criterion; None takes ``loss``, else ``criterion``.
        index_key: Where the batch holds the index; None takes the last entry of a tuple, or ``index`` of a dict.

    Raises:
        NoisyLabelError: Another suffix; at fit, a checkpoint of another data set.

    Example::

        Trainer(callbacks=[SELC(), LabelWriter("corrected.npz")])
    """

    def __init__(
        self, path: str = "labels.npz", criterion: str | None = None, index_key: int | str | None = None
    ) -> None:
        super().__init__(criterion, index_key)
        check_npz_path(path)
        self.path = path

    @override
    def join(self, pipeline: TargetPipeline) -> None:
        pipeline.add_observer(self)

    def observe_target(self, call: TargetCall) -> None:
        """Note the labels of the batch."""
        labels = call.target.argmax(dim=1) if call.target.is_floating_point() else call.target
        table = self.stores.table("label", fill=_UNKNOWN, dtype=torch.int64, device=call.logits.device)
        table.update(call.index, labels)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        labels = self._final_labels()
        missing = int((labels == _UNKNOWN).sum())
        if missing:
            rank_zero_warn(
                f"LabelWriter writes no labels: {missing} of {len(labels)} samples were never seen, and the data set "
                "does not tell their given ones."
            )
            return
        write_npz(trainer, self.path, f"Labels of {len(labels)} samples", labels=labels)

    def _final_labels(self) -> Tensor:
        assert self.stores.training_set is not None
        unknown = torch.full((self.stores.training_set.num_samples,), _UNKNOWN)
        given = unknown if self._labels is None else self._labels
        if "label" not in self.stores.tables:
            return given
        seen = self.stores.tables["label"].values.cpu()
        return torch.where(seen == _UNKNOWN, given, seen)
