"""Co-LDL: two networks that teach each other with clean samples, and learn label distributions of the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from lightning_noisy.collectives import process_count
from lightning_noisy.data.batch import TrainingBatch
from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.functional.losses import cross_entropy, one_hot, smooth_losses, smoothed_labels, softmax
from lightning_noisy.functional.mixing import mixing_shares
from lightning_noisy.functional.random import hash_bits
from lightning_noisy.functional.schedules import linear
from lightning_noisy.functional.selection import keep_count, small_loss
from lightning_noisy.losses.sample_losses import SampleLosses
from lightning_noisy.modules.checks import check_views
from lightning_noisy.modules.multi_network import MultiNetworkModule
from lightning_noisy.networks.classifier import Classifier, Outputs
from lightning_noisy.networks.projected_backbone import ProjectedBackbone

_STREAM = 0x636F6C646C  # keeps these draws apart from others under the same keys
_LABEL_SCALE, _FLOOR = 10.0, 1e-8


class CoLDL(MultiNetworkModule):
    r"""Two networks, one view each: clean samples in exchange, label distributions for the rest.

    Batches hold two views; each network sees one. Both learn with smoothed labels :math:`\tilde y`, in the first
    ``warmup_epochs`` epochs from everything. Then the share d(e) of the batch with the largest losses under a network
    is not clean for the other one, which learns from its :math:`\mathcal{L}`; d grows linearly over these epochs.

    .. math:: \mathcal{L} = (1 - \alpha) \Big( \frac{1}{|C|} \sum_{i \in C} \big( \ell(z_i, \tilde y_i) + H(p_i) \big)
              + \beta \frac{1}{|\bar C|} \sum_{i \in \bar C} D(\tilde p_i \| \tilde q_i) \Big)
              + \alpha \frac{1}{|C|} \sum_{i \in C} \operatorname{CE}(l_i, \tilde y_i)
              + \gamma \frac{1}{B} \sum_i \big( 2 - 2 \cos(z_i, h'_i) \big)

    :math:`q_i = \operatorname{softmax}(l_i)` is the label distribution of a sample, l a row for each, which starts at
    10 for the given label and moves by :math:`l_i \leftarrow l_i - \eta\, \partial \mathcal{L} / \partial l_i` with
    each batch. Images of :math:`\bar C` and their q are mixed with those of clean partners, with a
    :math:`\lambda_i \sim \operatorname{Beta}(\phi, \phi)` for each; :math:`\tilde p` is the prediction. h' is the other
    network's embedding of its view: each backbone is followed by a projection to K features
    (:class:`~lightning_noisy.networks.ProjectedBackbone`), the head predicts from these.

    Partners are drawn among the clean samples of one process, anew when all have been; the losses are ranked over all.
    Published for fine-grained web images; its settings on CIFAR are not known.

    Args:
        backbone: Makes a backbone; called once for each network.
        head: Makes a classifier from (K, K).
        loss: The loss of given labels, smoothed as :func:`~lightning_noisy.functional.losses.smooth_losses` does; the
            paper has cross entropy.
        num_classes: K.
        warmup_epochs: Published: 10 of 110.
        drop_rate: d in the first epoch after these. Published: 0.25.
        final_drop_rate: d in the last epoch. Published: 0.5.
        smoothing: :math:`\epsilon` of the smoothed labels, in [0, 1 - 1 / K]. Published: 0.5.
        consistency: :math:`\alpha`, in [0, 1]. Published: 0.1.
        mix_weight: :math:`\beta`. Published: 0.3.
        embedding_weight: :math:`\gamma`. Published: 0.1.
        mix_alpha: :math:`\phi`. Published: 0.4.
        label_lr: :math:`\eta`. Published: 200 with batches of 16; the gradient is that of a mean over a batch, so one
            of 64 samples wants 800.
        shared_labels: Whether both networks have one table of labels, moved by the second network's loss alone, as in
            the code and the published numbers; the paper has one for each.
        double_softmax: Whether the fourth term takes q for l, as in the code and the published numbers.
        all_pairs: Whether :math:`\tilde p_i` is compared with every sample's q, mixed by every :math:`\lambda`, as a
            mean over these and the classes, which the shapes in the code, and the published numbers, come to.
        total_epochs: E; None takes the Trainer's ``max_epochs`` at the first start. Published: 110.
        **options: ``optimizer``, ``lr_scheduler``, ``storage``, ``compile``.

    Raises:
        NoisyLabelError: An argument outside its range; a batch without two views.

    References:
        Sun et al., Co-LDL: A Co-Training-Based Label Distribution Learning Method for Tackling Label Noise, IEEE
        Transactions on Multimedia 2022. Its code reports the better of both networks.

    Example::

        module = CoLDL(CNN7, LinearHead, torch.nn.CrossEntropyLoss(), num_classes=80)
        data = CIFAR80NODataModule(noise=OpenSetNoise(SymmetricNoise(0.2)), views=["weak", "weak"])
    """

    unfit_storage: ClassVar[Mapping[str, str]] = {"top_k": "they are no probabilities of classes"}

    def __init__(
        self,
        backbone: Callable[[], nn.Module],
        head: Callable[[int, int], nn.Module],
        loss: nn.Module,
        num_classes: int,
        warmup_epochs: int = 10,
        drop_rate: float = 0.25,
        final_drop_rate: float = 0.5,
        smoothing: float = 0.5,
        consistency: float = 0.1,
        mix_weight: float = 0.3,
        embedding_weight: float = 0.1,
        mix_alpha: float = 0.4,
        label_lr: float = 200.0,
        shared_labels: bool = False,
        double_softmax: bool = False,
        all_pairs: bool = False,
        total_epochs: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(lambda: _projected(backbone(), num_classes), head, loss, num_classes, **options)
        check_count(warmup_epochs, "warmup_epochs", least=0)
        for name, rate in (("drop_rate", drop_rate), ("final_drop_rate", final_drop_rate)):
            check_argument(0 <= rate < 1, name, "a float in [0, 1)", rate)
        most = 1 - 1 / num_classes
        check_argument(0 <= smoothing <= most, "smoothing", f"a float in [0, 1 - 1 / K = {most:g}]", smoothing)
        check_argument(0 <= consistency <= 1, "consistency", "a float in [0, 1]", consistency)
        for name, weight in (
            ("mix_weight", mix_weight),
            ("embedding_weight", embedding_weight),
            ("label_lr", label_lr),
        ):
            check_argument(weight >= 0, name, "a float >= 0", weight)
        check_argument(mix_alpha > 0, "mix_alpha", "a float > 0", mix_alpha)
        check_count(total_epochs, "total_epochs", optional=True)
        self.warmup_epochs = warmup_epochs
        self.drop_rate = drop_rate
        self.final_drop_rate = final_drop_rate
        self.smoothing = smoothing
        self.consistency = consistency
        self.mix_weight = mix_weight
        self.embedding_weight = embedding_weight
        self.mix_alpha = mix_alpha
        self.label_lr = label_lr
        self.shared_labels = shared_labels
        self.double_softmax = double_softmax
        self.all_pairs = all_pairs
        self.total_epochs = total_epochs

    def drop_rate_of(self, epoch: int) -> float:
        """d(e), the share that is not clean in an epoch after the warm-up."""
        total = self.run.total_epochs(type(self).__name__, self.total_epochs)
        steps = max(1, total - self.warmup_epochs - 1)
        return linear(self.drop_rate, self.final_drop_rate, min(epoch - self.warmup_epochs, steps), steps)

    @override
    def step(self, batch: TrainingBatch) -> Tensor:
        check_views(batch.images, ["weak", "weak"], type(self).__name__)
        networks = cast("list[Classifier]", list(self.networks))
        outputs = [network.outputs(view) for network, view in zip(networks, batch.images, strict=True)]
        losses = [self._smoothed(seen, own) for seen, own in zip(self.all_losses(outputs, batch), outputs, strict=True)]
        if self.current_epoch < self.warmup_epochs:
            return sum((self.selected_mean(own, _all(batch)) for own in losses), torch.zeros((), device=self.device))
        clean = [self._clean(own.losses.detach()) for own in losses]
        for name, rows in zip(self.members, reversed(clean), strict=True):
            self.note_selection(rows, batch, name)
        first, second = (self._learn(n, outputs, losses[n], clean[1 - n], batch) for n in (0, 1))
        return first + second

    def _smoothed(self, seen: SampleLosses, own: Outputs) -> SampleLosses:
        return SampleLosses(smooth_losses(seen.losses, self._logits(own), self.smoothing), seen.weights)

    def _logits(self, outputs: Outputs) -> Tensor:
        return outputs.logits[:, : self.num_classes]

    def _clean(self, losses: Tensor) -> Tensor:
        rate, everywhere = self.drop_rate_of(self.current_epoch), self.gather_batch(losses)
        self.note(**{"selection/keep_rate": 1 - rate})
        return self.local_rows(small_loss(everywhere, keep_count(rate, len(everywhere))))

    def _learn(
        self, number: int, outputs: list[Outputs], fitted: SampleLosses, clean: Tensor, batch: TrainingBatch
    ) -> Tensor:
        """What a network learns from what the other one finds clean; the labels of the batch move."""
        logits, other = self._logits(outputs[number]), outputs[1 - number].features.detach()
        fit = fitted.losses + cross_entropy(logits, softmax(logits))
        name = f"labels_{1 if self.shared_labels else number}"
        store = self.section.store(name, (self.num_classes,), device=logits.device)
        moved = store.get(batch.index).requires_grad_()
        labels = _LABEL_SCALE * one_hot(batch.target, self.num_classes) + moved
        mixed = self._mixed(number, batch.images[number], softmax(labels) + _FLOOR, clean, batch)
        smooth = smoothed_labels(batch.target, self.num_classes, self.smoothing)
        kept = cross_entropy(softmax(labels) if self.double_softmax else labels, smooth)
        of_labels = (1 - self.consistency) * self.mix_weight * self.selected_mean(mixed, ~clean)
        of_labels = of_labels + self.consistency * self.selected_mean(kept, clean)
        if number == 1 or not self.shared_labels:
            (gradient,) = torch.autograd.grad(of_labels, moved, retain_graph=True)
            store.update(batch.index, moved - self.label_lr * gradient / process_count())
        alike = 2 - 2 * F.cosine_similarity(logits.float(), other.float())
        own = (1 - self.consistency) * self.selected_mean(SampleLosses(fit, fitted.weights), clean)
        return own + of_labels + self.embedding_weight * self.selected_mean(alike, _all(batch))

    def _mixed(self, number: int, images: Tensor, labels: Tensor, clean: Tensor, batch: TrainingBatch) -> Tensor:
        """Divergences (B,) of samples that are not clean, mixed with clean ones; 0 for the others."""
        rest, partners = (~clean).nonzero().squeeze(1), clean.nonzero().squeeze(1)
        if len(rest) == 0:
            return labels.new_zeros(len(labels))
        keys = self.draw_keys(_STREAM + number)
        partners = partners if len(partners) else rest
        partners = partners[hash_bits(*keys, batch.index[partners]).argsort(stable=True)]
        partners = partners[torch.arange(len(rest), device=rest.device) % len(partners)]
        share = mixing_shares(self.mix_alpha, len(rest), *keys).to(labels)
        mixture = torch.lerp(images[partners], images[rest], share.to(images).view(-1, *[1] * (images.ndim - 1)))
        said = softmax(self.networks[number](mixture)[:, : self.num_classes]) + _FLOOR
        if self.all_pairs:
            wanted = torch.lerp(labels[partners], labels[rest], share.view(-1, 1, 1))
            rows = (said * (said.log() - wanted.log())).mean(dim=(0, 2))
        else:
            wanted = torch.lerp(labels[partners], labels[rest], share.unsqueeze(1))
            rows = (said * (said.log() - wanted.log())).sum(dim=1)
        return rows.new_zeros(len(labels)).index_copy(0, rest, rows)


def _all(batch: TrainingBatch) -> Tensor:
    return torch.ones_like(batch.target, dtype=torch.bool)


def _projected(backbone: nn.Module, num_features: int) -> nn.Module:
    """With a projection behind it, unless it has one."""
    return backbone if isinstance(backbone, ProjectedBackbone) else ProjectedBackbone(backbone, num_features)
