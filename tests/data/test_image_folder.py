import csv
import shutil

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from lightning_noisy import NoisyLabelModule
from lightning_noisy.data import BalancedSampler, ImageFolderDataModule, StrongAugment, SymmetricNoise
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.functional.random import hash_seed
from lightning_noisy.heads import LinearHead
from lightning_noisy.losses import GeneralizedJensenShannonLoss
from lightning_noisy.networks import SmallCNN
from tests._dummies import numbers, quiet, write_image
from tests.foreign import make_trainer

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES = ["ant", "bee", "cat"]
COUNTS = {"train": (4, 6, 5), "val": (1, 2, 0), "test": (2, 1, 3)}
FIRST = {"train": 0, "val": 120, "test": 180}


def write_folders(root, splits=("train", "val", "test")):
    """Images of one color; those of a split are numbered ``FIRST``, ``FIRST`` + 8, ... in the order of classes."""
    for split in splits:
        number = FIRST[split]
        for name, count in zip(CLASSES, COUNTS[split], strict=True):
            for i in range(count):
                write_image(root / split / name / f"{i}.jpg", number)
                number += 8


def labels_of(split):
    return np.repeat(np.arange(3), COUNTS[split])


def ready(root, stage="fit", **options):
    data = ImageFolderDataModule(
        str(root), **{"image_size": 8, "batch_size": 4, "num_workers": 0, "seed": 0, **options}
    )
    data.setup(stage)
    return data


def read(loader):
    return [torch.cat(parts) for parts in zip(*loader, strict=True)]


def found(images, split):
    """Which images of a split these are."""
    positions = (numbers(images, MEAN, STD) - FIRST[split]) / 8
    assert np.abs(positions - positions.round()).max() < 0.45
    return positions.round().astype(int)


def test_all_splits_are_read(tmp_path):
    write_folders(tmp_path)
    data = ready(tmp_path)

    assert data.class_names == CLASSES
    assert data.num_classes == 3
    assert data.validation_splits == ("val", "test")
    images, target, index = read(data.train_dataloader())
    assert images.shape == (15, 3, 8, 8)
    assert images.dtype == torch.float32
    assert sorted(index.tolist()) == list(range(15))
    assert (found(images, "train") == index.numpy()).all()
    assert (target.numpy() == labels_of("train")[index.numpy()]).all()
    for split, loader in zip(data.validation_splits, data.val_dataloader(), strict=True):
        images, target = read(loader)
        assert found(images, split).tolist() == list(range(sum(COUNTS[split])))
        assert target.tolist() == labels_of(split).tolist()


def test_splits_may_be_left_out(tmp_path):
    write_folders(tmp_path, ["train"])
    assert ready(tmp_path).validation_splits == ()
    data = ready(tmp_path, val_fraction=0.2)
    assert data.validation_splits == ("val",)
    assert len(read(data.val_dataloader()[0])[0]) == 3


def test_labels_without_noise_are_known_to_nobody(tmp_path):
    write_folders(tmp_path)
    data = ready(tmp_path)
    assert data.clean_targets is None
    assert data.noisy_targets.tolist() == labels_of("train").tolist()


def test_noise_makes_the_labels_clean_and_leaves_the_other_splits(tmp_path):
    write_folders(tmp_path)
    data, noise = ready(tmp_path, noise=SymmetricNoise(1.0)), SymmetricNoise(1.0)
    clean = torch.from_numpy(labels_of("train"))

    assert torch.equal(data.clean_targets, clean)
    assert torch.equal(data.noisy_targets, noise.corrupt(clean, 3, 0))
    assert [read(loader)[1].tolist() for loader in data.val_dataloader()] == [
        labels_of(split).tolist() for split in ("val", "test")
    ]


