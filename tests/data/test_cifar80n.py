import json

import numpy as np
import pytest
import torch
from torch import nn

from lightning_noisy import NoisyLabelModule
from lightning_noisy.data import CIFAR80NODataModule, FileNoise, OpenSetNoise, SymmetricNoise, cifar
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.heads import LinearHead
from lightning_noisy.networks import SmallCNN
from tests.foreign import make_trainer
from tests.small import MemoryLogger

TRAINING, TEST = 1000, 200
NOISE = OpenSetNoise(SymmetricNoise(0.5))


class Torchvision:
    """Stands in for CIFAR-100: image n is uniformly of the brightness n % 250."""

    def __init__(self, root, train=True, download=False):
        count = TRAINING if train else TEST
        self.data = np.broadcast_to((np.arange(count) % 250).astype(np.uint8)[:, None, None, None], (count, 32, 32, 3))
        self.data = self.data.copy()
        self.targets = (np.arange(count) * 7 % 100).tolist()


@pytest.fixture(autouse=True)
def _published(monkeypatch):
    monkeypatch.setattr(cifar, "CIFAR100", Torchvision)


def ready(**options):
    data = CIFAR80NODataModule("folder", **{"noise": NOISE, "num_workers": 0, "seed": 0, **options})
    data.setup("fit")
    return data


def test_all_training_images_stay_and_outsiders_are_mislabeled():
    data = ready()
    clean = torch.arange(TRAINING) * 7 % 100

    assert data.num_classes == 80
    assert torch.equal(data.clean_targets, clean)
    assert torch.equal(data.noisy_targets, NOISE.corrupt(clean, 80, 0))
    assert int(data.noisy_targets.max()) < 80
    assert data.realized_noise_rate == pytest.approx(0.6, abs=0.05)


def test_the_test_set_is_that_of_the_first_80_classes():
    images, target = [torch.cat(parts) for parts in zip(*ready().test_dataloader(), strict=True)]
    known = [n for n in range(TEST) if n * 7 % 100 < 80]

    assert target.tolist() == [n * 7 % 100 for n in known]
    brightness = ((images[:, 0, 0, 0] * 0.2673 + 0.5071) * 255).round().long()
    assert brightness.tolist() == [n % 250 for n in known]


def test_it_is_trained_on_and_the_manifest_counts_outsiders(tmp_path):
    class Folder(MemoryLogger):
        save_dir = str(tmp_path)

    data = ready(val_fraction=0.2, batch_size=200)
    trainer = make_trainer(tmp_path, max_epochs=1, logger=Folder())
    trainer.fit(NoisyLabelModule(SmallCNN(3, 4, 8), LinearHead, nn.CrossEntropyLoss(), 80), datamodule=data)

    manifest = json.loads((tmp_path / "noise.json").read_text())
    counts = np.array(manifest["transition_counts"])
    assert counts.shape == (100, 80)
    assert counts.sum() == 800
    assert counts[80:].sum() == int((data.clean_targets >= 80).sum())
    assert manifest["realized_rate"] == pytest.approx(1 - np.trace(counts) / 800)
    assert (tmp_path / "figures" / "transition.png").stat().st_size > 0


@pytest.mark.parametrize("noise", [None, SymmetricNoise(0.2)])
def test_noise_that_leaves_outsiders_without_a_label_is_refused(noise):
    with pytest.raises(
        NoisyLabelError, match=r"^Expected argument `noise` to be an `OpenSetNoise`, .* but got "
    ) as error:
        ready(noise=noise)
    assert str(error.value).endswith(f"but got {noise!r}.")


def test_clean_validation_labels_are_refused():
    with pytest.raises(
        NoisyLabelError, match=r"^Expected argument `noisy_val` to be true, as some images belong to no"
    ):
        ready(noisy_val=False, val_fraction=0.1)
    ready(noisy_val=False)


def test_labels_of_a_file_will_do(tmp_path):
    labels = NOISE.corrupt(torch.arange(TRAINING) * 7 % 100, 80, 1)
    np.save(tmp_path / "labels.npy", labels.numpy())

    assert torch.equal(ready(noise=FileNoise(tmp_path / "labels.npy")).noisy_targets, labels)
