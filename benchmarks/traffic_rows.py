"""What is counted: callbacks, losses and strategies, with the bytes that a process gives by formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lightning.pytorch import Callback
from torch import nn

from lightning_noisy import Storage
from lightning_noisy.callbacks import (
    CDR,
    SELC,
    ConfidenceTracker,
    GradientBiasTracker,
    GradientErrorTracker,
    GradientSwitching,
    JointOptimizationLabels,
    MaskRefresh,
    MixUp,
    StepSeed,
    TrainingDynamics,
)
from lightning_noisy.data.views import View
from lightning_noisy.heads import DropConnectHead, KANHead, LinearHead
from lightning_noisy.losses import (
    DeepAbstainingClassifier,
    DeterminantMutualInformation,
    EarlyLearningRegularization,
    JointOptimization,
    NoiseAttentionLoss,
    PeerLoss,
    PencilLoss,
    SelfAdaptiveTraining,
    TruncatedGeneralizedCrossEntropy,
)
from lightning_noisy.modules import (
    DISC,
    SED,
    SPRL,
    SURE,
    UNICON,
    CoLDL,
    CoTeaching,
    CoTeachingPlus,
    Decoupling,
    DivideMix,
    ELRPlus,
    GSSDual,
    JoCoR,
    JoSRC,
    NoisyLabelModule,
    StrategyModule,
)


@dataclass(frozen=True)
class Setting:
    """Sizes; each of them another number, so that a formula cannot be right by chance."""

    samples: int = 48
    """N."""
    batch: int = 8
    """B, of one process."""
    classes: int = 5
    """K."""
    features: int = 12
    """D, of the classifier."""

    @property
    def image(self) -> int:
        """Numbers of an image."""
        return 3 * 32 * 32


Formula = tuple[str, Callable[[Setting], int]]
NOTHING: Formula = ("0", lambda of: 0)


@dataclass(frozen=True)
class Row:
    """One way to train, and what it exchanges."""

    step: Formula = NOTHING
    """Bytes of a step."""
    rows: Formula = NOTHING
    """Bytes of an epoch for each sample that a process has visited; the few of sums and counts come on top."""
    callbacks: Callable[[], list[Callback]] = list
    loss: Callable[[], nn.Module] = nn.CrossEntropyLoss
    module: type[StrategyModule] = NoisyLabelModule
    arguments: Mapping[str, Any] = field(default_factory=dict)
    views: tuple[View, ...] = ()
    head: Callable[[int, int], nn.Module] = LinearHead
    sharded: bool = False


def masked(score: str, granularity: str = "edge") -> Callable[[], list[Callback]]:
    """Connection masking by a score."""
    return lambda: [MaskRefresh(ratio=0.5, score=score, granularity=granularity)]


KAN_TERMS = 9
"""F of a KANHead: eight splines and the base function."""
PAIR: tuple[View, ...] = ("weak", "weak")
BOTH: tuple[View, ...] = ("weak", "strong")
WARM = {"warmup_epochs": 1}
SHARDED = Storage(sharded=True)

CALLBACKS: dict[str, Row] = {
    "cross entropy": Row(),
    "`StepSeed`, `CDR`, `MixUp`": Row(callbacks=lambda: [StepSeed(0), CDR(0.4), MixUp(1.0)]),
    "`MaskRefresh`, linear head": Row(callbacks=lambda: [MaskRefresh(ratio=0.5)]),
    "`MaskRefresh`, KAN head of F terms": Row(
        ("8 (F (F + 3) / 2 D + 1)", lambda of: 8 * (KAN_TERMS * (KAN_TERMS + 3) // 2 * of.features + 1)),
        callbacks=lambda: [MaskRefresh(ratio=0.5)],
        head=KANHead,
    ),
    '`MaskRefresh(granularity="edge")`': Row(
        ("8 (2 D + 1)", lambda of: 8 * (2 * of.features + 1)), callbacks=masked("std")
    ),
    '`MaskRefresh(score="obd")`': Row(
        ("4 (K D + 1)", lambda of: 4 * (of.classes * of.features + 1)), callbacks=masked("obd")
    ),
    '`MaskRefresh(score="gradient")`': Row(
        ("4 K D", lambda of: 4 * of.classes * of.features), callbacks=masked("gradient")
    ),
    "`DropConnectHead`": Row(("8", lambda of: 8), head=DropConnectHead),
    "`SELC`": Row(rows=("4 K + 8", lambda of: 4 * of.classes + 8), callbacks=lambda: [SELC()]),
    "`SELC`, in shards": Row(callbacks=lambda: [SELC(storage=SHARDED)], sharded=True),
    "`SELC`, float16, k largest": Row(
        rows=("4 k + 10", lambda of: 4 * 2 + 10), callbacks=lambda: [SELC(storage=Storage("float16", top_k=2))]
    ),
    "`GradientSwitching`": Row(
        rows=("4 K + 24", lambda of: 4 * of.classes + 24), callbacks=lambda: [GradientSwitching()]
    ),
    "`JointOptimizationLabels(window=2)`": Row(
        rows=("12 (K + 1) + 8", lambda of: 12 * (of.classes + 1) + 8),
        callbacks=lambda: [JointOptimizationLabels(1, window=2)],
    ),
    "`ConfidenceTracker`": Row(rows=("16", lambda of: 16), callbacks=lambda: [ConfidenceTracker()]),
    "`TrainingDynamics`": Row(
        rows=("4 K + 12", lambda of: 4 * of.classes + 12), callbacks=lambda: [TrainingDynamics()]
    ),
    "`GradientBiasTracker`": Row(
        rows=("4 K + 16", lambda of: 4 * of.classes + 16), callbacks=lambda: [GradientBiasTracker()]
    ),
    "`GradientErrorTracker(every_n_steps=1)`, P weights": Row(
        ("16 P", lambda of: 16 * 9 * 8 * of.features),
        callbacks=lambda: [GradientErrorTracker(every_n_steps=1)],
    ),
}
LOSSES: dict[str, Row] = {
    "`EarlyLearningRegularization`": Row(
        rows=("4 K + 8", lambda of: 4 * of.classes + 8), loss=EarlyLearningRegularization
    ),
    "`EarlyLearningRegularization`, in shards": Row(
        loss=lambda: EarlyLearningRegularization(storage=SHARDED), sharded=True
    ),
    "`SelfAdaptiveTraining`": Row(
        ("4", lambda of: 4),
        ("4 K + 8", lambda of: 4 * of.classes + 8),
        loss=lambda: SelfAdaptiveTraining(warmup_epochs=0),
    ),
    "`PencilLoss`": Row(
        rows=("4 K + 8", lambda of: 4 * of.classes + 8),
        loss=lambda: PencilLoss(label_lr=1.0, warmup_epochs=0, fixed_from_epoch=9),
    ),
    "`TruncatedGeneralizedCrossEntropy`": Row(
        rows=("12", lambda of: 12), loss=lambda: TruncatedGeneralizedCrossEntropy(warmup_epochs=0, every_n_epochs=1)
    ),
    "`NoiseAttentionLoss`": Row(loss=NoiseAttentionLoss),
    "`JointOptimization`": Row(("4 K", lambda of: 4 * of.classes), loss=JointOptimization),
    "`DeterminantMutualInformation`": Row(("4 K K", lambda of: 4 * of.classes**2), loss=DeterminantMutualInformation),
    "`DeepAbstainingClassifier`": Row(("8", lambda of: 8), loss=lambda: DeepAbstainingClassifier(1)),
    "`PeerLoss`": Row(("16 B", lambda of: 16 * of.batch), loss=PeerLoss),
}
STRATEGIES: dict[str, Row] = {
    "`Decoupling`": Row(("8", lambda of: 8), module=Decoupling),
    "`CoTeaching`": Row(("8 B + 24", lambda of: 8 * of.batch + 24), module=CoTeaching),
    "`CoTeachingPlus`": Row(("11 B + 48", lambda of: 11 * of.batch + 48), module=CoTeachingPlus, arguments=WARM),
    "`JoCoR`": Row(("4 B + 12", lambda of: 4 * of.batch + 12), module=JoCoR),
    "`JoSRC`": Row(("8", lambda of: 8), module=JoSRC, arguments=WARM, views=PAIR),
    "`CoLDL`": Row(
        ("8 B + 48", lambda of: 8 * of.batch + 48),
        ("8 K + 16", lambda of: 8 * of.classes + 16),
        module=CoLDL,
        arguments=WARM,
        views=PAIR,
    ),
    "`DISC`, images of P numbers": Row(
        ("B (8 P + 8 K + 18) + 80", lambda of: of.batch * (8 * of.image + 8 * of.classes + 18) + 80),
        ("8 K + 16", lambda of: 8 * of.classes + 16),
        module=DISC,
        arguments=WARM,
        views=BOTH,
    ),
    "`SED`": Row(("4", lambda of: 4), ("40", lambda of: 40), module=SED, arguments=WARM, views=BOTH),
    "`SPRL`": Row(
        ("8", lambda of: 8),
        ("4 K + 20", lambda of: 4 * of.classes + 20),
        module=SPRL,
        arguments={"warmup_epochs": 0},
    ),
    "`SURE`": Row(rows=("12", lambda of: 12), module=SURE),
    "`DivideMix`, `GSSDivideMix`": Row(rows=("36", lambda of: 36), module=DivideMix, arguments=WARM, views=PAIR),
    "`UNICON`": Row(rows=("22", lambda of: 22), module=UNICON, arguments=WARM, views=(*PAIR, "strong", "strong")),
    "`ELRPlus`": Row(rows=("8 K + 16", lambda of: 8 * of.classes + 16), module=ELRPlus),
    "`GSSDual`": Row(rows=("8 K + 48", lambda of: 8 * of.classes + 48), module=GSSDual),
}
ROWS: dict[str, Row] = {**CALLBACKS, **LOSSES, **STRATEGIES}