def test_a_folder_without_training_images_is_refused(tmp_path):
    for root, wanted in ((tmp_path / "nowhere", "a folder, relative"), (tmp_path, "a folder with `train/<class>")):
        with pytest.raises(NoisyLabelError, match=f"`root` to be {wanted}"):
            ready(root)
    (tmp_path / "train").mkdir()
    with pytest.raises(NoisyLabelError, match="`root` to be a folder with `train/<class>/<image>`"):
        ready(tmp_path)
    for name in CLASSES:
        (tmp_path / "train" / name).mkdir()
    with pytest.raises(NoisyLabelError, match="<class>/<image>`, not without any image"):
        ready(tmp_path)


def test_classes_may_lie_in_the_root_and_a_folder_without_images_is_none(tmp_path, recwarn):
    for name in ("10", "9", "="):
        write_image(tmp_path / name / "deep" / "a.png", 8 * len(name))
    (tmp_path / "two\nlines").mkdir()
    (tmp_path / "two\nlines" / "notes.txt").touch()
    data = ready(tmp_path)
    assert data.class_names == ["10", "9", "="]
    assert data.sources.tolist() == ["10/deep/a.png", "9/deep/a.png", "=/deep/a.png"]
    assert "Folders without an image count as no class: 'two lines'." in [str(one.message) for one in recwarn]
    (tmp_path / "test").mkdir()
    with pytest.raises(NoisyLabelError, match="`root` to be a folder with `train/<class>/<image>`"):
        ready(tmp_path)


def test_folders_that_would_be_passed_over_are_refused_or_said(tmp_path, recwarn):
    for path in ("train/a/1.png", "train/b/2.png", "holdout/a/3.png"):
        write_image(tmp_path / path, 20)
    with pytest.raises(NoisyLabelError, match=r"holdout' holds images beside '.*train', where all classes should lie"):
        ImageFolderDataModule(str(tmp_path)).read_lists()
    shutil.rmtree(tmp_path / "holdout")
    write_image(tmp_path / "train" / "loose.png", 20)
    (tmp_path / "train" / "a" / "self").symlink_to(".")
    (tmp_path / "train" / "b" / "other").symlink_to(tmp_path / "train" / "a")
    names, lists = ImageFolderDataModule(str(tmp_path)).read_lists()
    assert (names, len(lists["train"])) == (["a", "b"], 3)  # 1.png, 2.png, and 1.png by the link in b
    assert "1 images lie in" in "".join(str(one.message) for one in recwarn)


def test_copies_with_different_labels_are_kept_and_listed(tmp_path):
    write_folders(tmp_path, ["train"])
    content = (tmp_path / "train" / "ant" / "0.jpg").read_bytes()
    for name, last in (("ant/one.jpg", b"."), ("ant/two.jpg", b"."), ("bee/=copy.jpg", b"."), ("cat/other.jpg", b"!")):
        (tmp_path / "train" / name).write_bytes(content + last)
    with pytest.warns(UserWarning, match="3 train images are copies of 1 with different labels and are kept, the f"):
        data = ready(tmp_path, on_error="skip")
    assert len(data.noisy_targets) == 19
    listed = [(path, row, label) for _, _, path, row, label in data._problems.copies]
    assert listed == [(f"train/{name}.jpg", "", name[:3]) for name in ("ant/one", "ant/two", "bee/=copy")]


def test_an_image_that_cannot_be_decoded_ends_the_run_with_its_path(tmp_path):
    write_folders(tmp_path)
    (tmp_path / "train" / "bee" / "3.jpg").write_bytes(b"no image")
    data = ready(tmp_path)
    with pytest.raises(NoisyLabelError, match=r"Cannot read image '.*bee/3\.jpg': cannot identify"):
        read(data.train_dataloader())


# Leaving out what cannot be read


def damage(root):
    (root / "train" / "bee" / "3.jpg").write_bytes(b"no image")  # sample 7
    (root / "train" / "ant" / "0.jpg").write_bytes(b"")  # sample 0
    (root / "test" / "cat" / "2.jpg").write_bytes(b"no image")  # the last one


