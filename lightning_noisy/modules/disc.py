"""DISC: samples are told apart by two views and thresholds of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from lightning_noisy.data.batch import TrainingBatch
from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.functional.losses import cross_entropy, generalized_cross_entropy, softmax
from lightning_noisy.functional.mixing import mixing_partners, mixing_share
from lightning_noisy.functional.selection import two_view_groups
from lightning_noisy.modules.checks import check_views
from lightning_noisy.modules.noisy_label_module import NoisyLabelModule
from lightning_noisy.networks.classifier import Outputs

_STREAM = 0x64697363  # keeps these draws apart from other draws under the same seed
_VIEWS = "weak", "strong"
_WEAK, _STRONG = 0, 1
_LEFT_OUT, _CLEAN, _HARD, _CORRECTED = range(4)


class DISC(NoisyLabelModule):
    r"""One network and two views: clean, hard and corrected samples by thresholds that each sample has for itself.

    Batches hold a weak and a strong view (``views=["weak", "strong"]`` of our data modules). In the first
    ``warmup_epochs`` epochs the loss of both counts. After them, with the groups of the epoch before,

    .. math:: \mathcal{L} = \frac{1}{B} \sum_{v} \Big( \sum_{i \in \text{clean}} \ell(z^v_i, y_i)
              + \lambda_h \sum_{i \in \text{hard}} \operatorname{GCE}_{0.7}(z^v_i, y_i) \Big)
              + \sum_v \operatorname{MixUp}(x^v, t)

    where MixUp (Beta(5, 5), the larger share first) is over all that is clean, hard or corrected, with their labels t,
    the given or the corrected ones, and its soft cross entropy is their mean.

    At the end of each epoch the groups are made anew, see
    :func:`~lightning_noisy.functional.selection.two_view_groups`, and only then the thresholds follow:
    :math:`\tau_i \leftarrow \mu \tau_i + (1 - \mu) \max_k p_{ik}` for each view, p being that of the sample's last
    visit. A sample that no epoch visits keeps its old p. Where a batch has nothing that is selected, the loss is zero;
    the code then leaves out the optimizer's step.

    Logged are ``selection/clean``, ``selection/hard`` and ``selection/mixed``, each with ``size``, ``precision`` and
    ``recall``, and the mean threshold ``selection/threshold``.

    Several processes mix and count within the batch of all, so two equal one; for that they exchange the batch's
    images.

    Args:
        backbone: Maps images to features, see :class:`~lightning_noisy.modules.NoisyLabelModule`.
        head: Makes the classifier from (D, K).
        loss: :math:`\ell`; the paper has cross entropy.
        num_classes: K.
        warmup_epochs: Epochs before the selection. Published: 20 on CIFAR (15 for instance-dependent noise), 10 on
            ANIMAL-10N and Clothing1M, 15 on WebVision.
        momentum: :math:`\mu`, in [0, 1). Published: 0.99; 0.95 on CIFAR at 60 % and under asymmetric noise, and on
            Clothing1M.
        margin: :math:`\sigma`, at least 0. Published: 0.5.
        hard_weight: :math:`\lambda_h`. Published: 1, on CIFAR from 60 % on 0.2.
        alpha: Parameter of MixUp's distribution. Published: 5.
        initial_threshold: ``"samples"``: thresholds start at 1/N, as in the code and the published numbers, so that
            nearly every sample passes at first; ``"classes"``: at 1/K.
        **options: ``optimizer``, ``lr_scheduler``, ``storage``, ``compile``. The code's SGD has no momentum.

    Raises:
        NoisyLabelError: An argument outside its range; a batch without two views.

    References:
        Li et al., DISC: Learning from Noisy Labels via Dynamic Instance-Specific Selection and Correction, CVPR 2023.

    Example::

        module = DISC(ResNet18(), LinearHead, torch.nn.CrossEntropyLoss(), num_classes=10)
        data = CIFAR10DataModule(noise=SymmetricNoise(0.4), views=["weak", "strong"])
    """

    unfit_storage: ClassVar[Mapping[str, str]] = {}
    exact_rows = ("weak threshold", "strong threshold")

    def __init__(
        self,
        backbone: nn.Module,
        head: Callable[[int, int], nn.Module],
        loss: nn.Module,
        num_classes: int,
        warmup_epochs: int = 20,
        momentum: float = 0.99,
        margin: float = 0.5,
        hard_weight: float = 1.0,
        alpha: float = 5.0,
        initial_threshold: Literal["samples", "classes"] = "samples",
        **options: Any,
    ) -> None:
        super().__init__(backbone, head, loss, num_classes, **options)
        check_count(warmup_epochs, "warmup_epochs", least=0)
        check_argument(0 <= momentum < 1, "momentum", "a float in [0, 1)", momentum)
        check_argument(margin >= 0, "margin", "a float >= 0", margin)
        check_argument(hard_weight >= 0, "hard_weight", "a float >= 0", hard_weight)
        check_argument(alpha > 0, "alpha", "a float > 0", alpha)
        known = initial_threshold in ("samples", "classes")
        check_argument(known, "initial_threshold", "'samples' or 'classes'", initial_threshold)
        self.warmup_epochs = warmup_epochs
        self.momentum = momentum
        self.margin = margin
        self.hard_weight = hard_weight
        self.alpha = alpha
        self.initial_threshold = initial_threshold

    @override
    def prepare_epoch(self, epoch: int) -> None:
        """Groups and labels by what was seen in the epoch before, then thresholds."""
        labels = self.given_labels
        start = 1 / (len(labels) if self.initial_threshold == "samples" else self.num_classes)
        for name in _VIEWS:
            self.section.store(name, (self.num_classes,), device=self.device)
        for name in self.exact_rows:
            self.section.store(name, fill=start, device=self.device)
        self.section.store("group", dtype=torch.int64, device=self.device)
        target = self.section.store("target", dtype=torch.int64, device=self.device)
        for index in self.section.stores["weak"].chunks():
            given = labels[index.cpu()].to(index.device)
            if epoch == 0:
                target.put(index, given)
            else:
                self._judge(index, given)

    def _judge(self, index: Tensor, given: Tensor) -> None:
        """Groups, labels and thresholds of some samples with these given labels."""
        stores = self.section.stores
        weak, strong = seen = [stores[name].get(index) for name in _VIEWS]
        tau = [stores[name].get(index) for name in self.exact_rows]
        clean, hard, corrected = two_view_groups(weak, strong, given, tau[_WEAK], tau[_STRONG], self.margin)
        group = clean * _CLEAN + hard * _HARD + corrected * _CORRECTED
        target = torch.where(corrected, (weak + strong).argmax(dim=1), given)
        stores["group"].put(index, group)
        stores["target"].put(index, torch.where(group == _LEFT_OUT, stores["target"].get(index), target))
        for name, old, rows in zip(self.exact_rows, tau, seen, strict=True):
            stores[name].put(index, old.lerp(rows.amax(dim=1), 1 - self.momentum))

    @override
    def step(self, batch: TrainingBatch) -> Tensor:
        check_views(batch.images, ["weak", "strong"], type(self).__name__)
        both = self.network.outputs(batch.images)
        views = [both.of_view(view) for view in (_WEAK, _STRONG)]
        for name, view in zip(_VIEWS, views, strict=True):
            self.section.stores[name].update(batch.index, softmax(view.logits.detach()[:, : self.num_classes]))
        if self.current_epoch < self.warmup_epochs:
            return self.training_loss(self.loss, views[0], batch) + self.training_loss(self.loss, views[1], batch)
        group = self.section.stores["group"].get(batch.index)
        fitted = [self._fit(view, group, batch) for view in views]
        mixed = [self._mix_up(images, group != _LEFT_OUT, batch, view) for view, images in enumerate(batch.images)]
        self._note(group, batch)
        return torch.stack([*fitted, *mixed]).sum()

    def _fit(self, view: Outputs, group: Tensor, batch: TrainingBatch) -> Tensor:
        """The loss of clean samples, and the robust one of hard samples, over the number of all."""
        losses = self.sample_losses(self.loss, view, batch)
        clean = replace(losses, losses=losses.losses.where(group == _CLEAN, 0.0))
        robust = generalized_cross_entropy(view.logits[:, : self.num_classes], batch.target, q=0.7)
        everyone = torch.ones_like(group, dtype=torch.bool)
        return self.selected_mean(clean, everyone) + self.hard_weight * (robust * (group == _HARD)).mean()

    def _mix_up(self, images: Tensor, chosen: Tensor, batch: TrainingBatch, view: int) -> Tensor:
        """The mean loss of mixtures of what is chosen, whose partners are of all processes."""
        keys = (*self.draw_keys(_STREAM), view)
        everywhere = self.gather_batch(chosen)
        rows = everywhere.nonzero().squeeze(1)
        partners = torch.zeros(len(everywhere), dtype=torch.int64, device=rows.device)
        partners[rows] = rows[mixing_partners(self.gather_batch(batch.index)[rows], *keys)]
        own, share = self.local_rows(partners)[chosen], mixing_share(self.alpha, *keys, dominant=True)
        labels = F.one_hot(self.section.stores["target"].get(batch.index), self.num_classes).to(torch.float32)
        targets = torch.lerp(self.gather_batch(labels)[own], labels[chosen], share)
        losses = targets.new_zeros(0)
        if len(own):
            mixtures = torch.lerp(self.gather_batch(images)[own], images[chosen], share)
            losses = cross_entropy(self.network(mixtures)[:, : self.num_classes], targets)
        return self.selected_mean(losses, torch.ones_like(losses))

    def _note(self, group: Tensor, batch: TrainingBatch) -> None:
        for name, chosen in (("clean", group == _CLEAN), ("hard", group == _HARD), ("mixed", group != _LEFT_OUT)):
            self.note_selection(chosen, batch, name)
        thresholds = [self.section.stores[name].get(batch.index) for name in self.exact_rows]
        self.note(**{"selection/threshold": torch.cat(thresholds).mean()})
