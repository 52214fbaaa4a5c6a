"""What strategies on several networks share."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar, cast

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.data.batch import TrainingBatch
from lightning_noisy.functional.selection import disagree
from lightning_noisy.losses import NoisyLabelLoss
from lightning_noisy.losses.sample_losses import SampleLosses
from lightning_noisy.modules.strategy import NOT_SAVED, StrategyModule
from lightning_noisy.networks.classifier import Classifier, Outputs, check_factory


class MultiNetworkModule(StrategyModule):
    """Base of the strategies on several networks: a subclass writes ``step``.

    The networks are ``networks.0``, ``networks.1``, ..., each with a criterion of its own, ``losses.0``, ``losses.1``,
    ..., a copy of ``loss``: callbacks name the one that they act at (``SELC(criterion="losses.0")``), and each loss
    with memory keeps its own rows. ``MaskRefresh()`` masks the heads of all.

    Evaluated is the mean of the networks' probabilities, unless a subclass overrides :meth:`ensemble`; and each network
    alone, as ``network_0``, ``network_1``, ...

    Args:
        backbone: Makes a backbone, e.g. the class ``SmallCNN`` or ``lambda: CNN9(dropout=0.25)``; called once for each
            network, so that each draws its own start.
        head: Makes a classifier from (D, K), e.g. ``LinearHead``.
        loss: A loss of this package, or any torch criterion.
        num_classes: K, at least 2.
        optimizer: Makes the optimizer from the parameters of all networks; Adam by default.
        lr_scheduler: Makes the scheduler from the optimizer; stepped once an epoch.
        **options: ``storage``, ``compile``.

    Raises:
        NoisyLabelError: As :class:`~lightning_noisy.modules.StrategyModule`.
    """

    num_networks: ClassVar[int] = 2
    """How many networks there are."""

    def __init__(
        self,
        backbone: Callable[[], nn.Module],
        head: Callable[[int, int], nn.Module],
        loss: nn.Module,
        num_classes: int,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, optimizer, lr_scheduler, **options)
        self.save_hyperparameters(ignore=[*NOT_SAVED])
        outputs, count = num_classes + getattr(loss, "extra_outputs", 0), range(self.num_networks)
        check_factory(backbone, "backbone", "the backbone of each network")
        networks = [Classifier(backbone(), head, outputs) for _ in count]
        losses = [copy.deepcopy(loss) for _ in count]
        for network, own in zip(networks, losses, strict=True):
            if isinstance(own, NoisyLabelLoss):
                own.bind(network.num_features, num_classes)
        self.networks, self.losses = nn.ModuleList(networks), nn.ModuleList(losses)

    def all_outputs(self, images: Any) -> list[Outputs]:
        """What each network says of a batch of images, or of a list of views of it."""
        return [cast(Classifier, network).outputs(images) for network in self.networks]

    def disagreement(self, outputs: list[Outputs]) -> Tensor:
        """Where the first two networks predict different ones of the K classes, bool (B,)."""
        first, second = (own.logits[:, : self.num_classes] for own in outputs[:2])
        return disagree(first, second)

    def all_losses(self, outputs: list[Outputs], batch: TrainingBatch) -> list[SampleLosses]:
        """The losses of the samples under each network, by its own criterion."""
        return [self.sample_losses(loss, own, batch) for loss, own in zip(self.losses, outputs, strict=True)]

    @property
    @override
    def members(self) -> tuple[str, ...]:
        return tuple(f"network_{number}" for number in range(self.num_networks))

    def ensemble(self, logits: Tensor) -> Tensor:
        """What the networks say together: logits (networks, B, K) to the logarithm of their mean probability."""
        return logits.log_softmax(dim=2).logsumexp(dim=0)

    @override
    def evaluations(self, images: Any) -> dict[str, Tensor]:
        logits = torch.stack([network(images)[:, : self.num_classes].float() for network in self.networks])
        return {"": self.ensemble(logits), **dict(zip(self.members, logits, strict=True))}

    @override
    def forward(self, images: Any) -> Tensor:
        """Images (B, C, H, W) to what is evaluated, (B, K)."""
        return self.evaluations(images)[""]
