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
from lightning_noisy.callbacks.training_dynamics import TrainingDynamics
from lightning_noisy.data.origins import CLASS_NAMES, PATH, ROW
from lightning_noisy.data.photos import read_photo
from lightning_noisy.data.pictures import picture
from lightning_noisy.files import check_writable
from lightning_noisy.reports import LabelIssues
from lightning_noisy.reports.from_dynamics import issues_from_dynamics
from lightning_noisy.reports.page import Thumbnail
from lightning_noisy.reports.report import PAGE, TABLE, write_report
from lightning_noisy.trainer_access import from_datamodule, run_folder


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
    are (almost) never predicted are said on top of the page: the ranking of their labels is worth nothing.

    Args:
        output: Folder; a relative one lies in the run's folder (without a logger, in ``default_root_dir``).
        clean_targets: Right labels, where somebody knows them: a tensor (N,), or the path of a .npy / .npz file; None
            asks the data module. The page then says how good the ranking is.
        clean_key: Name of the array inside an .npz file.
        title: What the data is called; None: the data module, or the data set.
        pictures: Whether the page shows the samples, where they are images.
        image_root: Folder that the samples' paths are relative to, where the page shows these files instead: training
            may have seen features of them alone.
        **options: ``criterion``, ``index_key``, ``check_labels``, as in :class:`CriterionCallback`.

    Raises:
        NoisyLabelError: At fit, an output that cannot be written, clean labels that do not fit, a checkpoint of another
            data set.

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
        self._clean: Tensor | None = None

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        if trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False):
            check_writable(self._folder(trainer) / TABLE, "output")

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        assert self.section.num_samples is not None
        self._clean = self.clean_targets.resolve(trainer, self.section.num_samples, torch.device("cpu"))
        if self.clean_targets.source is None and from_datamodule(trainer, "realized_noise_rate") == 0:
            self._clean = None  # labels that nobody has changed are as they came, not right

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        written = trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False)
        if not written or self.dynamics.table is None:
            return
        folder, issues = self._folder(trainer), self.issues(trainer)
        title = self.title or type(getattr(trainer, "datamodule", None) or self._dataset(trainer)).__name__
        write_report(folder, issues, title, self._picture_of(trainer) if self.pictures else None)
        found, share = int(issues.wrong.sum()), issues.noise_rate.share
        rank_zero_info(f"{found} of {len(issues)} labels look wrong ({share:.1%}): {folder / PAGE}")

    def issues(self, trainer: Trainer) -> LabelIssues:
        """The ranked labels.

        Args:
            trainer: The Trainer that has fitted.
        """
        table = self.table()
        samples, kind, names = self._origins()
        line = self.collapse(names)
        remarks = [] if line is None else [line]
        truth = None if self._clean is None else self._clean.numpy()
        return issues_from_dynamics(table, samples, kind, names, truth, remarks, self.curves())

    def _origins(self) -> tuple[NDArray[np.str_], Any, list[str]]:
        """What the samples are in the user's own data, of which kind, and what classes are called."""
        arrays = self.run.origins.arrays()
        names = arrays.get(CLASS_NAMES, np.arange(self.dynamics.num_classes or 0)).astype(str).tolist()
        kind = PATH if PATH in arrays else ROW
        return arrays[kind].astype(str), kind, names

    def _folder(self, trainer: Trainer) -> Path:
        return Path(run_folder(trainer) or trainer.default_root_dir) / self.output

    def _dataset(self, trainer: Trainer) -> Any:
        """The training set, without augmentation where the data module has it so."""
        scored = getattr(getattr(trainer, "datamodule", None), "scoring_loader", None)
        return self.run.origins.dataset if scored is None else scored().dataset

    def _picture_of(self, trainer: Trainer) -> Thumbnail:
        if self.image_root is not None:
            return partial(_of_file, Path(self.image_root), self._origins()[0])
        return partial(_of_sample, self._dataset(trainer))


def _of_file(root: Path, paths: NDArray[np.str_], row: int) -> Image.Image | None:
    """The image of a path; None where there is none any more."""
    path = root / str(paths[row])
    return read_photo(path) if path.is_file() else None


def _of_sample(dataset: Any, row: int) -> Image.Image | None:
    """The image that is first in a sample; None where that is none."""
    sample = dataset[row]
    first = sample[0] if isinstance(sample, (list, tuple)) else sample
    return picture(torch.as_tensor(first)) if isinstance(first, (Tensor, np.ndarray)) else None
