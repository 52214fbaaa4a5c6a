import struct

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
    data = ready(tmp_path, crop="center")

    assert ", ".join(data.class_names) == (
        "cat, lynx, wolf, coyote, cheetah, jaguar, chimpanzee, orangutan, hamster, guinea pig"
    )
    assert data.num_classes == 10
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
    [({}, 4), ({"crop": "center"}, 0), ({"padding": 0}, 0), ({"padding": 2}, 2)],
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


def write_records(path, order, records):
    """Records as SELFIE's README has them: id, label, all of red, of green and of blue, row by row from the top."""
    content = b""
    for number, label, pixels in records:
        content += struct.pack(f"{order}ii", number, label)
        content += b"".join(pixels[y][x][c].to_bytes(1, "big") for c in range(3) for y in range(64) for x in range(64))
    path.write_bytes(content)


def corners(number):
    """An image whose upper right corner is red, lower left green, and the rest blue, as strong as its number."""
    rows = [[(0, 0, number)] * 64 for _ in range(64)]
    rows[0][63], rows[63][0] = (250, 0, 0), (0, 240, 0)
    return rows


def write_binary(root, order=">"):
    """Five training images in two files, with their ids mixed, and two for test."""
    root.mkdir(exist_ok=True)
    write_records(root / "data_batch_2.bin", order, [(4, 9, corners(14)), (0, 3, corners(10))])
    write_records(root / "data_batch_10.bin", order, [(3, 0, corners(13)), (1, 7, corners(11)), (2, 5, corners(12))])
    write_records(root / "test_batch.bin", order, [(0, 8, corners(20)), (1, 1, corners(21))])


@pytest.mark.parametrize("order", [">", "<"])
def test_the_binary_layout_is_read_in_the_order_of_its_ids(tmp_path, order):
    write_binary(tmp_path, order)
    data = ready(tmp_path)
    assert data.noisy_targets.tolist() == [3, 7, 5, 0, 9]
    images = [data.training_images().image(i) for i in range(5)]
    assert [image.getpixel((30, 30)) for image in images] == [(0, 0, 10 + i) for i in range(5)]
    for image in images:
        assert (image.mode, image.size) == ("RGB", (64, 64))
        assert image.getpixel((63, 0)) == (250, 0, 0)
        assert image.getpixel((0, 63)) == (0, 240, 0)
    test = data.test_images()
    assert (test.labels.tolist(), test.image(1).getpixel((1, 1))) == ([8, 1], (0, 0, 21))


@pytest.mark.parametrize("options", [{"num_workers": 1}, {"on_error": "skip"}, {"val_fraction": 0.4}])
def test_the_binary_layout_is_trained_on(tmp_path, options):
    write_binary(tmp_path)
    trainer = make_trainer(tmp_path, max_epochs=1)
    module = NoisyLabelModule(SmallCNN(3, 4, 8), LinearHead, nn.CrossEntropyLoss(), 10)
    trainer.fit(module, datamodule=Animal10NDataModule(str(tmp_path), **{"batch_size": 2, "seed": 0, **options}))
    assert "test/acc" in trainer.callback_metrics


def test_labels_of_class_0_alone_have_any_byte_order(tmp_path):
    write_binary(tmp_path, "<")
    write_records(tmp_path / "test_batch.bin", "<", [(1, 0, corners(5))])
    assert ready(tmp_path).test_images().labels.tolist() == [0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"hold records of 12296 bytes \(id, label, 3 x 64 x 64 pixels\), but got 0 bytes: fetch it again\."),
        (bytes(12296 + 3073), "hold records of 12296 bytes .*, but got 15369 bytes"),
        (
            struct.pack(">ii", 0, 10) + bytes(12288),
            r"the labels in '.*', int32 after an int32 id, to lie in \[0, 10\), but got up to 10 in big-endian and "
            "167772160 in little-endian order",
        ),
        (struct.pack(">ii", 0, -1) + bytes(12288), "but got up to -1 in big-endian and -1 in little-endian order"),
    ],
)
def test_files_of_other_records_are_refused(tmp_path, content, message):
    write_binary(tmp_path)
    (tmp_path / "data_batch_10.bin").write_bytes(content)
    with pytest.raises(NoisyLabelError, match=message) as caught:
        ready(tmp_path)
    assert "data_batch_10.bin" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_binary_file_that_has_become_shorter_is_named_by_its_record(tmp_path):
    write_binary(tmp_path)
    data = ready(tmp_path)
    content = (tmp_path / "data_batch_10.bin").read_bytes()
    (tmp_path / "data_batch_10.bin").write_bytes(content[:-1])
    assert data.training_images().image(3).size == (64, 64)
    with pytest.raises(NoisyLabelError, match=r"^Cannot read image record 3 of '.*data_batch_10\.bin': "):
        data.training_images().image(2)


def test_a_binary_layout_without_its_test_set_is_refused(tmp_path):
    write_binary(tmp_path)
    (tmp_path / "test_batch.bin").unlink()
    with pytest.raises(NoisyLabelError, match=r"or with `data_batch_1\.bin` and `test_batch\.bin`, but got"):
        ready(tmp_path)