@pytest.mark.parametrize("num_workers", [0, 2])
def test_left_out_images_leave_no_gap(tmp_path, num_workers):
    write_folders(tmp_path)
    damage(tmp_path)
    with pytest.warns(UserWarning, match="2 of 15 train images cannot be read and are left out"):
        data = ready(tmp_path, on_error="skip", num_workers=num_workers, noise=SymmetricNoise(0.5))
    kept = [i for i in range(15) if i not in (0, 7)]

    for _ in range(2):
        images, target, index = read(data.train_dataloader())
        assert sorted(index.tolist()) == list(range(13))
        assert found(images, "train").tolist() == [kept[i] for i in index.tolist()]
        assert torch.equal(target, data.noisy_targets[index])
    assert data.clean_targets.tolist() == labels_of("train")[kept].tolist()
    assert found(read(data.test_dataloader())[0], "test").tolist() == list(range(5))


def test_images_are_checked_once(tmp_path, monkeypatch):
    write_folders(tmp_path)
    data = ready(tmp_path, on_error="skip")
    monkeypatch.setattr("lightning_noisy.data.image_list.read_photo", None)
    data.setup("test")
    assert len(data.noisy_targets) == 15


def make_module(loss=None, num_classes=3):
    return NoisyLabelModule(SmallCNN(3, 4, 8), LinearHead, loss or nn.CrossEntropyLoss(), num_classes)


@pytest.mark.parametrize("stage", ["fit", "test"])
def test_what_was_left_out_is_written(tmp_path, stage):
    write_folders(tmp_path / "data")
    damage(tmp_path / "data")
    data = ImageFolderDataModule(str(tmp_path / "data"), image_size=8, num_workers=0, seed=0, on_error="skip")
    logger = CSVLogger(tmp_path, name="run", version="")
    getattr(make_trainer(tmp_path, max_epochs=1, logger=logger), stage)(make_module(), datamodule=data)
    files = list(tmp_path.rglob("skipped_images.csv"))

    assert len(files) == (1 if stage == "fit" else 0)
    if files:
        rows = list(csv.reader(files[0].open()))
        assert rows[0] == ["split", "path", "row", "reason"]
        assert [(row[0], row[1]) for row in rows[1:]] == [
            ("train", "train/ant/0.jpg"),
            ("train", "train/bee/3.jpg"),
            ("test", "test/cat/2.jpg"),
        ]
        assert all("cannot identify" in row[3] for row in rows[1:])


class Process:
    """A trainer on one of two ranks."""

    world_size, fast_dev_run, loggers = 2, False, (None,)

    def __init__(self, rank, folder):
        self.global_rank, self.is_global_zero, self.log_dir = rank, rank == 0, str(folder)


@pytest.mark.filterwarnings("ignore:.*are left out")
@pytest.mark.parametrize("rank", [0, 1])
def test_one_process_writes_what_was_left_out(tmp_path, rank):
    write_folders(tmp_path / "data")
    damage(tmp_path / "data")
    data = ImageFolderDataModule(str(tmp_path / "data"), num_workers=0, seed=0, on_error="skip")
    data.trainer = Process(rank, tmp_path / "run")
    data.setup("fit")
    assert (tmp_path / "run" / "skipped_images.csv").exists() == (rank == 0)


def test_nothing_is_written_where_all_can_be_read(tmp_path):
    write_folders(tmp_path / "data")
    data = ImageFolderDataModule(str(tmp_path / "data"), image_size=8, num_workers=0, seed=0, on_error="skip")
    make_trainer(tmp_path, max_epochs=1, logger=CSVLogger(tmp_path)).fit(make_module(), datamodule=data)
    assert not list(tmp_path.rglob("skipped_images.csv"))


def test_a_set_of_unreadable_images_is_refused(tmp_path):
    write_folders(tmp_path)
    for path in (tmp_path / "val").rglob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(NoisyLabelError, match=r"None of the 3 val images .* can be read, the first '.*ant/0\.jpg' for"):
        ready(tmp_path, on_error="skip")


# Crops


