"""Asymmetric noise: classes that are taken for one another."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from lightning_noisy.data.noise.base import NOISE_STREAM, Images
from lightning_noisy.data.noise.matrix import TransitionMatrixNoise, draw_labels
from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.functional.noise import (
    as_targets,
    asymmetric_matrix,
    check_mapping,
    check_num_classes,
    check_rate,
)

CIFAR100_SUPERCLASSES = (
    (4, 30, 55, 72, 95),  # aquatic mammals: beaver, dolphin, otter, seal, whale
    (1, 32, 67, 73, 91),  # fish: aquarium fish, flatfish, ray, shark, trout
    (54, 62, 70, 82, 92),  # flowers: orchid, poppy, rose, sunflower, tulip
    (9, 10, 16, 28, 61),  # food containers: bottle, bowl, can, cup, plate
    (0, 51, 53, 57, 83),  # fruit and vegetables: apple, mushroom, orange, pear, sweet pepper
    (22, 39, 40, 86, 87),  # household electrical devices: clock, keyboard, lamp, telephone, television
    (5, 20, 25, 84, 94),  # household furniture: bed, chair, couch, table, wardrobe
    (6, 7, 14, 18, 24),  # insects: bee, beetle, butterfly, caterpillar, cockroach
    (3, 42, 43, 88, 97),  # large carnivores: bear, leopard, lion, tiger, wolf
    (12, 17, 37, 68, 76),  # large man-made outdoor things: bridge, castle, house, road, skyscraper
    (23, 33, 49, 60, 71),  # large natural outdoor scenes: cloud, forest, mountain, plain, sea
    (15, 19, 21, 31, 38),  # large omnivores and herbivores: camel, cattle, chimpanzee, elephant, kangaroo
    (34, 63, 64, 66, 75),  # medium-sized mammals: fox, porcupine, possum, raccoon, skunk
    (26, 45, 77, 79, 99),  # non-insect invertebrates: crab, lobster, snail, spider, worm
    (2, 11, 35, 46, 98),  # people: baby, boy, girl, man, woman
    (27, 29, 44, 78, 93),  # reptiles: crocodile, dinosaur, lizard, snake, turtle
    (36, 50, 65, 74, 80),  # small mammals: hamster, mouse, rabbit, shrew, squirrel
    (47, 52, 56, 59, 96),  # trees: maple, oak, palm, pine, willow
    (8, 13, 48, 58, 90),  # vehicles 1: bicycle, bus, motorcycle, pickup truck, train
    (41, 69, 81, 85, 89),  # vehicles 2: lawn mower, rocket, streetcar, tank, tractor
)
"""The fine classes of each super-class of CIFAR-100, by their labels in the order of their names."""


def _cycles(groups: tuple[tuple[int, ...], ...]) -> dict[int, int]:
    """Each class to the next one of its group, the last to the first."""
    return {group[i - 1]: group[i] for group in groups for i in range(len(group))}


class _Named(NamedTuple):
    num_classes: int
    mapping: dict[int, int]


_NAMED_MAPPINGS = {
    "mnist": _Named(10, {7: 1, 2: 7, 5: 6, 6: 5, 3: 8}),
    "cifar10": _Named(10, {9: 1, 2: 0, 3: 5, 5: 3, 4: 7}),
    "cifar100-superclass": _Named(100, _cycles(CIFAR100_SUPERCLASSES)),
    "cifar80-superclass": _Named(
        80, _cycles(tuple(tuple(c for c in group if c < 80) for group in CIFAR100_SUPERCLASSES))
    ),
    "cifar100-blocks": _Named(100, _cycles(tuple(tuple(range(start, start + 5)) for start in range(0, 100, 5)))),
}


class AsymmetricNoise(TransitionMatrixNoise):
    r"""Asymmetric noise: with probability ``rate`` a label of a mapped class becomes the class it is taken for.

    Labels of other classes stay. The fraction of wrong labels is ``rate`` times the share of the mapped classes:
    ``0.5 * rate`` on MNIST and CIFAR-10, whose mappings name five of ten balanced classes.

    ========================  ========================================================================================
    ``mapping``               class -> class it is taken for
    ========================  ========================================================================================
    ``"mnist"``               7 -> 1, 2 -> 7, 5 <-> 6, 3 -> 8
    ``"cifar10"``             truck -> automobile, bird -> airplane, cat <-> dog, deer -> horse
    ``"cifar100-superclass"`` the next fine class of the same super-class, cyclic (DAL, GJS, the text of DCM)
    ``"cifar80-superclass"``  the same among the classes 0 to 79 (CIFAR80N-O, by the text of DCM)
    ``"cifar100-blocks"``     the next of five consecutive labels, 0-4, 5-9, ..., cyclic, which is not the real
                              super-class (APL, ANL, AGCE / AUL / AEL, sparse regularization, SELC, NAL, ELR)
    ========================  ========================================================================================

    A third meaning of "asymmetric" on CIFAR-100 and CIFAR80N-O is the next of all classes (the code of SED and Jo-SRC:
    :class:`PairFlipNoise`). Numbers are not comparable across the three.

    All classes flip simultaneously, as in the published code of ANL, ELR and GJS. With ``sequential`` one flips after
    the other, in the order of the mapping, so that cats which have just become dogs may be drawn again for dog -> cat:
    the transition matrix is the product of those of the single flips. Together with ``exact`` this is the noise of the
    code of APL, AGCE / AUL / AEL and sparse regularization on MNIST and CIFAR-10, where at ``rate=0.4`` about 18.4 % of
    CIFAR-10's labels are wrong instead of 20 %.

    Args:
        rate: Probability in [0, 1] that a label of a mapped class flips.
        mapping: Clean class -> the class it is taken for, none to itself; or a name of the table.
        sequential: Whether classes flip one after another.
        exact: Whether the number of flips is fixed, see :class:`TransitionMatrixNoise`; with ``sequential``, that of
            each single flip: ``rate`` times the labels that its class has by then, rounded.

    Raises:
        NoisyLabelError: ``rate`` outside [0, 1], or a ``mapping`` that is neither; at :meth:`corrupt`, a mapping with
            classes outside [0, K) or a named mapping for another K.

    References:
        Patrini et al., Making Deep Neural Networks Robust to Label Noise: A Loss Correction Approach, CVPR 2017.
    """

    def __init__(
        self, rate: float, mapping: dict[int, int] | str, sequential: bool = False, exact: bool = False
    ) -> None:
        check_rate(rate)
        names = ", ".join(repr(name) for name in _NAMED_MAPPINGS)
        usable = mapping in _NAMED_MAPPINGS if isinstance(mapping, str) else isinstance(mapping, dict)
        check_argument(usable, "mapping", f"a dict from class to class or one of {names}", mapping)
        if isinstance(mapping, dict):
            check_mapping(mapping)
        self.rate: float = float(rate)
        self.mapping = mapping
        self.sequential = sequential
        self.exact = exact

    def transition_matrix(self, num_classes: int) -> Tensor:
        """See :func:`lightning_noisy.functional.noise.asymmetric_matrix`."""
        return asymmetric_matrix(num_classes, self.rate, self._mapping(num_classes), self.sequential)

    def corrupt(self, targets: Tensor, num_classes: int, seed: int, images: Images | None = None) -> Tensor:
        """Noisy labels for clean ones, see :meth:`LabelNoise.corrupt`."""
        if not (self.sequential and self.exact):
            return super().corrupt(targets, num_classes, seed, images)
        check_num_classes(num_classes)
        targets = as_targets(targets, num_classes)
        noisy = targets
        for step, (source, wrong) in enumerate(self._mapping(num_classes).items()):
            matrix = asymmetric_matrix(num_classes, self.rate, {source: wrong}).to(targets.device)
            noisy = draw_labels(noisy, matrix, (seed, NOISE_STREAM, step), exact=True)
        return noisy

    def _mapping(self, num_classes: int) -> dict[int, int]:
        if isinstance(self.mapping, dict):
            return self.mapping
        wanted, mapping = _NAMED_MAPPINGS[self.mapping]
        if num_classes != wanted:
            raise NoisyLabelError(
                f"Expected {wanted} classes for `mapping={self.mapping!r}`, but got {num_classes}: "
                "give the mapping as a dict from class to class."
            )
        return mapping
