"""Jo-SRC: clean samples by divergence from their label, and two kinds of noise by agreement of views."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.data.batch import TrainingBatch
from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.functional.losses import (
    cross_entropy,
    generalized_jensen_shannon,
    smooth_losses,
    smoothed_labels,
    softmax,
    symmetric_divergence,
)
from lightning_noisy.functional.mixing import guess
from lightning_noisy.functional.schedules import linear
from lightning_noisy.functional.selection import disagree
from lightning_noisy.losses.sample_losses import SampleLosses
from lightning_noisy.modules.checks import check_views
from lightning_noisy.modules.mean_teacher import MeanTeacherModule
from lightning_noisy.networks.teacher import Statistics


class JoSRC(MeanTeacherModule):
    r"""Clean, mislabelled and out-of-distribution samples, each with a target of its own, told apart in each batch.

    Batches hold two views from one transform (``views=["weak", "weak"]``); z and z' are their logits. A sample is clean
    where its probability to be clean, from the first view, reaches a threshold:

    .. math:: 1 - \operatorname{JS}_2(p_i, \tilde y_i) \ge \tau(e), \qquad
              \tilde y_{ik} = \begin{cases} 1 - \epsilon & k = y_i \\ \epsilon / (K - 1) & \text{else} \end{cases}

    in bits, with :math:`\tau(e) = \tau e / E_w` in the first :math:`E_w` epochs and then from :math:`\tau` to
    ``final_threshold`` linearly over the others. In the former it learns from clean samples alone, the mean over them
    of :math:`\ell(z_i, \tilde y_i) + \ell(z'_i, \tilde y_i)`. Then from all:

    .. math:: \mathcal{L} = (1 - \alpha) \frac{1}{B} \sum_i \big( \ell(z_i, t_i) + \ell(z'_i, t_i) \big)
              + \alpha \frac{1}{B} \sum_i \sigma_i \big( D_2(p_i \| p'_i) + D_2(p'_i \| p_i) \big)

    ==================================  =========================================  ===========
    sample                              target t                                   :math:`\sigma`
    ==================================  =========================================  ===========
    clean                               :math:`\tilde y`                           1
    not clean, views predict alike      s, mean of the teacher's two predictions   1
    not clean, views disagree           :math:`\operatorname{softmax}(s / T)`      -1
    ==================================  =========================================  ===========

    The last target is nearly uniform, since s are probabilities. The teacher is a moving average of the network's
    parameters. Both views pass through a network together; in the code one after the other. A batch of the warm-up
    without a clean sample has no loss; the code gives NaN.

    Evaluated is the student; the teacher's metrics are ``test/teacher/acc`` and so on. Logged are ``selection/size``,
    ``precision`` and ``recall``, ``selection/threshold`` and the share ``selection/out_of_distribution``.

    Args:
        backbone: Maps images to features, see :class:`~lightning_noisy.modules.NoisyLabelModule`.
        head: Makes the classifier from (D, K).
        loss: :math:`\ell` of clean samples, smoothed as :func:`~lightning_noisy.functional.losses.smooth_losses` does;
            the paper has cross entropy, which soft targets have in any case.
        num_classes: K.
        warmup_epochs: :math:`E_w`. Published: 10; 5 on Clothing1M and Food-101N.
        smoothing: :math:`\epsilon`, in [0, 1 - 1 / K]. Published: 0.6 (CIFAR-100), 0.7 (Clothing1M), 0.65 (Food-101N).
        threshold: :math:`\tau`, in [0, 1]. Published: 0.75; 0.9 on Clothing1M.
        final_threshold: Published: 0.95.
        consistency: :math:`\alpha`, in [0, 1]. Published: 0.5; 0.4 on Clothing1M.
        temperature: T > 0. Published: 10.
        teacher_decay: Decay of the teacher's moving average, in [0, 1]. Published: 0.99.
        teacher_statistics: What batch normalization of the teacher works with in train mode, see
            :class:`~lightning_noisy.networks.Teacher`.
        total_epochs: E; None takes the Trainer's ``max_epochs`` at the first start. Published: 200, 15, 50.
        **options: ``optimizer``, ``lr_scheduler``, ``compile``.

    Raises:
        NoisyLabelError: An argument outside its range; a batch without two views.

    References:
        Yao et al., Jo-SRC: A Contrastive Approach for Combating Noisy Labels, CVPR 2021. Published on CIFAR-100 with
        Adam, 1e-3, and :class:`~lightning_noisy.optim.LinearDecay` with a final beta1 of 0.1.

    Example::

        module = JoSRC(CNN7, LinearHead, torch.nn.CrossEntropyLoss(), num_classes=80)
        data = CIFAR80NODataModule(noise=OpenSetNoise(SymmetricNoise(0.2)), views=["weak", "weak"])
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: Callable[[int, int], nn.Module],
        loss: nn.Module,
        num_classes: int,
        warmup_epochs: int = 10,
        smoothing: float = 0.6,
        threshold: float = 0.75,
        final_threshold: float = 0.95,
        consistency: float = 0.5,
        temperature: float = 10.0,
        teacher_decay: float = 0.99,
        teacher_statistics: Statistics = "batch",
        total_epochs: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(backbone, head, loss, num_classes, teacher_decay, teacher_statistics, **options)
        check_count(warmup_epochs, "warmup_epochs", least=0)
        most = 1 - 1 / num_classes
        check_argument(0 <= smoothing <= most, "smoothing", f"a float in [0, 1 - 1 / K = {most:g}]", smoothing)
        shares = {"threshold": threshold, "final_threshold": final_threshold, "consistency": consistency}
        for name, share in shares.items():
            check_argument(0 <= share <= 1, name, "a float in [0, 1]", share)
        check_argument(temperature > 0, "temperature", "a float > 0", temperature)
        check_count(total_epochs, "total_epochs", optional=True)
        self.warmup_epochs = warmup_epochs
        self.smoothing = smoothing
        self.threshold = threshold
        self.final_threshold = final_threshold
        self.consistency = consistency
        self.temperature = temperature
        self.total_epochs = total_epochs

    def threshold_of(self, epoch: int) -> float:
        r""":math:`\tau(e)`."""
        warm = self.warmup_epochs
        if epoch < warm:
            return linear(0.0, self.threshold, epoch, warm)
        total = self.run.total_epochs(type(self).__name__, self.total_epochs)
        return linear(self.threshold, self.final_threshold, epoch - warm, max(1, total - warm))

    @override
    def step(self, batch: TrainingBatch) -> Tensor:
        check_views(batch.images, ["weak", "weak"], type(self).__name__)
        both = self.network.outputs(batch.images)
        views = [logits[:, : self.num_classes] for logits in both.views]
        fits = [self.sample_losses(self.loss, both.of_view(view), batch) for view in (0, 1)]
        first, second = (smooth_losses(fit.losses, z, self.smoothing) for fit, z in zip(fits, views, strict=True))
        fitted = SampleLosses(first + second, fits[0].weights)
        smooth, threshold = smoothed_labels(batch.target, self.num_classes, self.smoothing), self._threshold_now()
        apart = generalized_jensen_shannon([views[0].detach()], smooth, pi=0.5, scaled=False) / math.log(2)
        clean = 1 - apart >= threshold
        self.note_selection(clean, batch)
        if self.current_epoch < self.warmup_epochs:
            return self.selected_mean(fitted, clean)
        outside = ~clean & disagree(*views)
        self.note(**{"selection/out_of_distribution": outside.float().mean()})
        targets = self._targets(batch, outside)
        corrected = cross_entropy(views[0], targets) + cross_entropy(views[1], targets)
        divergence = symmetric_divergence(*views) / math.log(2)
        everyone = torch.ones_like(clean)
        learned = SampleLosses(
            torch.where(clean, fitted.losses, corrected), torch.where(clean, fitted.weights, torch.ones_like(corrected))
        )
        fit = self.selected_mean(learned, everyone)
        alike = self.selected_mean(torch.where(outside, -divergence, divergence), everyone)
        return (1 - self.consistency) * fit + self.consistency * alike

    def _threshold_now(self) -> float:
        threshold = self.threshold_of(self.current_epoch)
        self.note(**{"selection/threshold": threshold})
        return threshold

    def _targets(self, batch: TrainingBatch, outside: Tensor) -> Tensor:
        """Targets of samples that are not clean, by the teacher: (B, K)."""
        views = self.teacher.outputs(batch.images).views
        said = guess([softmax(logits[:, : self.num_classes]) for logits in views])
        return torch.where(outside.unsqueeze(1), softmax(said / self.temperature), said)