def write_coded(root, count=40):
    """PNG images 20 wide and 14 high: channel 0 holds the row + 1, channel 1 the column + 1, channel 2 the number."""
    rows, columns = np.meshgrid(np.arange(1, 15), np.arange(1, 21), indexing="ij")
    for n in range(count):
        for name in ("a", "b"):
            (root / "train" / name).mkdir(parents=True, exist_ok=True)
        pixels = np.stack([rows, columns, np.full((14, 20), n + 1)], axis=2).astype(np.uint8)
        Image.fromarray(pixels).save(root / "train" / ("a" if n < count // 2 else "b") / f"{n:03}.png")
    return np.stack([rows, columns])


def bytes_of(images, mean=MEAN, std=STD):
    mean, std = (np.array(values).reshape(3, 1, 1) for values in (mean, std))
    values = (images.double().numpy() * std + mean) * 255
    assert np.abs(values - values.round()).max() < 1e-3
    return values.round().astype(int)


@pytest.mark.parametrize(("padding", "mode"), [(0, "constant"), (2, "constant"), (2, "reflect")])
@pytest.mark.parametrize("flip", [True, False])
def test_random_crops(tmp_path, padding, mode, flip):
    whole = np.pad(write_coded(tmp_path), ((0, 0), (padding, padding), (padding, padding)), mode)
    data = ready(tmp_path, image_size=10, resize=0, crop="random", padding=padding, padding_mode=mode, flip=flip)
    images, _, index = read(data.train_dataloader())
    places, flips = set(), 0
    for crop, n in zip(bytes_of(images), index.tolist(), strict=True):
        flipped = crop[1, 5, 5] < crop[1, 5, 4]
        row, column = crop[0, 5, 5] - 1, crop[1, 5, 5] - 1
        top, left = row - 5 + padding, column - (4 if flipped else 5) + padding
        expected = whole[:, top : top + 10, left : left + 10]
        assert np.array_equal(crop[:2, :, ::-1] if flipped else crop[:2], expected)
        assert crop[2, 5, 5] == n + 1
        places.add((top, left))
        flips += flipped
    assert {top for top, _ in places} == set(range(5 + 2 * padding))
    assert min(left for _, left in places) == 0 or padding
    assert max(left for _, left in places) > 8
    assert (8 < flips < 32) if flip else flips == 0


def test_center_crops_are_those_of_evaluation(tmp_path):
    whole = write_coded(tmp_path)
    data = ready(tmp_path, image_size=10, resize=0, crop="center", flip=False, val_fraction=0.25)
    for loader in (data.train_dataloader(), data.val_dataloader()[0]):
        crops = bytes_of(read(loader)[0])
        assert (crops[:, :2] == whole[:, 2:12, 5:15]).all()


def test_the_default_is_a_scaled_part_of_the_image_as_it_is(tmp_path):
    write_coded(tmp_path)
    data = ready(tmp_path, image_size=7)
    images, _, index = read(data.train_dataloader())
    transform = v2.Compose([v2.RandomResizedCrop(7), v2.RandomHorizontalFlip()])
    paths = sorted(tmp_path.rglob("*.png"))
    for image, n in zip(images, index.tolist(), strict=True):
        torch.manual_seed(hash_seed(0, 0, n))
        expected = np.array(transform(Image.open(paths[n]))).transpose(2, 0, 1)
        assert np.array_equal(bytes_of(image[None])[0], expected)


@pytest.mark.parametrize(("resize", "shorter"), [(None, 16), (14, 14), (20, 20), (0, 40)])
def test_evaluated_images_are_resized_and_cropped_in_the_center(tmp_path, resize, shorter):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    for name in ("a", "b"):
        for split in ("train", "test"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(pixels).save(tmp_path / split / name / "0.png")
    data = ready(tmp_path, image_size=14, resize=resize, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))

    width = int(shorter * 60 / 40)
    resized = np.array(Image.fromarray(pixels).resize((width, shorter), Image.Resampling.BILINEAR))
    top, left = round((shorter - 14) / 2), round((width - 14) / 2)
    expected = resized[top : top + 14, left : left + 14].transpose(2, 0, 1)
    images, _ = read(data.test_dataloader())
    assert (bytes_of(images, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)) == expected).all()


@pytest.mark.parametrize(("crop", "resize", "side"), [("random", None, 16), ("random", 30, 30), ("resized", 20, 20)])
def test_training_images_are_resized_where_asked_for(tmp_path, crop, resize, side):
    write_coded(tmp_path, 4)
    data = ready(tmp_path, image_size=14, crop=crop, resize=resize)
    first = data.training_transform().transforms[0]
    image = first(Image.open(next(tmp_path.rglob("*.png"))))
    assert min(image.size) == side


def test_images_in_memory_are_decoded_once_to_squares(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 40, 60, 3), dtype=np.uint8)
    for number, photo in enumerate(pixels):
        path = tmp_path / ("train", "test")[number % 2] / "ab"[number // 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo).save(path)
    data = ready(tmp_path, image_size=14, in_memory=True, crop="random", flip=False, batch_size=3)
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    wide = [np.array(Image.fromarray(photo).resize((24, 16), Image.Resampling.BILINEAR)) for photo in pixels]
    squares = np.stack([photo[:, 4:20].transpose(2, 0, 1) for photo in wide])
    assert (bytes_of(read(data.test_dataloader())[0]) == squares[[1, 3, 5], :, 1:15, 1:15]).all()
    images, _, index = read(data.train_dataloader())
    for number, crop in zip(index.tolist(), bytes_of(images), strict=True):
        places = [squares[2 * number, :, y : y + 14, x : x + 14] for y in range(3) for x in range(3)]
        assert any((crop == place).all() for place in places)
    assert data.sources.tolist() == ["train/a/0.png", "train/a/2.png", "train/b/4.png"]
    with pytest.raises(NoisyLabelError, match="argument `resize`"):
        ready(tmp_path, in_memory=True, resize=0)


def test_small_images_are_padded(tmp_path):
    write_coded(tmp_path, 4)
    data = ready(tmp_path, image_size=32, resize=0, crop="random", val_fraction=0.5)
    for loader in (data.train_dataloader(), data.val_dataloader()[0]):
        crop = bytes_of(read(loader)[0])
        assert crop.shape == (2, 3, 32, 32)
        assert ((crop > 0).sum(axis=(1, 2, 3)) == 3 * 14 * 20).all()


# Views, epochs of some batches, and the whole


def test_views_and_noise_are_trained_on(tmp_path):
    write_folders(tmp_path)
    data = ready(tmp_path, views=["weak", "strong"], noise=SymmetricNoise(0.2))
    images, _, _ = next(iter(data.train_dataloader()))
    assert [view.shape for view in images] == [(4, 3, 8, 8)] * 2
    assert isinstance(data.strong, StrongAugment)
    assert data.strong.policy == "rand"
    make_trainer(tmp_path, max_epochs=1).fit(make_module(GeneralizedJensenShannonLoss(pi=0.5)), datamodule=data)


def test_epochs_of_some_batches_are_balanced(tmp_path):
    write_folders(tmp_path)
    data = ready(tmp_path, batches_per_epoch=3, batch_size=3)
    loader = data.train_dataloader()
    seen = []
    for epoch in range(4):
        iterator = iter(loader)
        loader.sampler.set_epoch(epoch)
        seen.append(read(iterator))
    assert isinstance(loader.sampler, BalancedSampler)
    assert all(target.bincount().tolist() == [3, 3, 3] for _, target, _ in seen)
    assert len({tuple(sorted(index.tolist())) for _, _, index in seen}) > 1


def balanced_batches(root, rank=None, **options):
    """Indices of each batch of epoch 0."""
    data = ImageFolderDataModule(
        str(root), image_size=8, num_workers=0, **{"seed": 0, "batches_per_epoch": 2, **options}
    )
    if rank is not None:
        data.trainer = Process(rank, root)
    data.setup("validate")
    return [index.tolist() for _, _, index in data.train_dataloader()]


def test_processes_share_balanced_epochs_which_the_seed_moves(tmp_path):
    write_folders(tmp_path)
    single = balanced_batches(tmp_path, batch_size=6)
    ranks = [balanced_batches(tmp_path, rank, batch_size=3) for rank in range(2)]

    assert [len(batch) for batch in single] == [6, 6]
    assert [sorted(a + b) for a, b in zip(*ranks, strict=True)] == [sorted(batch) for batch in single]
    assert balanced_batches(tmp_path, batch_size=6, seed=1) != single


def test_an_epoch_larger_than_the_training_set_is_refused(tmp_path):
    write_folders(tmp_path)
    with pytest.raises(NoisyLabelError, match="`batches_per_epoch` to be at most 5, as many as 15 samples give, but"):
        ready(tmp_path, batches_per_epoch=6, batch_size=3).train_dataloader()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"image_size": 0}, "`image_size` to be an int of at least 1"),
        ({"image_size": 32.0}, "`image_size` to be an int of at least 1, but got 32.0"),
        ({"resize": 0.5}, "`resize` to be an int of at least 0, or None, but got 0.5"),
        ({"resize": -1}, "`resize` to be an int of at least 0, or None"),
        ({"crop": "middle"}, "`crop` to be 'resized', 'random' or 'center', but got 'middle'"),
        ({"padding": 4}, "`padding` to be 0 without a random crop, but got 4"),
        ({"padding": -1, "crop": "random"}, "`padding` to be"),
        ({"padding_mode": "edge"}, "`padding_mode` to be 'constant' or 'reflect'"),
        ({"mean": (0.5,)}, "`mean` to be three floats"),
        ({"std": (0.5,)}, "`mean` to be three floats"),
        ({"std": (0.5, 0.0, 0.5)}, "`std` to be positive floats"),
        ({"on_error": "ignore"}, "`on_error` to be 'raise' or 'skip', but got 'ignore'"),
        ({"batches_per_epoch": 0}, "`batches_per_epoch` to be an int of at least 1, or None, but got 0"),
        ({"views": []}, "`views` to be a list"),
    ],
)
def test_bad_arguments_are_refused_at_once(options, match):
    with pytest.raises(NoisyLabelError, match=match):
        ImageFolderDataModule("nowhere", **options)


