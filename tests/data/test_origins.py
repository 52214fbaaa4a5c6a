import os

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder

from lightning_noisy.data import (
    CSVDataModule,
    DigitsDataModule,
    FeaturesDataModule,
    FileNoise,
    ImageFolderDataModule,
    IndexedDataset,
    known_class_names,
    sources_of,
)
from lightning_noisy.data.origins import check_same_names
from lightning_noisy.errors import NoisyLabelError
from tests._dummies import write_image

PLAIN = TensorDataset(torch.zeros(5, 2), torch.zeros(5, dtype=torch.int64))
HOSTILE = ["a\nb.png", 'c,"d.png', "=1+2.png", os.fsdecode(b"\xff\xfe.png"), "plain.png"]


class Told(TensorDataset):
    sources = ("e", "d", "c", "b", "a")
    class_names = ("x", "y")


def test_a_set_that_says_nothing_has_positions_also_behind_subsets():
    part = Subset(IndexedDataset(Subset(PLAIN, [4, 2, 1])), [2, 0])
    assert sources_of(PLAIN).tolist() == [0, 1, 2, 3, 4]
    assert sources_of(part).tolist() == [1, 4]
    assert known_class_names(part) is None


def test_a_set_is_asked_through_what_is_around_it():
    told = Told(*PLAIN.tensors)
    both = ConcatDataset([told, Subset(told, [1])])
    assert sources_of(Subset(both, [5, 0])).tolist() == ["d", "e"]
    assert sources_of(ConcatDataset([told, PLAIN])).tolist() == list(range(10))
    assert known_class_names(IndexedDataset(both)) == ("x", "y")


@pytest.mark.parametrize("sources", [["a"], [0.5] * 5, [None] * 5])
def test_what_are_no_sources_is_refused(sources):
    told = Told(*PLAIN.tensors)
    told.sources = sources
    with pytest.raises(NoisyLabelError, match="`sources` of a data set to be 5 paths or rows"):
        sources_of(told)


def test_torchvision_folders_tell_paths_and_classes(tmp_path):
    write_image(tmp_path / "ant" / "1.png", 0)
    write_image(tmp_path / "bee" / "2.png", 0)
    folder = ImageFolder(str(tmp_path))
    assert sources_of(folder).tolist() == [str(tmp_path / "ant" / "1.png"), str(tmp_path / "bee" / "2.png")]
    assert known_class_names(folder) == ("ant", "bee")


def test_image_files_are_named_also_behind_a_validation_split(tmp_path):
    names = [name for name in HOSTILE if _can_be_a_file(tmp_path, name)]
    for label in ("=cmd", "zoo"):
        for number, name in enumerate(names):
            write_image(tmp_path / "train" / label / name, number)
    data = ImageFolderDataModule(str(tmp_path), val_fraction=0.3, image_size=8, num_workers=0, seed=0)
    data.setup("fit")
    told = data.sources.tolist()
    assert len(told) == len(data.noisy_targets) < 2 * len(names)
    assert set(told) <= {f"train/{label}/{name}" for label in ("=cmd", "zoo") for name in names}
    assert [["=cmd", "zoo"].index(path.split("/")[1]) for path in told] == data.noisy_targets.tolist()


def _can_be_a_file(folder, name):
    try:
        (folder / name).touch()
        (folder / name).unlink()
    except OSError:
        return False
    return True


def test_digits_are_rows_of_what_scikit_learn_has():
    from sklearn.datasets import load_digits

    data = DigitsDataModule(val_fraction=0.25, seed=3)
    data.setup("fit")
    assert np.array_equal(load_digits().target[data.sources], data.noisy_targets.numpy())
    test = data.predict_dataloader().dataset
    assert np.array_equal(load_digits().target[sources_of(test)], test.targets.numpy())


def test_tables_name_files_as_they_do(tmp_path):
    for name in ("1.png", "2.png"):
        write_image(tmp_path / name, 0)
    (tmp_path / "t.csv").write_text("image,label\n2.png,b\n1.png,a\n")
    data = CSVDataModule(str(tmp_path / "t.csv"), image_size=8)
    data.setup("fit")
    assert data.sources.tolist() == ["2.png", "1.png"]


