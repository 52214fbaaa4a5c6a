import random

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from lightning_noisy import NoisyLabelModule
from lightning_noisy.callbacks import RunSummary
from lightning_noisy.data import SymmetricNoise, WebVisionMiniDataModule
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.heads import LinearHead
from lightning_noisy.networks import SmallCNN
from tests._dummies import numbers, write_image, write_imagenet, write_lines, write_webvision
from tests._dummies.image_sets import WORDNET
from tests.foreign import make_trainer

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TRAIN = [3, 49, 50, 0, 999, 3, 12]  # labels in the order of the list
VAL = [49, 700, 0, 50, 7]


NUMBERS = [str(i) for i in range(50)]


def ready(root, imagenet=None, **options):
    options = {"image_size": 8, "resize": 0, "batch_size": 4, "num_workers": 0, "seed": 0, **options}
    data = WebVisionMiniDataModule(str(root), None if imagenet is None else str(imagenet), **options)
    data.setup("fit")
    return data


def read(loader, step=8):
    images, *others = (torch.cat(parts) for parts in zip(*loader, strict=True))
    return (numbers(images, MEAN, STD) / step).round().astype(int).tolist(), *(part.tolist() for part in others)


def test_the_first_fifty_classes_are_read(tmp_path):
    write_webvision(tmp_path, TRAIN, VAL)
    data = ready(tmp_path)

    assert (data.num_classes, len(data.class_names)) == (50, 50)
    assert data.validation_splits == data.test_splits == ("test",)
    kept = [0, 1, 3, 5, 6]
    images, target, index = read(data.train_dataloader())
    assert sorted(index) == list(range(5))
    assert images == [kept[i] for i in index]
    assert target == [TRAIN[i] for i in images]
    assert data.noisy_targets.tolist() == [TRAIN[i] for i in kept]
    assert data.clean_targets is None
    assert read(data.test_dataloader()) == ([0, 2, 4], [49, 0, 7])


@pytest.mark.parametrize("names", [WORDNET, NUMBERS])
def test_imagenet_is_a_second_test_set(tmp_path, names):
    write_webvision(tmp_path / "webvision", TRAIN, VAL)
    write_imagenet(tmp_path / "imagenet", names)
    data = ready(tmp_path / "webvision", tmp_path / "imagenet")

    assert data.validation_splits == data.test_splits == ("test", "imagenet")
    test, imagenet = (read(loader, step) for loader, step in zip(data.test_dataloader(), (8, 5), strict=True))
    assert test == ([0, 2, 4], [49, 0, 7])
    assert imagenet == (list(range(50)), list(range(50)))


LISTS = ["imagenet_val.txt", "val.txt", "ILSVRC2012_devkit_t12/data/val.txt"]


@pytest.mark.parametrize("name", LISTS)
def test_imagenet_in_one_folder_is_read_by_its_list(tmp_path, name):
    write_webvision(tmp_path / "webvision", TRAIN, VAL)
    labels = [65, 49, 970, 0, 7, 50, 7]
    images = [f"ILSVRC2012_val_{i:08}.JPEG" for i in range(1, 8)]
    for i, image in enumerate(images):
        write_image(tmp_path / "imagenet" / "val" / image, 5 * i)
    lines = [f"{image} {label}" for image, label in zip(images, labels, strict=True)]
    write_lines(tmp_path / "imagenet" / name, lines[::-1])
    (tmp_path / "imagenet" / "val" / ".cache").mkdir()
    data = ready(tmp_path / "webvision", tmp_path / "imagenet")

    assert data.test_splits == ("test", "imagenet")
    assert read(data.test_dataloader()[1], 5) == ([6, 4, 3, 1], [7, 7, 0, 49])
    (tmp_path / "imagenet" / "val" / images[3]).unlink()
    with pytest.raises(NoisyLabelError, match=rf"imagenet images are not there, .*{images[3]}' \(row 4 of '.*val.txt"):
        ready(tmp_path / "webvision", tmp_path / "imagenet")


def test_folders_of_imagenet_come_before_a_list_beside_them(tmp_path):
    write_webvision(tmp_path / "webvision", TRAIN, VAL)
    write_imagenet(tmp_path / "imagenet", NUMBERS)
    write_lines(tmp_path / "imagenet" / "val.txt", ["ILSVRC2012_val_00000001.JPEG 3"])
    data = ready(tmp_path / "webvision", tmp_path / "imagenet")
    assert read(data.test_dataloader()[1], 5) == (list(range(50)), list(range(50)))