CONFIG = """
trainer: {{max_epochs: 1, accelerator: cpu, logger: false, enable_checkpointing: false}}
model:
  class_path: lightning_noisy.NoisyLabelModule
  init_args:
    backbone: {{class_path: lightning_noisy.networks.SmallCNN, init_args: {{in_channels: 3, width: 4}}}}
    head: lightning_noisy.heads.LinearHead
    loss: {{class_path: lightning_noisy.losses.GeneralizedJensenShannonLoss, init_args: {{pi: 0.5, num_views: 3}}}}
    num_classes: 3
data:
  class_path: lightning_noisy.data.ImageFolderDataModule
  init_args:
    root: {root}
    image_size: 8
    num_workers: 0
    mean: [0.5, 0.5, 0.5]
    views:
      - strong
      - weak
      - class_path: torchvision.transforms.v2.Compose
        init_args:
          transforms:
            - {{class_path: torchvision.transforms.v2.CenterCrop, init_args: {{size: 8}}}}
            - {{class_path: torchvision.transforms.ToTensor}}
    strong: {{class_path: lightning_noisy.data.StrongAugment, init_args: {{policy: imagenet, cutout: 0.3}}}}
"""


def test_a_config_says_all_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["lightning-noisy"])
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    write_folders(tmp_path / "data")
    (tmp_path / "config.yaml").write_text(CONFIG.format(root=tmp_path / "data"))
    data = quiet("fit", tmp_path / "config.yaml").datamodule

    assert data.mean == (0.5, 0.5, 0.5)
    assert data.strong.policy == "imagenet"
    images, _, _ = next(iter(data.train_dataloader()))
    assert len(images) == 3
