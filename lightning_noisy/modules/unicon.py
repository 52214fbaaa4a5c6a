"""UNICON: a class-balanced division by the networks' divergence from the labels, and a contrast of the rest."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.data.batch import TrainingBatch
from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.functional.losses import generalized_jensen_shannon, log_mean_prediction
from lightning_noisy.functional.losses.contrastive import view_contrast
from lightning_noisy.functional.selection import small_loss_by_class
from lightning_noisy.modules.checks import check_views
from lightning_noisy.modules.mix_match import MixMatchModule
from lightning_noisy.networks.classifier import Classifier

_CERTAIN = 0.5  # below this divergence a label is believed as it is


class UNICON(MixMatchModule):
    r"""DivideMix with a division that takes as many samples of each class, and with a contrast of unlabeled samples.

    The division of each epoch is that of both networks: :math:`d_i` is the Jensen-Shannon divergence of the label from
    the mean prediction, in evaluation mode. A share s of the samples lies below the mean of d, or, where that exceeds
    ``high_divergence``, below :math:`\bar d - (\bar d - \min d) / \tau`. Of each class the s N / K samples with the
    smallest d are labeled, all of a class that has fewer; a label is believed by 1 - d, by 1 where d < 1/2.

    Images have four views. The first two are weak, and give the targets; the last two are strong, and are trained on,
    as :class:`~lightning_noisy.modules.mix_match.MixMatchModule` says, plus ``contrast_weight`` times the contrast
    (:func:`~lightning_noisy.functional.losses.contrastive.view_contrast`) of the strong views of unlabeled samples, by
    a projection of their features. Labeled and unlabeled samples stand in a batch as 2 s to 1, as in the code.

    How the code differs: it looks at the samples again before the second network, with the first one in train mode;
    its logarithms are natural, so that d < ln 2 and the threshold of 0.7 never acts (``base=math.e``, which the
    published numbers have; 2 is the paper's); slots that a small class leaves open are sample 0 there; its batch of
    labeled samples is 64 and that of unlabeled ones 64 / (2 s), here they share the batch.

    Published: ``lambda_u=30``, ``warmup_epochs`` 10 (CIFAR-10) and 30 (CIFAR-100); on Clothing1M and WebVision
    ``lambda_u=None``.

    Args:
        backbone: Makes a backbone; called once for each network.
        head: Makes a classifier from (D, K).
        loss: The loss of the warm-up; the paper has cross entropy.
        num_classes: K.
        base: Base of the logarithms of d, more than 1.
        high_divergence: The mean d above which less is labeled.
        tau: How much less, more than 0.
        contrast_weight: Weight of the contrast.
        contrast_temperature: Its temperature.
        projection_width: Width of the embeddings that it compares.
        lambda_u: See :class:`~lightning_noisy.modules.mix_match.MixMatchModule`.
        **options: ``warmup_epochs``, ``confidence_penalty``, ``alpha``, ``temperature``, ``rampup_epochs``,
            ``samples_per_epoch``, ``optimizer``, ``lr_scheduler``, ``storage``, ``compile``.

    Raises:
        NoisyLabelError: An argument outside its range; in training, another number of views.

    References:
        Karim et al., UNICON: Combating Label Noise Through Uniform Selection and Contrastive Learning, CVPR 2022.

    Example::

        module = UNICON(PreActResNet18, LinearHead, torch.nn.CrossEntropyLoss(), num_classes=10)
        data = CIFAR10DataModule(noise=SymmetricNoise(0.5), views=["weak", "weak", "strong", "strong"])
    """

    def __init__(
        self,
        backbone: Callable[[], nn.Module],
        head: Callable[[int, int], nn.Module],
        loss: nn.Module,
        num_classes: int,
        base: float = 2.0,
        high_divergence: float = 0.7,
        tau: float = 5.0,
        contrast_weight: float = 0.025,
        contrast_temperature: float = 0.05,
        projection_width: int = 128,
        lambda_u: float | None = 30.0,
        **options: Any,
    ) -> None:
        super().__init__(backbone, head, loss, num_classes, lambda_u=lambda_u, **options)
        check_argument(base > 1, "base", "a float > 1", base)
        check_argument(high_divergence > 0, "high_divergence", "a float > 0", high_divergence)
        check_argument(tau > 0, "tau", "a float > 0", tau)
        check_argument(contrast_weight >= 0, "contrast_weight", "a float >= 0", contrast_weight)
        check_argument(contrast_temperature > 0, "contrast_temperature", "a float > 0", contrast_temperature)
        check_count(projection_width, "projection_width")
        self.base = base
        self.high_divergence = high_divergence
        self.tau = tau
        self.contrast_weight = contrast_weight
        self.contrast_temperature = contrast_temperature
        widths = [cast(Classifier, network).num_features for network in self.networks]
        projections = [
            nn.Sequential(nn.Linear(width, projection_width), nn.BatchNorm1d(projection_width)) for width in widths
        ]
        self.projections = nn.ModuleList(projections)

    @override
    def divide(self, epoch: int, part: Tensor) -> None:
        self.score(self.measure, part=part)
        divergence = self.section.stores["divergence"].get(part)
        threshold = divergence.mean()
        if threshold > self.high_divergence:
            threshold = threshold - (threshold - divergence.min()) / self.tau
        quota = max(1, int((divergence < threshold).sum()) // self.num_classes)
        labeled = small_loss_by_class(divergence, self.given_labels[part], quota, self.num_classes)
        clean = 1 - torch.where(divergence < _CERTAIN, 0.0, divergence)
        self.keep_division(part, *(rows.unsqueeze(1).expand(-1, self.num_networks) for rows in (clean, labeled)))

    def measure(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """What is looked at before a division: the divergence of each label from the mean prediction."""
        images = self.first_view(batch.images)
        together = log_mean_prediction([network(images)[:, : self.num_classes] for network in self.networks])
        divergence = generalized_jensen_shannon([together], batch.target, pi=0.5, scaled=False)
        return {"divergence": divergence / math.log(self.base)}

    @override
    def labeled_share(self, labeled: Tensor) -> float:
        ratio = 2 * float(labeled.float().mean())
        return ratio / (1 + ratio)

    @override
    def view_roles(self, views: list[Any]) -> tuple[list[Any], list[Any]]:
        check_views(views, ["weak", "weak", "strong", "strong"], type(self).__name__)
        return views[:2], views[2:]

    @override
    def learn(self, number: int, batch: TrainingBatch) -> Tensor:
        return super().learn(number, batch) + self.contrast_weight * self.contrast(number, batch)

    def contrast(self, number: int, batch: TrainingBatch) -> Tensor:
        """The contrast of the strong views of a batch's unlabeled samples; 0 where there are none."""
        strong = [view[self.first_part :] for view in self.view_roles(self.views(batch.images))[1]]
        rows = len(strong[0])
        if rows == 0:
            return torch.zeros((), device=self.device)
        network = cast(Classifier, self.networks[number])
        embedded = self.projections[number](network.features(torch.cat(strong)))
        return view_contrast(embedded[:rows], embedded[rows:], self.contrast_temperature).mean()