@pytest.mark.parametrize("names", [WORDNET[:49], NUMBERS[:49], ["cat", *WORDNET], [*NUMBERS[1:], "50"], []])
def test_another_layout_of_imagenet_is_refused(tmp_path, names):
    write_webvision(tmp_path / "webvision", TRAIN, VAL)
    (tmp_path / "imagenet" / "val").mkdir(parents=True)
    write_imagenet(tmp_path / "imagenet", names)
    with pytest.raises(NoisyLabelError, match="`imagenet_root` to be a folder with `val/<class>/<image>`"):
        ready(tmp_path / "webvision", tmp_path / "imagenet")
    with pytest.raises(NoisyLabelError, match="`imagenet_root` to be a folder with `val/<class>/<image>`, classes"):
        ready(tmp_path / "webvision", tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["train_filelist_google.txt", "val_filelist.txt"])
def test_a_missing_list_is_named(tmp_path, name):
    write_webvision(tmp_path, TRAIN, VAL)
    (tmp_path / "info" / name).unlink()
    with pytest.raises(NoisyLabelError, match=f"`root` to be a folder with `info/{name}`, but got '{tmp_path}'"):
        ready(tmp_path)


def test_missing_images_are_named_by_their_row(tmp_path):
    write_webvision(tmp_path, TRAIN, VAL)
    (tmp_path / "val_images_256" / "val000002.jpg").unlink()
    match = r"^1 of 3 test images are not there, the first '.*val_images_256/val000002\.jpg' \(row 3 of '.*filelist"
    with pytest.raises(NoisyLabelError, match=match):
        ready(tmp_path)


def test_noise_is_refused(tmp_path):
    write_webvision(tmp_path, TRAIN, VAL)
    with pytest.raises(NoisyLabelError, match="WebVisionMiniDataModule comes with noisy labels, but got noise="):
        ready(tmp_path, noise=SymmetricNoise(0.1))


def test_the_sizes_are_those_of_dividemix(tmp_path):
    data = WebVisionMiniDataModule("webvision")
    image = torch.zeros(3, 700, 640, dtype=torch.uint8)
    resized = data.training_transform().transforms[0](image)
    assert resized.shape == (3, 350, 320)
    assert (data.image_size, data.crop, data.mean, data.std) == (299, "resized", MEAN, STD)


def test_colors_are_jittered_by_the_seed_alone(tmp_path):
    write_webvision(tmp_path, TRAIN, VAL)

    def colors(noise, **options):
        random.seed(noise)
        np.random.seed(noise)  # noqa: NPY002  what a transform must not draw from
        images, _, index = next(iter(ready(tmp_path, flip=False, batch_size=5, **options).train_dataloader()))
        return images.mean(dim=(2, 3))[index.argsort()]

    jitter = {"views": ["strong"], "strong": v2.ColorJitter(0.4, 0.4, 0.4, 0.2)}
    first = colors(0, **jitter)
    assert torch.equal(first, colors(1, **jitter))
    assert (first - colors(0)).abs().amax(dim=1).min() > 0.05


def test_both_test_sets_have_top_five_figures(tmp_path):
    write_webvision(tmp_path / "webvision", TRAIN, VAL)
    write_imagenet(tmp_path / "imagenet", WORDNET)
    data = ready(tmp_path / "webvision", tmp_path / "imagenet")
    module = NoisyLabelModule(SmallCNN(3, 4, 8), LinearHead, nn.CrossEntropyLoss(), 50)
    summary = RunSummary()
    trainer = make_trainer(tmp_path, [summary], max_epochs=1)
    trainer.fit(module, datamodule=data)
    assert summary.columns() == ["test/acc", "test/acc_top5", "imagenet/acc", "imagenet/acc_top5"]
    wanted = {f"{split}/{name}" for split in ("test", "imagenet") for name in ("acc", "acc_top5", "loss")}

    assert wanted <= set(trainer.callback_metrics)
    assert "val/acc" not in trainer.callback_metrics
    fitted = {name: trainer.callback_metrics[name].item() for name in wanted}
    trainer.test(module, datamodule=data)
    assert {name: trainer.callback_metrics[name].item() for name in wanted} == pytest.approx(fitted)
    module.eval()
    images, target = (torch.cat(parts) for parts in zip(*data.test_dataloader()[1], strict=True))
    with torch.no_grad():
        best = module(images).topk(5).indices
    top = (best == target[:, None]).any(dim=1).double().mean().item()
    assert fitted["imagenet/acc_top5"] == pytest.approx(top, abs=1e-6)
