"""GSS-DB: gradient switching of two networks, each of which fills the pools of the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.data.batch import TrainingBatch
from lightning_noisy.errors import check_argument
from lightning_noisy.functional.losses import softmax
from lightning_noisy.modules.multi_network import MultiNetworkModule
from lightning_noisy.state import RunState
from lightning_noisy.targets import DirectionPools, TargetCall, pipeline_at


class GSSDual(MultiNetworkModule):
    r"""Two networks, each trained on labels that are drawn from pools which grow by what the other one predicts.

    Pools, draws and growth are those of :class:`~lightning_noisy.callbacks.GradientSwitching`; each network has pools
    of its own, and :math:`\arg\max p` is that of the other network. No sample is left out. Both networks learn in one
    step of one optimizer, which for SGD or Adam is the same as one optimizer for each.

    There is no official code. What the paper leaves open is an argument; the first five are those of the callback.

    Args:
        backbone: Makes a backbone; called once for each network.
        head: Makes a classifier from (D, K).
        loss: The loss; the paper has cross entropy.
        num_classes: K.
        lam_prediction: :math:`\lambda_1`. Published: 2.0.
        lam_random: :math:`\lambda_2`. Published: 1.0.
        initial_pool: ``"one_hot"`` or ``"zeros"``.
        confidence: ``"given"`` or ``"max"``.
        redraw: ``"step"`` or ``"epoch"``.
        confidence_from: Whose confidence it is, that of the ``"other"`` network or the network's ``"own"``.
        total_epochs: E; None takes the Trainer's ``max_epochs`` at the first start, and keeps it at resume.
        **options: ``optimizer``, ``lr_scheduler``, ``storage``, ``compile``.

    Raises:
        NoisyLabelError: An argument outside its range; a callback that replaces targets beside it.

    References:
        Gradient Switching Strategy for learning with noisy labels, CVPR 2023, section 5.1, the form with two branches.

    Example::

        module = GSSDual(ResNet18, LinearHead, torch.nn.CrossEntropyLoss(), num_classes=10)
    """

    unfit_storage: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        backbone: Callable[[], nn.Module],
        head: Callable[[int, int], nn.Module],
        loss: nn.Module,
        num_classes: int,
        lam_prediction: float = 2.0,
        lam_random: float = 1.0,
        initial_pool: str = "one_hot",
        confidence: str = "given",
        redraw: str = "step",
        confidence_from: Literal["other", "own"] = "other",
        total_epochs: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(backbone, head, loss, num_classes, **options)
        known = confidence_from in ("other", "own")
        check_argument(known, "confidence_from", "'other' or 'own'", confidence_from)
        self.confidence_from = confidence_from
        rule = lam_prediction, lam_random, initial_pool, confidence, redraw, total_epochs, None
        self.pools = [NetworkPools(self, number, *rule) for number in range(self.num_networks)]
        self.predictions: list[Tensor] = []
        """What each network says of the batch, (B, K)."""

    @override
    def on_fit_start(self) -> None:
        super().on_fit_start()
        for number, pools in enumerate(self.pools):
            pipeline_at(self.run, self, f"losses.{number}").add_changer(pools)

    @override
    def on_train_start(self) -> None:
        for pools in self.pools:
            pools.span = self.run.total_epochs(type(self).__name__, pools.total_epochs)
        super().on_train_start()

    @override
    def step(self, batch: TrainingBatch) -> Tensor:
        outputs = self.all_outputs(batch.images)
        self.predictions = [softmax(own.logits.detach()[:, : self.num_classes]) for own in outputs]
        first, second = (self.training_loss(loss, own, batch) for loss, own in zip(self.losses, outputs, strict=True))
        return first + second

    @override
    def __getstate__(self) -> dict[str, Any]:
        """Copies have seen no batch."""
        return {**super().__getstate__(), "predictions": []}


class NetworkPools(DirectionPools):
    """The pools of one network.

    Args:
        module: The module it is part of.
        number: Its number.
        *rule: The arguments of :class:`~lightning_noisy.targets.DirectionPools`.
    """

    def __init__(self, module: GSSDual, number: int, *rule: Any) -> None:
        super().__init__(*rule)
        self._module = [module]  # no submodule
        self._number = number
        self.section = module.section
        self.place = f" {number}"

    @property
    @override
    def run(self) -> RunState:
        return self._module[0].run

    @override
    def predicted(self, call: TargetCall) -> tuple[Tensor, Tensor]:
        module = self._module[0]
        own, other = module.predictions[self._number], module.predictions[1 - self._number]
        return other.argmax(dim=1), other if module.confidence_from == "other" else own
