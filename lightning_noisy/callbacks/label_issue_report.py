"""The list of labels that are probably wrong, at the end of training."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from typing_extensions import override

from lightning_noisy.callbacks.clean_targets import CleanTargets
from lightning_noisy.callbacks.said_once import say_once
from lightning_noisy.callbacks.training_dynamics import TrainingDynamics
from lightning_noisy.data.photos import read_photo
from lightning_noisy.data.pictures import picture
from lightning_noisy.errors import check_argument
from lightning_noisy.files import check_writable
from lightning_noisy.reports import LabelIssues
from lightning_noisy.reports.from_dynamics import issues_from_dynamics
from lightning_noisy.reports.page import Thumbnail
from lightning_noisy.reports.report import PAGE, TABLE, write_report
from lightning_noisy.trainer_access import from_datamodule, in_run_folder


class LabelIssueReport(TrainingDynamics):
    """Writes which labels are probably wrong, and what they should be, when training ends.

    It keeps what :class:`TrainingDynamics` does, and at the end of training writes into ``output``

    - ``label_issues.csv``: a row for each sample, the most suspicious first: ``path`` or ``row``, ``given`` and
      ``suggested`` label, ``score`` in [0, 1] (1: surely wrong), ``rank``, ``flags``, its dynamics;
    - ``suggested_labels.npz``: the corrected labels, which ``FileNoise`` reads for a second run;
    - ``report.html``: the same to look through, one file that needs no network;
    - ``cleanlab.npz``, and for image files ``label_studio/`` and ``fiftyone/``, for other tools.

    How labels are ranked: :func:`~lightning_noisy.reports.from_dynamics.issues_from_dynamics`. A robust loss
    (``EarlyLearningRegularization``) ranks better than cross entropy, which learns wrong labels by heart. Classes that
    are (almost) never predicted are said on top of the page: the ranking of their labels is worth nothing. So is what
    else speaks against a run (:func:`~lightning_noisy.reports.remarks.remarks_on`): that it has learned its labels by
    heart, that it knows too little, that it expects more wrong labels than it can point at.

    Args:
        output: Folder; a relative one lies in the run's folder (without a logger, in ``default_root_dir``).
        clean_targets: Right labels, where somebody knows them: a tensor (N,), or the path of a .npy / .npz file; None
            asks the data module. The page then says how good the ranking is.
        clean_key: Name of the array inside an .npz file.
        title: What the data is called; None: the data module, or the data set.
        pictures: Whether the page shows the samples, where they are images.
        image_root: Folder that the samples' paths are relative to, where the page shows these files instead: training
            may have seen features of them alone. None asks the data module.
        **options: ``criterion``, ``index_key``, ``check_labels``, ``storage``, as in :class:`CriterionCallback`.

    Raises:
        NoisyLabelError: Before the first step, an output that cannot be written, no folder ``image_root``, clean labels
            that do not fit, a single class, labels beyond the classes that have a name, a checkpoint of another data
            set.

    Example::

        Trainer(callbacks=[LabelIssueReport()]).fit(module, loader)
    """

    def __init__(
        self,
        output: str = "label_issues",
        clean_targets: Tensor | str | None = None,
        clean_key: str | None = None,
        title: str | None = None,
        pictures: bool = True,
        image_root: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.output = output
        self.clean_targets = CleanTargets(clean_targets, clean_key)
        self.title = title
        self.pictures = pictures
        self.image_root = image_root

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        check_image_root(self.image_root)
        folder = in_run_folder(trainer, self.output)
        if trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False):
            check_writable(folder / TABLE, "output")

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        assert self.section.num_samples is not None
        truth = self.clean_targets.resolve(trainer, self.section.num_samples, torch.device("cpu"))
        if self.clean_targets.source is None and from_datamodule(trainer, "realized_noise_rate") == 0:
            truth = None  # labels that nobody has changed are as they came, not right
        data = getattr(trainer, "datamodule", None) or self._dataset(trainer)
        self.facts.truth, self.facts.title = truth, self.title or type(data).__name__
        self.facts.root = self.image_root or self.facts.root

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        folder = in_run_folder(trainer, self.output)
        written = trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False)
        if written and self.dynamics.table is not None:
            self.write(folder, self._picture_of(trainer) if self.pictures else None)

    def issues(self) -> LabelIssues:
        """The ranked labels, after a fit.

        Raises:
            NoisyLabelError: No epoch has ended yet; a single class, or labels beyond those that have a name.
        """
        facts, names = self.facts, self._class_names()
        line, curves = self.collapse(names), self.curves()
        remarks = [] if line is None else [line]
        labels, truth = (None if known is None else known.numpy() for known in (facts.labels, facts.truth))
        return issues_from_dynamics(
            self.table(), self.beliefs(), facts.samples, facts.kind, names, labels, truth, remarks, curves, self.lost
        )

    def write(self, folder: Path, thumbnail: Thumbnail | None = None) -> None:
        """Write the report, say in a line what it has found, and in one more whatever speaks against it.

        Args:
            folder: Where its files go.
            thumbnail: Makes the picture of a sample by its position.
        """
        issues = self.issues()
        write_report(folder, issues, self.facts.title or "", thumbnail, self.facts.root)
        found, share = int(issues.wrong.sum()), issues.noise_rate.share
        seen = f"{found} of {len(issues)} labels look wrong, the estimated noise rate is {share:.1%}"
        rank_zero_info(f"{seen}: {folder / PAGE}")
        for remark in issues.remarks:
            say_once(remark)

    def _class_names(self) -> list[str]:
        known = self.facts.class_names
        return [str(label) for label in range(self.dynamics.num_classes or 0)] if known is None else list(known)

    def _dataset(self, trainer: Trainer) -> Any:
        """The training set, without augmentation where the data module has it so."""
        scored = getattr(getattr(trainer, "datamodule", None), "scoring_loader", None)
        return self.run.origins.dataset if scored is None else scored().dataset

    def _picture_of(self, trainer: Trainer) -> Thumbnail:
        files = pictures_below(self.facts.root, self.facts.samples) if self.facts.kind == "path" else None
        if self.image_root is not None and files is not None:
            return files
        return partial(_of_sample, self._dataset(trainer), files)


def check_image_root(root: str | None) -> None:
    """Refuse a folder of pictures that is not there."""
    there = root is None or Path(root).expanduser().is_dir()
    check_argument(there, "image_root", "a folder, relative to the working directory", root)


def pictures_below(root: str | Path, paths: NDArray[np.str_]) -> Thumbnail:
    """From the position of a sample to the image of its path; None where there is none any more that can be read.

    Args:
        root: The folder that paths are relative to.
        paths: Of all samples, (N,).
    """

    def picture_of(row: int) -> Image.Image | None:
        path = Path(Path(root).expanduser(), str(paths[row]))
        try:
            return read_photo(path) if path.is_file() else None
        except Exception:  # decoders raise nearly anything, and a list of labels is worth more than one picture
            return None

    return picture_of


def _of_sample(dataset: Any, files: Thumbnail | None, row: int) -> Image.Image | None:
    """The image that is first in a sample, else that of its file; None where there is none that can be read."""
    try:
        sample = dataset[row]
    except Exception:  # as above: what a data set raises for one sample is no reason to lose the list
        sample = None
    first = sample[0] if isinstance(sample, (list, tuple)) and sample else sample
    if isinstance(first, Image.Image):
        return first
    if isinstance(first, (Tensor, np.ndarray)):
        return picture(torch.as_tensor(first))
    return None if files is None else files(row)
