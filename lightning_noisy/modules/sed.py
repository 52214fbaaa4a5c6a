"""SED: thresholds and weights that follow the network, and labels of a mean teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.collectives import sum_over_processes
from lightning_noisy.data.batch import TrainingBatch
from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.functional.losses import cross_entropy, softmax
from lightning_noisy.functional.selection import class_thresholds, confidence_weights
from lightning_noisy.modules.checks import check_views
from lightning_noisy.modules.mean_teacher import MeanTeacherModule
from lightning_noisy.networks.classifier import Outputs
from lightning_noisy.networks.teacher import Statistics

_QUANTILE, _HIGHEST = 0.8, 0.95
_LOGIT_FLOOR = 1e-12


class SED(MeanTeacherModule):
    r"""Clean samples by thresholds of their classes; a mean teacher's labels, weighted, for all.

    Batches hold a weak and a strong view (``views=["weak", "strong"]`` of our data modules). In the first
    ``warmup_epochs`` epochs the network learns from the weak view, with the negative entropy of its predictions added,
    so that it does not get sure. Before each later epoch a pass over the training set gives the student's p and the
    teacher's p', and

    .. math:: \tau \leftarrow m \tau + (1 - m)\, Q_{0.8}(p_{i y_i}), \quad l \leftarrow m\, l + (1 - m)\, \bar p, \quad
              \text{clean}_i:\ p_{i y_i} \ge \tau\, l_{y_i} / \max_k l_k

    with :math:`\tau` in [0, 0.95]; and, with the confidence :math:`c_i = \max_k p'_{ik}` in the class k that the
    teacher predicts, whose mean and variance over such samples follow by m',
    :math:`w_i = \exp(-\min(c_i - \mu_k, 0)^2 n^2 / (2 v_k))`. Then

    .. math:: \mathcal{L} = \frac{1}{|\text{clean}|} \sum_{i \in \text{clean}} \ell(z_i, y_i)
              + \alpha\, \frac{1}{B} \sum_i w_i \operatorname{CE}(z^{\text{strong}}_i, \arg\max p'_i)

    A class that the teacher predicts fewer than twice feeds mean 0 and variance 1, as in the code. A batch without a
    clean sample has no first term; the code gives NaN. The pass is made on images of evaluation, in evaluation mode;
    the code makes it on augmented images in train mode, where batch normalization moves.

    Evaluated is the student; the teacher's metrics are ``test/teacher/acc`` and so on. Logged are ``selection/size``,
    ``precision`` and ``recall``, ``selection/threshold`` and the mean weight ``selection/weight``.

    Args:
        backbone: Maps images to features, see :class:`~lightning_noisy.modules.NoisyLabelModule`.
        head: Makes the classifier from (D, K).
        loss: :math:`\ell`; the paper has cross entropy.
        num_classes: K.
        warmup_epochs: Epochs before the selection. Published: 20.
        threshold_momentum: m, in [0, 1). Published: 0.9, or 0.95 and 0.999 in some settings. With 0.999 and one update
            an epoch the threshold hardly leaves 1/K.
        weight_momentum: m', in [0, 1). Published: 0.85 to 0.99.
        threshold_updates: ``"epoch"``: m and m' count once an epoch, as in the code and the published numbers;
            ``"batch"``: as if there had been an update with the same values in each batch.
        consistency: :math:`\alpha`. Published: 1; 0.5 on CIFAR80N-O at 20 %.
        deviations: n. Published: 2.
        teacher_decay: Decay of the teacher's moving average, in [0, 1]. Published: 0.99, or 0.95.
        teacher_statistics: What batch normalization of the teacher works with in train mode, see
            :class:`~lightning_noisy.networks.Teacher`.
        clamp_logits: Whether the entropy in the warm-up is that of logits without negative values, as in the code and
            the published numbers.
        **options: ``optimizer``, ``lr_scheduler``, ``storage``, ``compile``.

    Raises:
        NoisyLabelError: An argument outside its range; a batch without two views.

    References:
        Sheng et al., Foster Adaptivity and Balance in Learning with Noisy Labels, ECCV 2024.

    Example::

        module = SED(CNN7, LinearHead, torch.nn.CrossEntropyLoss(), num_classes=100)
        data = CIFAR100DataModule(noise=SymmetricNoise(0.2), views=["weak", "strong"])
    """

    unfit_storage: ClassVar[Mapping[str, str]] = {
        "top_k": "a row is one number",
        "sharded": "its thresholds are made of those of all samples",
    }

    def __init__(
        self,
        backbone: nn.Module,
        head: Callable[[int, int], nn.Module],
        loss: nn.Module,
        num_classes: int,
        warmup_epochs: int = 20,
        threshold_momentum: float = 0.9,
        weight_momentum: float = 0.9,
        threshold_updates: Literal["epoch", "batch"] = "epoch",
        consistency: float = 1.0,
        deviations: float = 2.0,
        teacher_decay: float = 0.99,
        teacher_statistics: Statistics = "batch",
        clamp_logits: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(backbone, head, loss, num_classes, teacher_decay, teacher_statistics, **options)
        check_count(warmup_epochs, "warmup_epochs", least=0)
        for name, momentum in (("threshold_momentum", threshold_momentum), ("weight_momentum", weight_momentum)):
            check_argument(0 <= momentum < 1, name, "a float in [0, 1)", momentum)
        known = threshold_updates in ("epoch", "batch")
        check_argument(known, "threshold_updates", "'epoch' or 'batch'", threshold_updates)
        check_argument(consistency >= 0, "consistency", "a float >= 0", consistency)
        check_argument(deviations > 0, "deviations", "a float > 0", deviations)
        self.warmup_epochs = warmup_epochs
        self.threshold_momentum = threshold_momentum
        self.weight_momentum = weight_momentum
        self.threshold_updates = threshold_updates
        self.consistency = consistency
        self.deviations = deviations
        self.clamp_logits = clamp_logits
        self.threshold: Tensor
        self.class_level: Tensor
        self.confidence_mean: Tensor
        self.confidence_variance: Tensor
        self.register_buffer("threshold", torch.tensor(1 / num_classes))
        self.register_buffer("class_level", torch.full((num_classes,), 1 / num_classes))
        self.register_buffer("confidence_mean", torch.full((num_classes,), 1 / num_classes))
        self.register_buffer("confidence_variance", torch.ones(num_classes))

    @override
    def prepare_epoch(self, epoch: int) -> None:
        """Look at all samples, then let thresholds and weights follow."""
        if epoch < self.warmup_epochs:
            return
        mean = torch.zeros_like(self.class_level, dtype=torch.float64)

        def measure(batch: TrainingBatch) -> dict[str, Tensor]:
            student, teacher = (
                self._probabilities(said.outputs(batch.images)) for said in (self.network, self.teacher)
            )
            mean.add_(student.double().sum(dim=0))
            confidence, label = teacher.max(dim=1)
            given = student.gather(1, batch.target.unsqueeze(1)).squeeze(1)
            return {"given": given, "confidence": confidence, "label": label}

        self.score(measure)
        given, confidence, label = (self.section.stores[name].rows() for name in ("given", "confidence", "label"))
        self._follow_thresholds(given, (sum_over_processes(mean) / len(given)).to(self.class_level))
        self._follow_confidence(confidence, label)

    def _follow_thresholds(self, given: Tensor, mean: Tensor) -> None:
        """Let the threshold follow the probabilities of given labels (N,), and class levels the mean ones (K,)."""
        share = 1 - self._momentum(self.threshold_momentum)
        self.threshold.lerp_(given.quantile(_QUANTILE).to(self.threshold), share).clamp_(0.0, _HIGHEST)
        self.class_level.lerp_(mean, share)

    def _follow_confidence(self, confidence: Tensor, label: Tensor) -> None:
        """Let mean and variance of each class follow the teacher's confidence (N,) in the classes it predicts."""
        share = 1 - self._momentum(self.weight_momentum)
        wide = confidence.double()
        count = label.bincount(minlength=self.num_classes).to(wide)
        several, divisor = count > 1, count.clamp(min=2)
        mean = torch.zeros_like(count).index_add_(0, label, wide) / divisor
        apart = torch.zeros_like(count).index_add_(0, label, (wide - mean[label]).square()) / (divisor - 1)
        self.confidence_mean.lerp_(torch.where(several, mean, 0.0).to(self.confidence_mean), share)
        self.confidence_variance.lerp_(torch.where(several, apart, 1.0).to(self.confidence_variance), share)

    def _momentum(self, momentum: float) -> float:
        updates = 1 if self.threshold_updates == "epoch" else int(self.trainer.num_training_batches)
        return float(momentum**updates)

    @override
    def step(self, batch: TrainingBatch) -> Tensor:
        check_views(batch.images, ["weak", "strong"], type(self).__name__)
        if self.current_epoch < self.warmup_epochs:
            weak = self.network.outputs(batch.images[0])
            return self.training_loss(self.loss, weak, batch) - self._entropy(weak)
        both = self.network.outputs(batch.images)
        stores = {name: self.section.stores[name].get(batch.index) for name in ("given", "confidence", "label")}
        clean = stores["given"] >= class_thresholds(self.threshold, self.class_level)[batch.target]
        label = stores["label"]
        mean, variance = self.confidence_mean[label], self.confidence_variance[label]
        weights = confidence_weights(stores["confidence"], mean, variance, self.deviations)
        self.note_selection(clean, batch)
        self.note(**{"selection/threshold": self.threshold, "selection/weight": weights})
        fit = self.selected_mean(self.sample_losses(self.loss, both.of_view(0), batch), clean)
        strong = cross_entropy(both.of_view(1).logits[:, : self.num_classes], label)
        return fit + self.consistency * (weights * strong).mean()

    def _probabilities(self, outputs: Outputs) -> Tensor:
        return softmax(outputs.logits[:, : self.num_classes])

    def _entropy(self, outputs: Outputs) -> Tensor:
        """Mean entropy of the predictions."""
        logits = outputs.logits[:, : self.num_classes]
        if self.clamp_logits:
            logits = logits.clamp(min=_LOGIT_FLOOR)
        return cross_entropy(logits, softmax(logits)).mean()
