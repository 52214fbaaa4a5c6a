"""What strategies share whose network is followed by a mean teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.modules.noisy_label_module import NoisyLabelModule
from lightning_noisy.networks.teacher import Statistics, Teacher, check_teacher


class MeanTeacherModule(NoisyLabelModule):
    """Base of the strategies on one network that a moving average of its parameters teaches.

    Evaluated is the student; the teacher's metrics are ``test/teacher/acc`` and so on.

    Args:
        backbone: See :class:`~lightning_noisy.modules.NoisyLabelModule`, as are the next ones.
        head: Likewise.
        loss: Likewise.
        num_classes: Likewise.
        teacher_decay: See :class:`~lightning_noisy.networks.Teacher`.
        teacher_statistics: Likewise.
        **options: ``optimizer``, ``lr_scheduler``, ``storage``, ``compile``.

    Raises:
        NoisyLabelError: An argument outside its range.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: Callable[[int, int], nn.Module],
        loss: nn.Module,
        num_classes: int,
        teacher_decay: float = 0.99,
        teacher_statistics: Statistics = "batch",
        **options: Any,
    ) -> None:
        super().__init__(backbone, head, loss, num_classes, **options)
        check_teacher(teacher_decay, teacher_statistics, prefix="teacher_")
        self.teacher = Teacher(self.network, teacher_decay, teacher_statistics)

    @property
    @override
    def members(self) -> tuple[str, ...]:
        return ("teacher",)

    @override
    def evaluations(self, images: Any) -> dict[str, Tensor]:
        return {"": self(images), "teacher": self.teacher.outputs(images).logits[:, : self.num_classes]}

    @override
    def after_step(self) -> None:
        self.teacher.update(self.network)
