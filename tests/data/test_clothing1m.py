import pytest
import torch
from torch import nn

from lightning_noisy import NoisyLabelModule
from lightning_noisy.data import Clothing1MDataModule, SymmetricNoise
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.heads import LinearHead
from lightning_noisy.networks import SmallCNN
from tests._dummies import numbers, write_clothing1m, write_image, write_lines
from tests._dummies.image_sets import CLOTHING1M_FIRST as FIRST
from tests._dummies.image_sets import clothing1m_keys
from tests.foreign import make_trainer

MEAN, STD = (0.6959, 0.6537, 0.6371), (0.3113, 0.3192, 0.3214)
NOISY = {"noisy_train": [5, 13, 0, 5, 13, 0, 5, 5]}
CLEAN = {"clean_train": [1, 2, 3], "clean_val": [4, 0], "clean_test": [13, 12, 1]}
LABELS = {**NOISY, **CLEAN}


def write_class_folders(root, train="noisy_train"):
    """Layout D: the same images in folders of their classes."""
    for part, values in LABELS.items():
        folder = train if part in NOISY else part
        for i, label in enumerate(values):
            write_image(root / folder / str(label) / f"{i}.jpg", FIRST[part] + 8 * i)


def write(root, layout):
    write_class_folders(root) if layout == "D" else write_clothing1m(root, LABELS, layout)


def ready(root, **options):
    options = {"image_size": 8, "resize": 0, "batch_size": 3, "num_workers": 0, "seed": 0, **options}
    data = Clothing1MDataModule(str(root), **{"batches_per_epoch": None, **options})
    data.setup("fit")
    return data


def read(loader, part):
    images, *others = (torch.cat(parts) for parts in zip(*loader, strict=True))
    found = ((numbers(images, MEAN, STD) - FIRST[part]) / 8).round().astype(int).tolist()
    return found, *(part.tolist() for part in others)


@pytest.mark.parametrize("layout", "ABCD")
@pytest.mark.parametrize("train_on", ["noisy", "clean"])
def test_layouts_are_read_alike(tmp_path, layout, train_on):
    write(tmp_path, layout)
    data = ready(tmp_path, train_on=train_on)
    part = f"{train_on}_train"

    assert (data.num_classes, data.class_names[0], data.class_names[13]) == (14, "T-Shirt", "Underwear")
    assert data.validation_splits == ("val", "test")
    images, target, index = read(data.train_dataloader(), part)
    assert sorted(images) == sorted(index) == list(range(len(LABELS[part])))
    assert target == [LABELS[part][i] for i in images]
    assert target == data.noisy_targets[index].tolist()
    if train_on == "clean":
        assert data.clean_targets.tolist() == data.noisy_targets.tolist()
    else:
        assert data.clean_targets is None
    for name, loader in zip(("clean_val", "clean_test"), data.val_dataloader(), strict=True):
        images, target = read(loader, name)
        assert sorted(images) == list(range(len(LABELS[name])))
        assert target == [LABELS[name][i] for i in images]


@pytest.mark.parametrize("layout", "ABC")
def test_the_order_is_that_of_the_list(tmp_path, layout):
    write(tmp_path, layout)
    images, _, index = read(ready(tmp_path).train_dataloader(), "noisy_train")
    assert images == index


def test_another_folder_of_classes(tmp_path):
    write_class_folders(tmp_path, "noisy_rand_subtrain")
    data = ready(tmp_path, train_folder="noisy_rand_subtrain")
    assert sorted(data.noisy_targets.tolist()) == sorted(NOISY["noisy_train"])
    with pytest.raises(NoisyLabelError, match=r"`root` to be .* class folders in `noisy_train`, `clean_val`, `clean_t"):
        ready(tmp_path)


def test_lists_that_are_missing_are_named(tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(NoisyLabelError, match="`root` to be a folder"):
            ready(root)
    write(tmp_path, "A")
    (tmp_path / "label" / "clean_label_kv.txt").unlink()
    with pytest.raises(NoisyLabelError, match=r"`root` to be a folder with `label/clean_label_kv\.txt`"):
        ready(tmp_path)
    (tmp_path / "label" / "clean_val_key_list.txt").unlink()
    with pytest.raises(NoisyLabelError, match=r"`root` to be a folder with `label/clean_val_key_list\.txt`"):
        ready(tmp_path)


@pytest.mark.parametrize(("line", "came"), [("images/1/noisy_train/1,1.jpg 14", "14"), ("other 3", "none")])
def test_a_key_without_a_label_is_named(tmp_path, line, came):
    write(tmp_path, "C")
    file = tmp_path / "annotations" / "noisy_label_kv.txt"
    lines = [old for old in file.read_text().splitlines() if not old.startswith("images/1/noisy_train/")]
    write_lines(file, [*lines, line])
    match = (
        rf"noisy_label_kv\.txt' to have a label from 0 to 13 for 'images/1/noisy_train/1,1\.jpg' \(row 2 .*{came}\.$"
    )
    with pytest.raises(NoisyLabelError, match=match):
        ready(tmp_path)


def test_missing_images_are_named(tmp_path):
    write(tmp_path, "A")
    (tmp_path / clothing1m_keys("clean_test", 2)[1]).unlink()
    with pytest.raises(NoisyLabelError, match=r"^1 of 3 test images are not there, .*clean_test/1,1\.jpg' \(row 2 of"):
        ready(tmp_path)


def test_noise_is_refused(tmp_path):
    write(tmp_path, "A")
    with pytest.raises(NoisyLabelError, match="Clothing1MDataModule comes with noisy labels, but got noise="):
        ready(tmp_path, noise=SymmetricNoise(0.1))


def test_epochs_are_balanced(tmp_path):
    write(tmp_path, "A")
    data = ready(tmp_path, batches_per_epoch=2)  # 6 of 8 samples, 2 of each of the three classes
    loader = data.train_dataloader()
    assert len(loader) == 2
    _, target, index = read(loader, "noisy_train")
    assert sorted(target) == [0, 0, 5, 5, 13, 13]
    assert target == data.noisy_targets[index].tolist()


def test_the_defaults_are_those_of_dividemix():
    data = Clothing1MDataModule("clothing")
    image = torch.zeros(3, 512, 640, dtype=torch.uint8)
    resize, crop = data.training_transform().transforms[:2]
    assert resize(image).shape == (3, 256, 320)
    assert crop(resize(image)).shape == (3, 224, 224)
    assert (data.batches_per_epoch, data.mean, data.std) == (1000, MEAN, STD)


@pytest.mark.parametrize("train_on", ["both", ""])
def test_another_training_set_is_refused(train_on):
    with pytest.raises(NoisyLabelError, match="`train_on` to be 'noisy' or 'clean', but got"):
        Clothing1MDataModule("clothing", train_on)


def test_it_is_trained_on(tmp_path):
    write(tmp_path, "B")
    data = ready(tmp_path, batches_per_epoch=2)
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(NoisyLabelModule(SmallCNN(3, 4, 8), LinearHead, nn.CrossEntropyLoss(), 14), datamodule=data)
    assert {"val/acc", "test/acc"} <= set(trainer.callback_metrics)
    assert trainer.global_step == 2
