"""A network that follows another one."""

from __future__ import annotations

from itertools import chain
from typing import Any, Literal, cast, get_args

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from typing_extensions import override

from lightning_noisy.errors import check_argument
from lightning_noisy.networks.classifier import Classifier, Outputs

Statistics = Literal["batch", "copied", "averaged"]
"""What batch normalization of a teacher works with: the batch it sees, the student's statistics, or their average."""


def check_teacher(decay: float, statistics: str, prefix: str = "") -> None:
    """Refuse a teacher's arguments.

    Args:
        decay: See :class:`Teacher`.
        statistics: Likewise.
        prefix: What stands before their names where the user writes them, e.g. ``"teacher_"``.

    Raises:
        NoisyLabelError: One is outside its range.
    """
    check_argument(0 <= decay <= 1, f"{prefix}decay", "a float in [0, 1]", decay)
    known = statistics in get_args(Statistics)
    check_argument(known, f"{prefix}statistics", "'batch', 'copied' or 'averaged'", statistics)


class Teacher(AveragedModel):
    r"""An exponential moving average of a network's parameters, which no gradient reaches.

    .. math:: \theta' \leftarrow a\, \theta' + (1 - a)\, \theta

    Call :meth:`update` after each step of the optimizer. It starts equal to the student.

    Args:
        student: The network that it follows.
        decay: a, in [0, 1]; it may be changed between updates.
        statistics: ``"batch"``: the teacher is in train mode while its student is, so that it normalizes by the batch
            that it sees, as in the official codes of mean-teacher methods; in evaluation, and with ``"copied"`` always,
            it has the student's statistics of the last update; ``"averaged"``: by an average of them like that of the
            parameters.

    Raises:
        NoisyLabelError: An argument outside its range.

    References:
        Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017.
    """

    def __init__(self, student: Classifier, decay: float, statistics: Statistics = "batch") -> None:
        check_teacher(decay, statistics)
        super().__init__(student, use_buffers=statistics == "averaged")
        self.decay = decay
        self.statistics = statistics
        self.requires_grad_(False)
        self.n_averaged.fill_(1)  # it is the student's copy already
        self.train(student.training)

    @override
    def train(self, mode: bool = True) -> Teacher:
        """Train mode is for the statistics of the batch."""
        super().train(mode and self.statistics == "batch")
        return self

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Follow the student, which has made a step."""
        self.update_parameters(student)

    @override
    def update_parameters(self, model: nn.Module) -> None:
        # That of the base reads its counter back twice, which waits for an accelerator.
        parameters = zip(self.module.parameters(), model.parameters(), strict=True)
        buffers = list(zip(self.module.buffers(), model.buffers(), strict=True))
        pairs = [(own.detach(), new.detach().to(own.device)) for own, new in chain(parameters, buffers)]
        averaged = pairs if self.use_buffers else pairs[: len(pairs) - len(buffers)]
        average = get_ema_multi_avg_fn(self.decay)  # type: ignore[no-untyped-call]
        for floats in (True, False):
            kind = [pair for pair in averaged if pair[0].is_floating_point() == floats]
            if kind:
                average(*map(list, zip(*kind, strict=True)), None)
        for own, new in pairs[len(averaged) :]:
            own.copy_(new)
        self.n_averaged += 1

    @torch.no_grad()
    def outputs(self, images: Any) -> Outputs:
        """What it says of a batch of images, or of a list of views of it, without a gradient."""
        return cast(Classifier, self.module).outputs(images)
