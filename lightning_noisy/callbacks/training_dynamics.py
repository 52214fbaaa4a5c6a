"""How each sample was learned, for finding labels that are wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import override

from lightning_noisy.callbacks.criterion_callback import CriterionCallback
from lightning_noisy.callbacks.dynamics_rows import DynamicsRows
from lightning_noisy.callbacks.said_once import say_once
from lightning_noisy.callbacks.sample_facts import SampleFacts
from lightning_noisy.callbacks.unaugmented_pass import UnaugmentedPass, visit_rows
from lightning_noisy.errors import NoisyLabelError, printable
from lightning_noisy.functional.collapse import collapse_message, collapsed_classes
from lightning_noisy.targets import TargetCall, TargetPipeline
from lightning_noisy.trainer_access import from_datamodule

DYNAMICS, FACTS = "dynamics", "facts"
"""Names of the parts that a section with training dynamics has."""


class TrainingDynamics(CriterionCallback):
    r"""Keeps how each training sample was learned: mean, trend and spread of its confidence, margins, forgetting.

    It looks at the training pass, costs no pass of its own (unless ``unaugmented``), and changes nothing. Of each
    sample and epoch it takes the probability :math:`p_{i \tilde y_i}` of the given label, its margin (the logit less
    the highest other one) and the predicted class. At the end of an epoch these go into running figures; a sample
    counts once an epoch, with its last visit, also under DDP, whose sampler repeats some. :meth:`table` has, for each
    sample,

    - ``confidence``, ``variability``, ``trend``: mean, standard deviation, and slope per epoch of p over the epochs
      (dataset cartography), ``final_confidence``: p in the last one;
    - ``margin``: the mean margin (area under the margin, AUM);
    - ``forgotten``: how often a label that was predicted in one epoch was not in the next, ``last_forgotten``,
      ``first_learned``: epochs of that, -1 for never;
    - ``last_prediction``, ``modal_prediction``: the last and the most frequent predicted class, ``modal_share``: the
      share of epochs with that;
    - ``label``: the given label; ``visits``: in how many epochs the sample was seen. Of one that never was, floats are
      NaN and classes -1.

    :meth:`beliefs` has the mean log-probability of each class, from which
    :func:`~lightning_noisy.functional.label_posterior.label_posterior` tells which labels are wrong.

    Logged is ``train/classes_predicted``, the number of classes that were predicted. At the end of training a class
    that has labels and is (almost) never predicted is said in a line: a network that has given up a class ranks its
    labels wrongly.

    Memory: 61 bytes a sample, 10 K for beliefs and counts of predicted classes, one for each epoch (:meth:`curves`),
    and its path or row. Checkpoints have all of it, so that ``lightning-noisy report`` can rank the labels later. In a
    loop without Lightning, :meth:`NoisyLoop.update` hands on logits, targets and indices.

    Args:
        unaugmented: All figures are those of a further pass at the end of each epoch, in which every sample is seen
            once, without augmentation, in evaluation mode. It costs a forward pass an epoch. True takes the
            ``scoring_loader()`` of the data module; else give the training set without augmentation, which has samples
            ``(image, target)`` in the same order. What is asked is the module: ``module(images)`` gives logits (B, K).
        **options: ``criterion``, ``index_key``, ``check_labels``, ``storage``, as in :class:`CriterionCallback`.

    Raises:
        NoisyLabelError: At fit, a single class, labels beyond the classes that have a name, a checkpoint of another
            data set; with ``unaugmented``, no such set, one of other samples, or a module that gives no logits.

    References:
        Swayamdipta et al., Dataset Cartography, EMNLP 2020; Pleiss et al., Identifying Mislabeled Data using the Area
        Under the Margin Ranking, NeurIPS 2020, without its threshold samples; Toneva et al., An Empirical Study of
        Example Forgetting, ICLR 2019, which counts over presentations as here over epochs.

    Example::

        dynamics = TrainingDynamics()
        Trainer(callbacks=[dynamics]).fit(module, loader)
        suspicious = dynamics.table()["margin"].argsort()
    """

    unfit_storage: ClassVar[Mapping[str, str]] = {
        **CriterionCallback.unfit_storage,
        "dtype": "a row holds a label too, which would be rounded",
    }

    def __init__(self, unaugmented: bool | Dataset[Any] = False, **options: Any) -> None:
        super().__init__(**options)
        self.unaugmented = unaugmented
        self._pass: UnaugmentedPass | None = None
        self.dynamics, self.facts = DynamicsRows(self.section.storage.folder), SampleFacts()
        self.section.parts |= {DYNAMICS: self.dynamics, FACTS: self.facts}

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_names(self.run.origins.class_names, self.run.labels)
        self.facts.name(self.run.origins.arrays())
        self.facts.class_names, labels = self.run.origins.class_names, self.run.labels
        self.facts.labels = None if labels is None else labels.to("cpu", torch.int32)
        self.facts.root = str(from_datamodule(trainer, "root") or "")
        if self.unaugmented is not False:
            dataset = None if self.unaugmented is True else self.unaugmented
            criterion = self.pipeline.name if self.check_labels else None
            owner = type(self).__name__
            self._pass = UnaugmentedPass(owner, trainer, pl_module, dataset, self.section, criterion)

    @override
    def join(self, pipeline: TargetPipeline) -> None:
        pipeline.add_observer(self)

    def observe_target(self, call: TargetCall) -> None:
        """Note what the batch's samples are taken for."""
        if self._pass is not None:
            self._pass.num_classes = call.num_classes
        else:
            store = self.section.store("visit", (call.num_classes + 1,), fill=float("nan"), device=call.logits.device)
            store.update(call.index, visit_rows(call.logits, call.given))

    @override
    def epoch_metrics(self) -> dict[str, float]:
        if self._pass is not None:
            self._pass(self.run)
        visits = self.section.stores.get("visit")
        if visits is None or visits.values[:, -1].isnan().all():
            return {}
        assert self.run.open_epoch is not None
        predicted = self.dynamics.add(self.run.open_epoch, visits.values).counts()[0]
        visits.values.fill_(float("nan"))
        return {self.metric("train", "classes_predicted"): float((predicted > 0).sum())}

    def table(self) -> dict[str, NDArray[Any]]:
        """What is known of each sample so far, by name, each (N,), in the order of the training set.

        Raises:
            NoisyLabelError: No epoch has ended yet.
        """
        if self.dynamics.table is None:
            raise NoisyLabelError("TrainingDynamics has seen no epoch to its end: fit first.")
        return {name: np.asarray(column.cpu()) for name, column in self.dynamics.table.figures().items()}

    def beliefs(self) -> NDArray[np.float32]:
        """Mean log-probability of each class over the epochs, (N, K); zeros where a sample was never seen.

        Raises:
            NoisyLabelError: No epoch has ended yet.
        """
        if self.dynamics.table is None:
            raise NoisyLabelError("TrainingDynamics has seen no epoch to its end: fit first.")
        return np.asarray(self.dynamics.table.beliefs().cpu())

    def curves(self) -> NDArray[np.float32]:
        """Confidence of each sample by epoch, in steps of 1/254, (N, E); NaN where it was not seen.

        Raises:
            NoisyLabelError: No epoch has ended yet.
        """
        if not self.dynamics.curves:
            raise NoisyLabelError("TrainingDynamics has seen no epoch to its end: fit first.")
        return np.asarray(self.dynamics.confidence())

    @property
    def lost(self) -> list[int]:
        """Classes that have labels and are (almost) never predicted, by the last visit of each sample."""
        return [] if self.dynamics.table is None else collapsed_classes(*self.dynamics.table.counts())

    def collapse(self, names: list[str] | None = None) -> str | None:
        """The line about classes that are (almost) never predicted; None where all are.

        Args:
            names: What the classes are called.

        Raises:
            NoisyLabelError: A single class, or labels beyond those that have a name.
        """
        lost = self.lost
        check_names(names, None if self.dynamics.table is None else self.dynamics.table.rows["label"])
        if not lost or self.dynamics.table is None:
            return None
        given = self.dynamics.table.counts()[1]
        return collapse_message(lost, float(given[lost].sum() / given.sum()), names)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        names = self.run.origins.class_names
        say_once(self.collapse(None if names is None else list(names)))

    def __getstate__(self) -> dict[str, Any]:
        """Copies look at no module."""
        return {**super().__getstate__(), "_pass": None}


def check_names(names: Sequence[str] | None, labels: Tensor | None) -> None:
    """Refuse classes whose labels cannot be ranked.

    Args:
        names: What the classes are called; None: nobody tells.
        labels: Given labels (N,), negative ones of no sample; None: not known yet.

    Raises:
        NoisyLabelError: A single class, or labels beyond the names.
    """
    if names is None:
        return
    if len(names) < 2:
        raise NoisyLabelError(
            f"All samples are of the class '{printable(names[0])}': labels can be wrong where there are two classes."
        )
    if labels is not None and len(labels) and int(labels.max()) >= len(names):
        raise NoisyLabelError(
            f"The training set names {len(names)} classes, and has a label {int(labels.max())}: name all classes."
        )
