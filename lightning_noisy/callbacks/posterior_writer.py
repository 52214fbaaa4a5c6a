"""What a network says of its own training set, in a file that label noise can be made from."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from lightning_noisy.callbacks._npz_file import check_npz_path, write_npz
from lightning_noisy.callbacks.criterion_callback import CriterionCallback
from lightning_noisy.targets import TargetCall, TargetPipeline


class PosteriorWriter(CriterionCallback):
    """Writes the probabilities that the training samples had when they were last seen.

    At the end of training the file holds ``index``, int64 (N,), 0 to N - 1, and ``probabilities``, float32 (N, K): row
    i is the softmax of the logits of training sample i in the last epoch, as training had them (train mode, augmented,
    before the step of its batch). It is written on one process and loads with ``allow_pickle=False``. Where samples
    were never seen, a warning says so and no file is written; nor is it in a ``fast_dev_run``.

    :class:`~lightning_noisy.data.PMDNoise` takes the file. It wants the whole training set: have no validation split
    (``val_fraction=0``).

    Args:
        path: Name of the file, ending in .npz; relative names lie in the run's folder (without a logger, in the
            Trainer's ``default_root_dir``).
        criterion: Dotted name of the criterion; None takes ``loss``, else ``criterion``.
        index_key: Where the batch holds the index; None takes the last entry of a tuple, or ``index`` of a dict.

    Raises:
        NoisyLabelError: Another suffix; at fit, a checkpoint of another data set.

    References:
        Zhang et al., Learning with Feature-Dependent Label Noise: A Progressive Approach, ICLR 2021, whose code records
        the posterior in the last epoch as this does.

    Example::

        Trainer(max_epochs=25, callbacks=[PosteriorWriter()])
    """

    def __init__(
        self, path: str = "posterior.npz", criterion: str | None = None, index_key: int | str | None = None
    ) -> None:
        super().__init__(criterion, index_key)
        check_npz_path(path)
        self.path = path

    @override
    def join(self, pipeline: TargetPipeline) -> None:
        pipeline.add_observer(self)

    def observe_target(self, call: TargetCall) -> None:
        """Note the probabilities of the batch."""
        table = self.stores.table("probabilities", (call.num_classes,), device=call.logits.device)
        table.update(call.index, call.probabilities)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        skipped = not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False)
        if skipped or "probabilities" not in self.stores.tables:
            return
        rows = self.stores.tables["probabilities"].values.cpu()
        unseen = int((rows.sum(dim=1) == 0).sum())
        if unseen:
            rank_zero_warn(f"PosteriorWriter writes no file: {unseen} of {len(rows)} samples were never seen.")
            return
        what = f"Probabilities of {len(rows)} samples"
        write_npz(trainer, self.path, what, index=torch.arange(len(rows)), probabilities=rows)
