import pytest
import torch
from torch import nn

from lightning_noisy import NoisyLabelModule
from lightning_noisy.data import Animal10NDataModule, SymmetricNoise
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.heads import LinearHead
from lightning_noisy.networks import SmallCNN
from tests._dummies import numbers, write_animal10n, write_image
from tests.foreign import make_trainer

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LABELS = {"training": [9, 0, 3, 3, 7, 1, 9, 2], "testing": [4, 0, 5]}
FOLDERS = {"training": "train", "testing": "test"}


def write_animals(root, published=True):
    """Images 64 x 64, those of a set numbered 8 i + 4 in the order in which they are read."""
    write_animal10n(root, LABELS)
    if not published:
        for path in [path for folder in FOLDERS for path in (root / folder).iterdir()]:
            target = root / FOLDERS[path.parent.name] / path.name[0] / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
        for folder in FOLDERS:
            (root / folder).rmdir()


def ready(root, **options):
    data = Animal10NDataModule(str(root), **{"batch_size": 4, "num_workers": 0, "seed": 0, **options})
    data.setup("fit")
    return data


def read(loader):
    images, *others = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert images.shape[1:] == (3, 64, 64)
    return ((numbers(images, MEAN, STD) - 4) / 8).round().astype(int).tolist(), *(part.tolist() for part in others)


@pytest.mark.parametrize("published", [True, False])
def test_both_layouts_are_read_alike(tmp_path, published):
    write_animals(tmp_path, published)
    data = ready(tmp_path, crop="centre")

    assert (data.num_classes, data.class_names[0], data.class_names[9]) == (10, "cat", "guinea pig")
    assert data.validation_splits == ("test",)
    images, target, index = read(data.train_dataloader())
    assert images == index
    assert sorted(index) == list(range(8))
    assert target == [sorted(LABELS["training"])[i] for i in index]
    assert read(data.test_dataloader()) == ([0, 1, 2], sorted(LABELS["testing"]))
    assert data.clean_targets is None
    assert data.noisy_targets.tolist() == sorted(LABELS["training"])


@pytest.mark.parametrize(
    ("options", "padded"),
    [({}, 4), ({"crop": "centre"}, 0), ({"padding": 0}, 0), ({"padding": 2}, 2)],
)
def test_training_images_are_cropped_after_padding_by_4_unless_asked_otherwise(tmp_path, options, padded):
    write_animals(tmp_path)
    images = torch.cat([batch[0] for _ in range(6) for batch in ready(tmp_path, **options).train_dataloader()])
    black = -torch.tensor(MEAN) / torch.tensor(STD)
    rows = ((images - black.reshape(3, 1, 1)).abs() < 1e-4).all(dim=1).all(dim=2).sum(dim=1)
    assert rows.max() <= padded
    assert rows.max() >= padded // 2


def test_noise_is_refused(tmp_path):
    write_animals(tmp_path)
    with pytest.raises(NoisyLabelError, match="Animal10NDataModule comes with noisy labels, but got noise=Symm"):
        ready(tmp_path, noise=SymmetricNoise(0.1))


@pytest.mark.parametrize("missing", ["training", "testing"])
def test_another_layout_is_refused(tmp_path, missing):
    write_animals(tmp_path)
    (tmp_path / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(NoisyLabelError, match=r"`root` to be a folder with `training/<label>_<name>` and `testing/"):
        ready(tmp_path)


@pytest.mark.parametrize("name", ["cat_1.jpg", "10_1.jpg", "readme.txt", "1.jpg"])
def test_a_name_without_a_label_is_refused(tmp_path, name):
    write_animals(tmp_path)
    write_image(tmp_path / "training" / "x.png")
    (tmp_path / "training" / "x.png").rename(tmp_path / "training" / name)
    with pytest.raises(NoisyLabelError, match=f"`<label>_<name>` with a label from 0 to 9, but got '{name}'"):
        ready(tmp_path)


def test_a_folder_of_no_class_is_refused(tmp_path):
    write_animals(tmp_path, published=False)
    write_image(tmp_path / "train" / "cat" / "1.jpg")
    with pytest.raises(NoisyLabelError, match="holds the folder 'cat', which is none of the 10 classes"):
        ready(tmp_path)


def test_it_is_trained_on(tmp_path):
    write_animals(tmp_path)
    trainer = make_trainer(tmp_path, max_epochs=1)
    module = NoisyLabelModule(SmallCNN(3, 4, 8), LinearHead, nn.CrossEntropyLoss(), 10)
    trainer.fit(module, datamodule=Animal10NDataModule(str(tmp_path), batch_size=4, num_workers=0, seed=0))
    assert "test/acc" in trainer.callback_metrics
