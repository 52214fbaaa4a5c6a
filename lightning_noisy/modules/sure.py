"""SURE: a recipe of five parts that make a network reliable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.data.batch import TrainingBatch
from lightning_noisy.errors import check_argument
from lightning_noisy.functional.losses import correctness_ranking, cross_entropy, softmax
from lightning_noisy.functional.mixing import mix, mixing_partners, mixing_share
from lightning_noisy.functional.selection import agree
from lightning_noisy.modules.checks import check_views
from lightning_noisy.modules.noisy_label_module import NoisyLabelModule

_STREAM = 0x73757265  # keeps these draws apart from others under the same keys


class SURE(NoisyLabelModule):
    r"""Cross entropy beside that of mixed images, and confidence that ranks samples by how often they were right.

    .. math:: \mathcal{L} = \frac{1}{B} \sum_i \ell(z_i, y_i)
              + w_m \frac{1}{B} \sum_i \big( \lambda \operatorname{CE}(\tilde z_i, y_i)
              + (1 - \lambda) \operatorname{CE}(\tilde z_i, y_{\pi(i)}) \big)
              + w_r \frac{1}{B} \sum_i r_i, \qquad \lambda \sim \operatorname{Beta}(\beta, \beta)

    with the logits :math:`\tilde z` of images mixed with those of partners :math:`\pi` (RegMixup, one more forward
    pass), and :func:`~lightning_noisy.functional.losses.correctness_ranking` r of the largest probability of each
    sample (CRL) by :math:`n_i = (c_i - \min c) / (\max(1, e) - \min c)`: the count :math:`c_i` of visits in which the
    network has predicted the given label, before this batch, in epoch e from 0. It may exceed 1. The least count of all
    samples is that at the epoch's start; the code looks for it again in each batch.

    The other parts of the recipe are a cosine head (:class:`~lightning_noisy.heads.CosineHead`), the optimizer
    :class:`~lightning_noisy.optim.SAM`, and weight averaging (:class:`~lightning_noisy.callbacks.AveragedWeights` with
    :class:`~lightning_noisy.optim.CosineToConstant`); each is a line of the configuration. ``MaskRefresh`` beside them
    is SURE-DFC. SAM's two passes have the same counts.

    Partners and neighbours are those in the batch of one process. The code runs one epoch more than it names.

    Args:
        backbone: Maps images to features, see :class:`~lightning_noisy.modules.NoisyLabelModule`.
        head: Makes the classifier from (D, K). Published: ``CosineHead``.
        loss: :math:`\ell`; the paper has cross entropy.
        num_classes: K.
        mix_weight: :math:`w_m \ge 0`. Published: 1, for failure prediction on CIFAR 0.5.
        rank_weight: :math:`w_r \ge 0`. Published: 0.2, for failure prediction on CIFAR-10 0.5; on Clothing1M not known.
        beta: :math:`\beta > 0`. Published: 10.
        redraw: Whether the second pass of SAM draws other partners and another :math:`\lambda`, as in the code and the
            published numbers; else both passes have one loss, as SAM defines it.
        **options: ``optimizer``, ``lr_scheduler``, ``storage``, ``compile``.

    Raises:
        NoisyLabelError: An argument outside its range; a batch of several views.

    References:
        Li et al., SURE: SUrvey REcipes for building reliable and robust deep networks, CVPR 2024. Its code draws twice
        for each loss and drops the first draw.

    Example::

        module = SURE(VGG19BN(), CosineHead, torch.nn.CrossEntropyLoss(), 10,
                      optimizer=lambda p: SAM(p, torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=5e-4),
                      lr_scheduler=lambda o: CosineToConstant(o, total_epochs=200))
        Trainer(max_epochs=200, callbacks=[AveragedWeights(start_epoch=120)])
    """

    unfit_storage: ClassVar[Mapping[str, str]] = {
        "dtype": "they count epochs, and float16 does not count beyond 2048",
        "top_k": "a row is one number",
        "sharded": "it compares them with the least of all samples",
    }

    least: Tensor
    """The least count of all samples at the epoch's start, a scalar."""

    def __init__(
        self,
        backbone: nn.Module,
        head: Callable[[int, int], nn.Module],
        loss: nn.Module,
        num_classes: int,
        mix_weight: float = 1.0,
        rank_weight: float = 0.2,
        beta: float = 10.0,
        redraw: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(backbone, head, loss, num_classes, **options)
        check_argument(mix_weight >= 0, "mix_weight", "a float >= 0", mix_weight)
        check_argument(rank_weight >= 0, "rank_weight", "a float >= 0", rank_weight)
        check_argument(beta > 0, "beta", "a float > 0", beta)
        self.mix_weight = mix_weight
        self.rank_weight = rank_weight
        self.beta = beta
        self.redraw = redraw
        self.register_buffer("least", torch.zeros(()))
        self._seen: Tensor | None = None

    @override
    def prepare_epoch(self, epoch: int) -> None:
        store = self.section.stores.get("right")
        self.least.fill_(0.0 if store is None else store.values.min())

    @override
    def step(self, batch: TrainingBatch) -> Tensor:
        check_views(batch.images, ["weak"], type(self).__name__)
        images = batch.images if isinstance(batch.images, Tensor) else batch.images[0]
        outputs = self.network.outputs(images)
        loss = self.training_loss(self.loss, outputs, batch)
        logits = outputs.logits[:, : self.num_classes]
        ranks = correctness_ranking(softmax(logits).amax(dim=1), self._correctness(logits, batch)).mean()
        mixed = self._mixed(images, batch) if self.mix_weight else 0.0
        return loss + self.mix_weight * mixed + self.rank_weight * ranks

    def _mixed(self, images: Tensor, batch: TrainingBatch) -> Tensor:
        keys = (*self.draw_keys(_STREAM), int(self.redraw and self.run.open_batch.repeated))
        partners, share = mixing_partners(batch.index, *keys), mixing_share(self.beta, *keys)
        logits = self(mix(images, partners, share))
        own, other = (cross_entropy(logits, target).mean() for target in (batch.target, batch.target[partners]))
        return share * own + (1 - share) * other

    def _correctness(self, logits: Tensor, batch: TrainingBatch) -> Tensor:
        """How often samples were right, relative to the others (B,), before this batch, whose outcome is then noted."""
        if self._seen is None or not self.run.open_batch.repeated:
            store = self.section.store("right", device=logits.device)
            counts, span = store.get(batch.index), max(1, self.current_epoch) - self.least
            self._seen = torch.where(span > 0, (counts - self.least) / span, 0.0)
            store.update(batch.index, counts + agree(logits, batch.target).float())
        return self._seen

    def __getstate__(self) -> dict[str, Any]:
        """Copies are in no batch."""
        return {**super().__getstate__(), "_seen": None}
