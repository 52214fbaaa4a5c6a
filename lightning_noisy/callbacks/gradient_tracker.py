"""What trackers of gradients share: the gradient for other labels, which leaves training as it is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from typing_extensions import override

from lightning_noisy.callbacks.label_tracker import LabelTracker
from lightning_noisy.checks import check_labels
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.functional.gradients import before_log_softmax
from lightning_noisy.targets import TargetCall
from lightning_noisy.targets.passes import is_aside, pass_aside


class GradientTracker(LabelTracker):
    """Base of the trackers that look at the gradient of the criterion.

    Args:
        **options: As in :class:`LabelTracker`.
    """

    _checked: Tensor | None = None

    @abstractmethod
    def look(self, call: TargetCall, logits: Tensor) -> None:
        """Look at a batch.

        Args:
            call: The call of the criterion.
            logits: Its logits (B, K), with their gradient.
        """

    @override
    def observe_target(self, call: TargetCall) -> None:
        """Look at the batch.

        Raises:
            NoisyLabelError: The logits have no gradient.
        """
        if call.source is None or not call.source.requires_grad:
            raise NoisyLabelError(
                f"{type(self).__name__} looks at the gradient of `{self.pipeline.name}`, but the logits that it gets "
                "have none: let its first call in a batch be the one that trains, outside of `torch.no_grad()`."
            )
        self.look(call, call.source)

    def clean_target(self, call: TargetCall) -> Tensor:
        """The clean labels of the batch, as the criterion would get them.

        Raises:
            NoisyLabelError: There are some of classes that the network does not know.
        """
        assert self._clean is not None
        if self._checked is not self._clean:
            check_labels(self._clean.cpu(), call.num_classes, "the clean labels")
            self._checked = self._clean
        return call.as_target(self._clean[call.index])


def logit_gradient(call: TargetCall, logits: Tensor, target: Tensor) -> Tensor:
    """B times the gradient of the criterion's mean loss at the logits, (B, K), for a target of one's own.

    Args:
        call: The call of the criterion.
        logits: Its logits (B, K), with their gradient.
        target: Labels (B,) or rows (B, K).
    """
    assert call.loss_of is not None
    with pass_aside():
        (gradient,) = torch.autograd.grad(call.loss_of(target), logits)
    return len(logits) * before_log_softmax(gradient, call.logits)


def hear_training_gradient(call: TargetCall, logits: Tensor, note: Callable[[Tensor], None]) -> None:
    """Call ``note`` with the gradient that trains, (B, K), when the backward pass brings it to the logits, once.

    What the step leaves out of its loss, masks or weighs counts as it does. Of log-probabilities (``F.nll_loss``) the
    gradient is that of the logits they were made of.

    Args:
        call: The call of the criterion.
        logits: Its logits (B, K), with their gradient.
        note: Gets the gradient, detached.
    """
    values, waiting = call.logits, [True]

    def arrive(gradient: Tensor) -> None:
        if waiting and not is_aside():
            waiting.clear()
            note(before_log_softmax(gradient.detach().to(values), values))

    logits.register_hook(arrive)  # type: ignore[no-untyped-call]
