"""ELR+: early-learning regularization of two networks, each towards what the other one's average has predicted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.data.batch import TrainingBatch
from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.functional.losses import early_learning_penalty, one_hot, softmax
from lightning_noisy.functional.mixing import mix, mixing_partners, mixing_share
from lightning_noisy.functional.schedules import sigmoid_rampup
from lightning_noisy.losses.soft_losses import check_takes_soft_targets, soft_losses
from lightning_noisy.modules.alternating import AlternatingModule
from lightning_noisy.modules.context import widened
from lightning_noisy.networks.classifier import Classifier
from lightning_noisy.networks.teacher import Statistics, Teacher, check_teacher

_MIX_STREAM = 0x656C722B


class ELRPlus(AlternatingModule):
    r"""Two networks that learn from mixed samples, and towards what the other one's moving average has said of them.

    In the turn of network f, with :math:`g'` the average of the other network's parameters, a share
    :math:`\lambda = \max(l, 1 - l)`, :math:`l \sim \operatorname{Beta}(\alpha, \alpha)` and a permutation of the batch,

    .. math::
        h_i \leftarrow \beta h_i + (1 - \beta)\, g'(x_i), \qquad
        \mathcal{L} = \ell(f(\tilde x_i), \tilde y_i)
        + s(t)\, \lambda_{ELR} \ln\big(1 - \langle \tilde h_i, f(\tilde x_i) \rangle\big)

    where a tilde is the mixture of a sample with its partner, and s grows as :math:`\exp(-5 (1 - t/T)^2)` over the
    steps t of the network. The mean of the networks' logits is evaluated, not that of the averages.

    Published: CIFAR-10 ``momentum=0.7, lam=3`` (symmetric) or ``0.9, 1`` (asymmetric); CIFAR-100 ``momentum=0.9,
    lam=7, rampup_steps=40000, weigh_labels=True``; WebVision and Clothing1M ``0.7, 3`` with ``decay_steps=None`` and
    a ``decay`` of 0.997 and 0.9999, on WebVision ``alpha=1.5``.

    The criterion's formula takes mixed targets where the paper has cross entropy, so it must be one of logits and soft
    targets. Callbacks see the whole mixed batch with its given labels, as beside ``MixUp``. With several processes
    partners are of the same process. The code takes ``weigh_labels`` for granted where there are 100 classes.

    Args:
        backbone: Makes a backbone; called once for each network.
        head: Makes a classifier from (D, K).
        loss: The loss; the paper has cross entropy.
        num_classes: K.
        momentum: :math:`\beta`, in [0, 1).
        lam: :math:`\lambda_{ELR}`, at least 0.
        rampup_steps: T, steps of a network; with 0 s is 1.
        alpha: Parameter of the Beta distribution, more than 0.
        weigh_labels: Whether mixed targets are weighed with :math:`\tilde h` and normalized.
        decay: Decay of the averages, in [0, 1].
        decay_steps: Steps over which it grows as s does; None: it is :math:`\min(1 - 1/(t + 1), \text{decay})`.
        warmup_epochs: Epochs on unmixed samples, without the second term; h is then of the network's own predictions.
        statistics: What batch normalization of the averages works with, see :class:`~lightning_noisy.networks.Teacher`.
            Published: ``"batch"``.
        **options: ``samples_per_epoch``, ``optimizer``, ``lr_scheduler``, ``storage``, ``compile``.

    Raises:
        NoisyLabelError: An argument outside its range; a loss that takes no soft targets, or more than these.

    References:
        Liu et al., Early-Learning Regularization Prevents Memorization of Noisy Labels, NeurIPS 2020.

    Example::

        module = ELRPlus(PreActResNet18, LinearHead, torch.nn.CrossEntropyLoss(), num_classes=10, momentum=0.7)
    """

    unfit_storage: ClassVar[Mapping[str, str]] = {
        "sharded": "any process may visit any sample, in the turns of the networks"
    }

    def __init__(
        self,
        backbone: Callable[[], nn.Module],
        head: Callable[[int, int], nn.Module],
        loss: nn.Module,
        num_classes: int,
        momentum: float = 0.7,
        lam: float = 3.0,
        rampup_steps: int = 0,
        alpha: float = 1.0,
        weigh_labels: bool = False,
        decay: float = 0.997,
        decay_steps: int | None = 40000,
        warmup_epochs: int = 0,
        statistics: Statistics = "batch",
        **options: Any,
    ) -> None:
        super().__init__(backbone, head, loss, num_classes, **options)
        check_argument(0 <= momentum < 1, "momentum", "a float in [0, 1)", momentum)
        check_argument(lam >= 0, "lam", "a float >= 0", lam)
        check_argument(0 < alpha < math.inf, "alpha", "a finite float > 0", alpha)
        check_teacher(decay, statistics)
        check_count(rampup_steps, "rampup_steps", least=0)
        check_count(decay_steps, "decay_steps", optional=True)
        check_count(warmup_epochs, "warmup_epochs", least=0)
        check_takes_soft_targets(loss)
        self.momentum = momentum
        self.lam = lam
        self.rampup_steps = rampup_steps
        self.alpha = alpha
        self.weigh_labels = weigh_labels
        self.decay = decay
        self.decay_steps = decay_steps
        self.warmup_epochs = warmup_epochs
        averages = (Teacher(cast(Classifier, network), decay, statistics) for network in self.networks)
        self.teachers = nn.ModuleList(averages)
        self._due: dict[int, int] = {}

    @override
    def on_train_start(self) -> None:
        self._due.clear()  # a fit that broke off may have left a batch without its step
        super().on_train_start()

    @override
    def prepare_epoch(self, epoch: int) -> None:
        self.take_turns(self.shuffled_turns(epoch))

    @override
    def step(self, batch: TrainingBatch) -> Tensor:
        number, images = self.turn, self.first_view(batch.images)
        self._due[number] = max(0, self.steps_of_turn)
        network, loss = cast(Classifier, self.networks[number]), self.losses[number]
        if self.current_epoch < self.warmup_epochs:
            outputs = network.outputs(images)
            self._remember(number, batch, outputs.logits)
            return self.training_loss(loss, outputs, batch)
        keys = self.draw_keys(_MIX_STREAM)
        share = mixing_share(self.alpha, *keys, dominant=True)
        partners = mixing_partners(batch.index, *keys)
        past = self._remember(number, batch, cast(Teacher, self.teachers[1 - number]).outputs(images).logits)
        past, target = (mix(rows, partners, share) for rows in (past, one_hot(batch.target, self.num_classes)))
        outputs = network.outputs(mix(images, partners, share))
        with torch.no_grad():
            self.sample_losses(loss, outputs, batch)
        logits = widened(outputs.logits)[:, : self.num_classes]
        if self.weigh_labels:
            target = target * past
            target = target / target.sum(dim=1, keepdim=True)
        penalty = early_learning_penalty(logits, past).mean()
        strength = self.lam * sigmoid_rampup(self.steps_of_turn + 1, self.rampup_steps)
        return soft_losses(loss, logits, target).mean() + strength * penalty

    @property
    def steps_of_turn(self) -> int:
        """How many batches the network whose turn it is has had since the warm-up, before this one."""
        done, each = self.turn_progress
        return (self.current_epoch - self.warmup_epochs) * each + done

    @override
    def after_step(self) -> None:
        while self._due:  # with accumulation a step may end one turn and begin the next
            number, before = self._due.popitem()
            teacher = cast(Teacher, self.teachers[number])
            teacher.decay = self._decay_at(before + 2)
            teacher.update(self.networks[number])

    @override
    def ensemble(self, logits: Tensor) -> Tensor:
        """The mean of the networks' logits (networks, B, K)."""
        return logits.mean(dim=0)

    def _decay_at(self, step: int) -> float:
        grown = 1 - 1 / step if self.decay_steps is None else sigmoid_rampup(step, self.decay_steps) * self.decay
        return min(grown, self.decay)

    def _remember(self, number: int, batch: TrainingBatch, logits: Tensor) -> Tensor:
        """Move the history of the batch's samples towards a prediction; returns it, (B, K)."""
        history = self.section.store(f"history_{number}", (self.num_classes,), device=self.device)
        return history.lerp(batch.index, softmax(logits[:, : self.num_classes]), 1 - self.momentum)
