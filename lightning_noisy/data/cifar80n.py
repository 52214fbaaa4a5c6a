"""CIFAR80N-O: CIFAR-100 with twenty classes that nobody asked for."""

from __future__ import annotations

from typing_extensions import override

from lightning_noisy.data.cifar import CIFAR100DataModule
from lightning_noisy.data.labeled_images import LabeledImages
from lightning_noisy.data.noise import FileNoise, OpenSetNoise
from lightning_noisy.errors import check_argument


class CIFAR80NODataModule(CIFAR100DataModule):
    """CIFAR80N-O: the 50,000 training images of CIFAR-100 with labels of its first 80 classes only.

    The 10,000 images of classes 80 to 99 are outsiders, whose labels are all wrong (open-set noise); ``clean_targets``
    of theirs are 80 to 99. The noise has to be an :class:`~lightning_noisy.data.OpenSetNoise`: with
    ``OpenSetNoise(SymmetricNoise(0.8))``, named "80 % symmetric" in the literature, 84 % of the labels are wrong; with
    ``OpenSetNoise(PairFlipNoise(0.4))``, named "40 % asymmetric", 52 %, and so with the other reading of that name, in
    the text of DCM, ``OpenSetNoise(AsymmetricNoise(0.4, "cifar80-superclass"))``. The test set is the 8,000 test images
    of the 80 classes.

    Arguments and errors are those of :class:`CIFAR100DataModule`.

    Raises:
        NoisyLabelError: At ``setup``, another ``noise`` than an ``OpenSetNoise`` or the labels of a ``FileNoise``, or a
            validation split with clean labels, which outsiders do not have.

    References:
        Yao et al., Jo-SRC: A Contrastive Approach for Combating Noisy Labels, CVPR 2021.
    """

    num_classes = 80
    num_clean_classes = 100

    @override
    def training_images(self) -> LabeledImages:
        wanted = "an `OpenSetNoise`, as the images of classes 80 to 99 need labels, or a `FileNoise`"
        check_argument(isinstance(self.noise, (OpenSetNoise, FileNoise)), "noise", wanted, self.noise)
        usable = self.noisy_val or self.val_fraction == 0
        check_argument(usable, "noisy_val", "true, as some images belong to no class", self.noisy_val)
        return super().training_images()

    @override
    def test_images(self) -> LabeledImages:
        test = super().test_images()
        assert test.labels is not None
        known = (test.labels < self.num_classes).nonzero().squeeze(1)
        assert test.samples is not None
        return LabeledImages.in_memory(test.samples[known], test.labels[known], sources=known.numpy())