def test_features_take_paths_and_names_from_the_file(tmp_path):
    x, y, path = np.eye(6), [0, 1, 0, 1, 0, 1], list("fedcba")
    np.savez(tmp_path / "x.npz", x=x, y=y, path=path, class_names=["p", "q", "never"])
    data = FeaturesDataModule(tmp_path / "x.npz", test_rows=2)
    data.setup("fit")
    assert data.sources.tolist() == ["f", "e", "d", "c"]
    assert data.class_names == ("p", "q", "never")
    assert data.num_classes == 3
    assert sources_of(data.predict_dataloader().dataset).tolist() == ["b", "a"]
    with pytest.raises(NoisyLabelError, match=r"`num_classes` to be the number of `class_names` in .*, but got 2"):
        FeaturesDataModule(tmp_path / "x.npz", num_classes=2).setup("fit")


@pytest.mark.parametrize(
    ("now", "line"),
    [
        (["bee", "ant", "cat"], "it has 'ant' as class 0, which is 'bee' in these data"),
        (["ant", "bee"], "it has 'cat'"),
        (["ant", "bee", "cat", "d\nd"], "it lacks 'd d'"),
        (["ant", "bee", "dog"], "it has 'cat' and lacks 'dog'"),
        (list("abcde"), "it has 'ant', 'bee', 'cat' and lacks 'a', 'b', 'c' and 2 more"),
    ],
)
def test_the_difference_between_classes_is_named(now, line):
    with pytest.raises(NoisyLabelError) as error:
        check_same_names(["ant", "bee", "cat"], now)
    assert str(error.value) == (
        f"The checkpoint was trained on other classes than these data have: {line}; use the classes it was trained on, "
        "in their order."
    )


def labels_for(tmp_path, arrays, key=None, **features):
    np.savez(tmp_path / "labels.npz", **arrays)
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 1)), y=[0, 1, 2], **features)
    data = FeaturesDataModule(tmp_path / "x.npz", FileNoise(tmp_path / "labels.npz", key), standardize=None)
    data.setup("fit")
    return data.noisy_targets.tolist()


def test_labels_find_their_samples_and_classes(tmp_path):
    known = {"path": ["a", "b", "c"], "class_names": ["p", "q", "r"]}
    shuffled = {"labels": [0, 1, 1, 0], "path": ["c", "a", "more", "b"], "class_names": ["r", "p"]}
    assert labels_for(tmp_path, shuffled, **known) == [0, 2, 2]
    assert labels_for(tmp_path, {"labels": [2, 0, 1], "row": [2, 0, 1]}) == [0, 1, 2]
    beside = {"labels": [2, 0, 1], "other": [0, 0, 0], "path": ["b", "c", "a"]}
    assert labels_for(tmp_path, beside, "labels", **known) == [1, 2, 0]


@pytest.mark.parametrize(
    ("arrays", "line"),
    [
        (
            {"labels": [0, 1], "path": ["a", "c"]},
            "labels of all 3 training samples, but got none for 1 of them, the fi",
        ),
        ({"labels": [0, 1, 2, 2], "path": ["a", "b", "c", "a"]}, "one label for each sample, but got two for 'a'"),
        ({"labels": [0, 1, 2], "row": [0, 1, 2]}, "the path of each label, but got its row"),
        (
            {"labels": [0, 1, 2], "path": ["a", "b", "c"], "class_names": ["p", "q", "zoo"]},
            "labels of the 3 classes of the data, but got 'zoo'",
        ),
        ({"labels": [0, 1, 2], "path": ["a", "b"]}, r"one per path, shape \(2,\), but got shape \(3,\)"),
        ({"labels": [0, 1, 9], "path": ["a", "b", "c"]}, r"labels in \[0, 3\), but got 9"),
    ],
)
def test_labels_of_other_samples_are_refused(tmp_path, arrays, line):
    with pytest.raises(NoisyLabelError, match=line) as error:
        labels_for(tmp_path, arrays, path=["a", "b", "c"], class_names=["p", "q", "r"])
    assert "\n" not in str(error.value)
