"""The labels that a run has come to, in a file that another run can start from."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from typing_extensions import override

from lightning_noisy.callbacks.npz_writer import NpzWriter
from lightning_noisy.targets import TargetCall

_UNKNOWN = -1


class LabelWriter(NpzWriter):
    """Writes the hard labels that a run has come to, as other callbacks have changed them.

    At the end of training the file holds ``labels``, int64 (N,): for each training sample the maximum of the target it
    had when it was last seen. That is the maximum of SELC's final store, or of the mean that joint optimization used in
    the last epoch. Gradient switching draws its targets: there it is the largest entry of the pool, which is no draw.
    A sample that was never seen has its given label. How many have changed is
    said, where the data set tells its labels, and that none has. Nothing is written in a ``fast_dev_run``.

    Beside ``labels`` stand ``path`` or ``row`` of each sample and ``class_names``, see :class:`NpzWriter`. A second run
    takes them with ``FileNoise(path)``, for SELC+ and for joint optimization one from scratch, for SELC+ with
    :class:`MixUp`; each sample gets its own label, also from data in another order. ``FileNoise`` wants labels for the
    whole training set: have no validation split in either (``val_fraction=0``).

    Args:
        path: Name of the file, ending in .npz; relative names lie in the run's folder (without a logger, in the
            Trainer's ``default_root_dir``).
        **options: ``criterion``, ``index_key``, ``check_labels``, ``storage``, as in :class:`CriterionCallback`.

    Raises:
        NoisyLabelError: Another suffix; at fit, a checkpoint of another data set.

    Example::

        Trainer(callbacks=[SELC(), LabelWriter("corrected.npz")])
    """

    content = "Labels"

    def __init__(self, path: str = "labels.npz", **options: Any) -> None:
        super().__init__(path, **options)

    def observe_target(self, call: TargetCall) -> None:
        """Note the labels of the batch."""
        settled = call.settled
        labels = settled.argmax(dim=1) if settled.is_floating_point() else settled
        store = self.section.store("label", fill=_UNKNOWN, dtype=torch.int64, device=call.logits.device)
        store.update(call.index, labels)

    @override
    def arrays(self) -> dict[str, Tensor]:
        assert self.section.num_samples is not None
        unknown = torch.full((self.section.num_samples,), _UNKNOWN)
        given = unknown if self.run.labels is None else self.run.labels
        seen = self.section.stores["label"].values.cpu() if "label" in self.section.stores else unknown
        return {"labels": torch.where(seen == _UNKNOWN, given, seen)}

    @override
    def describe(self, arrays: dict[str, Tensor]) -> str:
        described = super().describe(arrays)
        if self.run.labels is None:
            return described
        changed = int((arrays["labels"] != self.run.labels).sum())
        if changed == 0:
            rank_zero_warn("LabelWriter writes the given labels: nothing has changed one (a warm-up up to the end?).")
        return f"{described}, {changed} of them changed"

    @override
    def missing(self, arrays: dict[str, Tensor]) -> Tensor:
        return arrays["labels"] == _UNKNOWN
