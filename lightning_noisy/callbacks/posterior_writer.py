"""What a network says of its own training set, in a file that label noise can be made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from lightning_noisy.callbacks.npz_writer import NpzWriter
from lightning_noisy.targets import TargetCall


class PosteriorWriter(NpzWriter):
    """Writes the probabilities that the training samples had when they were last seen.

    At the end of training the file holds ``index``, int64 (N,), 0 to N - 1 in the training split, what that sample is
    in the user's own data, ``path`` or ``row``, ``class_names`` where they are known (see :class:`NpzWriter`), and
    ``probabilities``, float32 (N, K): row i is the softmax of the logits of training sample i in the last epoch, as
    training had them (train mode, augmented, before the step of its batch). It is written on one process and loads with
    ``allow_pickle=False``. Where samples were never seen, a warning says so and no file is written; nor is it in a
    ``fast_dev_run``.

    :class:`~lightning_noisy.data.PMDNoise` takes the file. It wants the whole training set: have no validation split
    (``val_fraction=0``).

    Args:
        path: Name of the file, ending in .npz; relative names lie in the run's folder (without a logger, in the
            Trainer's ``default_root_dir``).
        **options: ``criterion``, ``index_key``, ``check_labels``, ``storage``, as in :class:`CriterionCallback`.

    Raises:
        NoisyLabelError: Another suffix; at fit, a checkpoint of another data set.

    References:
        Zhang et al., Learning with Feature-Dependent Label Noise: A Progressive Approach, ICLR 2021, whose code records
        the posterior in the last epoch as this does.

    Example::

        Trainer(max_epochs=25, callbacks=[PosteriorWriter()])
    """

    content = "Probabilities"
    unfit_storage: ClassVar[Mapping[str, str]] = {"sharded": "one process writes those of all samples"}

    def __init__(self, path: str = "posterior.npz", **options: Any) -> None:
        super().__init__(path, **options)

    def observe_target(self, call: TargetCall) -> None:
        """Note the probabilities of the batch."""
        store = self.section.store("probabilities", (call.num_classes,), device=call.logits.device)
        store.update(call.index, call.probabilities)

    @override
    def arrays(self) -> dict[str, Tensor]:
        if "probabilities" not in self.section.stores:
            return {}
        rows = self.section.stores["probabilities"].rows().cpu()
        return {"index": torch.arange(len(rows)), "probabilities": rows}

    @override
    def missing(self, arrays: dict[str, Tensor]) -> Tensor:
        return arrays["probabilities"].sum(dim=1) == 0
