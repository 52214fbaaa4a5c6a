"""SPRL: a curriculum that grows, and resistance to forgetting what was predicted before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.data.batch import TrainingBatch
from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.functional.losses import cross_entropy, softmax
from lightning_noisy.functional.schedules import sigmoid_rampup
from lightning_noisy.functional.selection import small_loss_by_class
from lightning_noisy.modules.noisy_label_module import NoisyLabelModule

_TENTHS, _MOST_TENTHS, _SURE = 10, 5, 0.5


class SPRL(NoisyLabelModule):
    r"""Self-paced learning: confident samples first, ever more of them, while earlier predictions resist.

    In epochs :math:`0, \dots, T_1` the network learns from all. Before each later epoch e a pass over the training set
    gives p, and the curriculum C holds of each class the samples with the largest :math:`p_{i y_i}`, in tenths of the
    class

    .. math:: s(e) = \min\!\Big(10,\ s_0 + \Big\lfloor (10 - s_0) \frac{e - 1 - T_1}{E - F - T_1} \Big\rfloor\Big),
              \qquad s_0 = \min\!\Big(5,\ 1 + \lfloor 10\, \overline{[p_{i y_i} \ge 0.5]} \rfloor\Big)

    with :math:`s_0` from the pass before epoch :math:`T_1 + 1`. Then, with the prediction :math:`p'_i` of the sample's
    last visit,

    .. math:: \mathcal{L} = \frac{1}{|C|} \sum_{i \in C} \ell(z_i, y_i) + \gamma\, u(e)\,
              \frac{1}{B} \sum_i \operatorname{CE}(z_i, p'_i), \qquad \gamma = (10 - s_0)\, \gamma_d, \qquad
              u(e) = e^{-5 (1 - (e - T_1) / R)^2}

    The code takes :math:`s_0` from its last class alone, as the largest of all epochs before :math:`T_1`, which needs a
    pass in each; it rounds the epochs from one tenth to the next down, and the size of a tenth. Here no class is
    preferred and nothing is rounded before the end; each class has at least one sample.

    Logged are ``selection/size``, ``precision`` and ``recall`` of the curriculum, and ``train/resistance``,
    :math:`\gamma u(e)`.

    Args:
        backbone: Maps images to features, see :class:`~lightning_noisy.modules.NoisyLabelModule`.
        head: Makes the classifier from (D, K).
        loss: :math:`\ell`; the paper has cross entropy.
        num_classes: K.
        warmup_epochs: :math:`T_1`. Published: 20 with ResNet-18, 40 with its ConvNet.
        resistance: :math:`\gamma_d \ge 0`. Published: 10 and 5 under symmetric noise, 50 under pair flips.
        ramp_epochs: R; None takes :math:`E - T_1`, as in the published runs of ResNet-18; those of the ConvNet have
            200 = E.
        full_epochs: F, the last epochs with all samples. Published: 30.
        total_epochs: E; None takes the Trainer's ``max_epochs`` at the first start. Published: 200.
        **options: ``optimizer``, ``lr_scheduler``, ``storage``, ``compile``.

    Raises:
        NoisyLabelError: An argument outside its range; labels that nobody tells before training.

    References:
        Shi et al., Self-paced Resistance Learning against Overfitting on Noisy Labels, Pattern Recognition 2023.
        Published with Adam, 1e-3, and :class:`~lightning_noisy.optim.LinearDecay` with a final beta1 of 0.1.

    Example::

        module = SPRL(ResNet18(), LinearHead, torch.nn.CrossEntropyLoss(), num_classes=100)
    """

    unfit_storage: ClassVar[Mapping[str, str]] = {"sharded": "its curriculum ranks those of all samples"}
    exact_rows = ("given",)

    def __init__(
        self,
        backbone: nn.Module,
        head: Callable[[int, int], nn.Module],
        loss: nn.Module,
        num_classes: int,
        warmup_epochs: int = 20,
        resistance: float = 10.0,
        ramp_epochs: int | None = None,
        full_epochs: int = 30,
        total_epochs: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(backbone, head, loss, num_classes, **options)
        check_count(warmup_epochs, "warmup_epochs", least=0)
        check_argument(resistance >= 0, "resistance", "a float >= 0", resistance)
        check_count(ramp_epochs, "ramp_epochs", optional=True)
        check_count(full_epochs, "full_epochs", least=0)
        check_count(total_epochs, "total_epochs", optional=True)
        self.warmup_epochs = warmup_epochs
        self.resistance = resistance
        self.ramp_epochs = ramp_epochs
        self.full_epochs = full_epochs
        self.total_epochs = total_epochs
        self.first_tenths: Tensor
        self.register_buffer("first_tenths", torch.tensor(1))

    def begins_at(self) -> dict[str, int]:
        """The argument that delays something, and the epoch, from 0, in which it first happens."""
        return {"warmup_epochs": self.warmup_epochs + 1}

    @override
    def prepare_epoch(self, epoch: int) -> None:
        """Look at all samples and choose the curriculum."""
        if epoch <= self.warmup_epochs:
            return

        def measure(batch: TrainingBatch) -> dict[str, Tensor]:
            return {"given": softmax(self(batch.images)).gather(1, batch.target.unsqueeze(1)).squeeze(1)}

        self.score(measure)
        given = self.section.stores["given"].rows()
        if epoch == self.warmup_epochs + 1:
            sure = int((given >= _SURE).sum()) * _TENTHS // len(given)
            self.first_tenths.fill_(min(_MOST_TENTHS, 1 + sure))
        labels = self.given_labels.to(given.device)
        counts = labels.bincount(minlength=self.num_classes)
        quota = (counts * self.tenths(epoch) // _TENTHS).clamp(min=1)
        chosen = small_loss_by_class(-given, labels, quota, self.num_classes)
        self.section.store("chosen", dtype=torch.bool, device=given.device).values.copy_(chosen)

    def tenths(self, epoch: int) -> int:
        """s(e), the share of each class in the curriculum of an epoch after the warm-up, in tenths."""
        first = int(self.first_tenths)
        span = self._epochs() - self.full_epochs - self.warmup_epochs
        return min(_TENTHS, first + (_TENTHS - first) * (epoch - 1 - self.warmup_epochs) // max(1, span))

    @override
    def step(self, batch: TrainingBatch) -> Tensor:
        outputs = self.network.outputs(batch.images)
        logits = outputs.logits[:, : self.num_classes]
        store = self.section.store("prediction", (self.num_classes,), device=logits.device)
        before = store.get(batch.index)
        store.update(batch.index, softmax(logits.detach()))
        if self.current_epoch <= self.warmup_epochs:
            return self.training_loss(self.loss, outputs, batch)
        chosen = self.section.stores["chosen"].get(batch.index)
        self.note_selection(chosen, batch)
        length = self.ramp_epochs or self._epochs() - self.warmup_epochs
        ramp = sigmoid_rampup(self.current_epoch - self.warmup_epochs, length)
        resistance = (_TENTHS - self.first_tenths) * self.resistance * ramp
        self.note(resistance=resistance)
        fit = self.selected_mean(self.sample_losses(self.loss, outputs, batch), chosen)
        return fit + resistance * self.selected_mean(cross_entropy(logits, before), before.any(dim=1))

    def _epochs(self) -> int:
        return self.run.total_epochs(type(self).__name__, self.total_epochs)
