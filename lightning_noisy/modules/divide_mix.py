"""DivideMix: losses divide samples into labeled and unlabeled ones, for semi-supervised learning of two networks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.data.batch import TrainingBatch
from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.figures import FigureWriter, mixture_figure
from lightning_noisy.functional.epoch_window import mean_before, note, window_shape
from lightning_noisy.functional.losses import cross_entropy
from lightning_noisy.functional.mixture import GaussianFit, gaussian_mixture, normalized
from lightning_noisy.functional.selection import agree
from lightning_noisy.modules.mix_match import MixMatchModule
from lightning_noisy.networks.classifier import Classifier


class DivideMix(MixMatchModule):
    r"""Two networks, each of which learns from the labels that the other one finds clean, and guesses the rest.

    At the start of each epoch after the warm-up, the cross entropy of its samples under each network, in evaluation
    mode and scaled to [0, 1], is fitted by two Gaussians; :math:`w_i` is the posterior of the one with the lower mean.
    Network 1 then learns from those with :math:`w^{(2)}_i > \tau`, and after it network 2 from those with
    :math:`w^{(1)}_i > \tau`, as :class:`~lightning_noisy.modules.mix_match.MixMatchModule` says. The sum of the logits
    is evaluated.

    Published are ``lambda_u`` of 0 (CIFAR-10: 20 % symmetric, 40 % asymmetric), 25 (CIFAR-10: 50 %, 80 %; CIFAR-100:
    20 %), 50 (CIFAR-10: 90 %) and 150 (CIFAR-100: 50 % to 90 %), ``threshold=0.6`` and ``loss_window=5`` at 90 %, and
    on WebVision and Clothing1M ``lambda_u=None, alpha=0.5, warmup_epochs=1`` with half the batch. On CIFAR-100 the
    warm-up has 30 epochs.

    Logged are ``selection/network_0/size``, ``precision`` and ``recall`` of the labeled set, and the histogram of the
    losses with the fitted components: ``figures/mixture-network_0.png`` at the end.

    With dynamics-aware loss, that is the ``loss`` of the warm-up, and ``agreement_epochs`` follow: cross entropy on the
    samples whose label the network predicts. Their number is not published ("several").

    Args:
        backbone: Makes a backbone; called once for each network.
        head: Makes a classifier from (D, K).
        loss: The loss of the warm-up; the paper has cross entropy.
        num_classes: K.
        threshold: :math:`\tau`, in [0, 1).
        loss_window: The fit is to the mean of the scaled losses of so many epochs.
        agreement_epochs: Epochs between warm-up and first division.
        figure_every_n_epochs: How often TensorBoard gets the figures; also at the end.
        **options: ``warmup_epochs``, ``confidence_penalty``, ``lambda_u``, ``alpha``, ``temperature``,
            ``rampup_epochs``, ``samples_per_epoch``, ``optimizer``, ``lr_scheduler``, ``storage``, ``compile``.

    Raises:
        NoisyLabelError: An argument outside its range; in training, no labeled sample.

    References:
        Li et al., DivideMix: Learning with Noisy Labels as Semi-supervised Learning, ICLR 2020. Its code passes no seed
        to the fit, and has a smaller last batch, which is filled up here. Li et al., Dynamics-Aware Loss for Learning
        with Label Noise, 2023.

    Example::

        module = DivideMix(PreActResNet18, LinearHead, torch.nn.CrossEntropyLoss(), num_classes=10)
        data = CIFAR10DataModule(noise=SymmetricNoise(0.5), views=["weak", "weak"], batch_size=128)
    """

    def __init__(
        self,
        backbone: Callable[[], nn.Module],
        head: Callable[[int, int], nn.Module],
        loss: nn.Module,
        num_classes: int,
        threshold: float = 0.5,
        loss_window: int = 1,
        agreement_epochs: int = 0,
        figure_every_n_epochs: int = 10,
        **options: Any,
    ) -> None:
        super().__init__(backbone, head, loss, num_classes, **options)
        check_argument(0 <= threshold < 1, "threshold", "a float in [0, 1)", threshold)
        check_count(loss_window, "loss_window")
        check_count(agreement_epochs, "agreement_epochs", least=0)
        self.threshold = threshold
        self.loss_window = loss_window
        self.agreement_epochs = agreement_epochs
        self.figures = [
            FigureWriter(partial(self._draw, number), f"mixture/{name}", f"mixture-{name}", figure_every_n_epochs)
            for number, name in enumerate(self.members)
        ]

    @property
    @override
    def first_division(self) -> int:
        return self.warmup_epochs + self.agreement_epochs

    @override
    def divide(self, epoch: int, part: Tensor) -> None:
        self.score(self.measure, part=part)
        losses = self.section.stores["losses"].get(part)
        scaled = torch.stack([normalized(own) for own in losses.unbind(dim=1)], dim=1)
        self.keep("fitted", part, self._over_epochs(scaled, epoch, part))
        posteriors = torch.stack([self._fit(number, part).clean for number in range(self.num_networks)], dim=1).float()
        by_other = posteriors.flip(1)
        self.keep_division(part, by_other, by_other > self.threshold)

    def measure(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """What is looked at before a division: the cross entropy of each sample under each network."""
        images = self.first_view(batch.images)
        losses = [cross_entropy(network(images)[:, : self.num_classes], batch.target) for network in self.networks]
        return {"losses": torch.stack(losses, dim=1)}

    @override
    def learn(self, number: int, batch: TrainingBatch) -> Tensor:
        if self.current_epoch >= self.first_division:
            return super().learn(number, batch)
        outputs = cast(Classifier, self.networks[number]).outputs(self.first_view(batch.images))
        self.sample_losses(self.losses[number], outputs, batch)
        logits = outputs.logits[:, : self.num_classes]
        chosen = agree(logits, batch.target)
        self.note_selection(chosen, batch, self.members[number])
        return self.selected_mean(cross_entropy(logits, batch.target), chosen)

    @override
    def on_train_epoch_end(self) -> None:
        for figure in self.figures:
            figure.end_epoch(self.trainer)

    @override
    def on_train_end(self) -> None:
        super().on_train_end()
        for figure in self.figures:
            figure.end_training(self.trainer)

    def _over_epochs(self, scaled: Tensor, epoch: int, part: Tensor) -> Tensor:
        """The mean of what was seen of these samples in this epoch and those before."""
        if self.loss_window == 1:
            return scaled
        shape = window_shape(self.loss_window, self.num_networks)
        past = self.section.store("past_losses", shape, device=self.device).get(part)
        noted = note(past, scaled.float(), epoch)
        self.keep("past_losses", part, noted, clear=False)
        return mean_before(noted, epoch + 1)[0]

    def _fit(self, number: int, part: Tensor) -> GaussianFit:
        return gaussian_mixture(self.section.stores["fitted"].get(part)[:, number], self.run.seed)

    def _draw(self, number: int) -> Figure | None:
        if "fitted" not in self.section.stores:
            return None
        part = self.section.stores["part"].values.cpu().nonzero().squeeze(1)
        values, fit = self.section.stores["fitted"].get(part)[:, number].numpy(), self._fit(number, part)
        wrong = None if self._well_labeled is None else ~self._well_labeled.cpu()[part].numpy()
        title = f"Scaled losses of {self.members[number]}"
        return mixture_figure(values, lambda points: fit.densities(torch.from_numpy(points)).numpy(), wrong, title)
