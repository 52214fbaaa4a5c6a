"""Gradient switching (GSS-SB): the label of each step is drawn from a pool of directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lightning.pytorch import LightningModule, Trainer
from typing_extensions import override

from lightning_noisy.callbacks.criterion_callback import CriterionCallback
from lightning_noisy.targets import DirectionPools, TargetPipeline


class GradientSwitching(DirectionPools, CriterionCallback):
    r"""Trains each sample on a label drawn from its own, slowly changing pool.

    Sample i has a pool :math:`D_i` (K,). Each time it is seen, the criterion gets
    :math:`\hat y_i \sim D_i / \sum_k D_{ik}`, and then, with the prediction p of that same pass (train mode, detached),

    .. math:: D_i \leftarrow D_i + \operatorname{onehot}(\tilde y_i)\, v_{or}
              + \operatorname{onehot}(\arg\max p_i)\, v_{pr} + \tfrac{1}{K} v_{rd},

    .. math:: v_{or} = c_i (1 - e/E), \quad v_{pr} = c_i \lambda_1 e/E, \quad v_{rd} = \lambda_2 e/E

    with the given label :math:`\tilde y_i`, its confidence :math:`c_i = p_{i \tilde y_i}`, and epochs e from 0 of E.

    The label that a sample has come to is its pool's largest entry, :math:`\arg\max_k D_{ik}`, not the last draw:
    :class:`LabelWriter` writes it, and trackers of corrected labels show it.

    There is no official code; four readings of the paper are arguments.

    Args:
        lam_prediction: :math:`\lambda_1`, weight of the predicted direction. Published: 2.0.
        lam_random: :math:`\lambda_2`, weight of the random directions. Published: 1.0.
        initial_pool: ``"one_hot"``: the pool starts as the one-hot given label, so that the first draw is that label;
            ``"zeros"``: it starts at zero and is updated before the first draw. The paper does not say.
        confidence: ``"given"``: c is the confidence of the given label, as printed; ``"max"``: the largest
            probability, with which a confidently re-predicted sample gains the predicted direction.
        redraw: ``"step"``: draw and update at each visit; ``"epoch"``: at the first visit of an epoch, whose label then
            stands. The paper says both. They are the same for a loader that shows each sample once an epoch. Within a
            batch a sample has one label, and grows its pool once.
        total_epochs: E; None takes the Trainer's ``max_epochs`` at the first start, and keeps it at resume.
        seed: Seed of the draws; None takes the run's (``seed_everything``), else 0.
        **options: ``criterion``, ``index_key``, ``check_labels``, ``storage``, as in :class:`CriterionCallback`.

    Raises:
        NoisyLabelError: An argument outside its range; at start, a second callback that replaces the target or a
            Trainer without ``max_epochs``; at fit, a checkpoint of another data set.

    References:
        Gradient Switching Strategy for learning with noisy labels, CVPR 2023, section 5.1, the single-branch form.

    Example::

        Trainer(max_epochs=150, callbacks=[GradientSwitching()])
    """

    run = CriterionCallback.run
    unfit_storage: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        lam_prediction: float = 2.0,
        lam_random: float = 1.0,
        initial_pool: str = "one_hot",
        confidence: str = "given",
        redraw: str = "step",
        total_epochs: int | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        CriterionCallback.__init__(self, **options)
        DirectionPools.__init__(self, lam_prediction, lam_random, initial_pool, confidence, redraw, total_epochs, seed)

    @override
    def join(self, pipeline: TargetPipeline) -> None:
        pipeline.add_changer(self)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.span = self.run.total_epochs(type(self).__name__, self.total_epochs, key=self.state_key)
