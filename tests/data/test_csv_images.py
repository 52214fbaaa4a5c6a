import csv

import pytest
import torch

from lightning_noisy.data import CSVDataModule, SymmetricNoise
from lightning_noisy.errors import NoisyLabelError
from tests._dummies import numbers, write_image

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def write_table(path, rows, header=("image", "label"), delimiter=",", encoding="utf-8", images=True):
    """A table, and image i of ``rows`` (its first column), numbered 8 i, beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    for i, row in enumerate(rows if images else []):
        write_image(path.parent / row[0], 8 * i)
    return str(path)


def ready(table, **options):
    data = CSVDataModule(table, **{"image_size": 8, "resize": 0, "num_workers": 0, "seed": 0, **options})
    data.setup("fit")
    return data


def read(loader):
    """Which images these are, and the rest."""
    images, *others = (torch.cat(parts) for parts in zip(*loader, strict=True))
    return (numbers(images, MEAN, STD) / 8).round().astype(int).tolist(), *(part.tolist() for part in others)


def rows_of(labels):
    return [(f"{i}.jpg", label) for i, label in enumerate(labels)]


def test_names_are_sorted(tmp_path):
    data = ready(write_table(tmp_path / "t.csv", rows_of(["wasp", "ant", "bee", "ant", "Wasp"])))

    assert data.class_names == ["Wasp", "ant", "bee", "wasp"]
    assert data.num_classes == 4
    images, target, index = read(data.train_dataloader())
    assert images == index
    assert sorted(index) == list(range(5))
    assert target == [[3, 1, 2, 1, 0][i] for i in index]
    assert data.noisy_targets.tolist() == [3, 1, 2, 1, 0]
    assert data.clean_targets is None
    assert data.validation_splits == ()


def test_integers_are_taken_as_they_are(tmp_path):
    labels = [10, 2, *range(12)]
    data = ready(write_table(tmp_path / "t.csv", rows_of(labels)))
    assert data.noisy_targets.tolist() == labels
    assert data.class_names == [str(i) for i in range(12)]


@pytest.mark.parametrize(("labels", "last", "absent"), [([1, 2, 3], 3, 0), ([0, 1, 3, 4], 4, 2)])
def test_integers_with_a_gap_are_refused(tmp_path, labels, last, absent):
    table = write_table(tmp_path / "t.csv", rows_of(labels))
    match = f"names, or all of the integers 0 to {last}, but {absent} does not occur: pass `class_names`"
    with pytest.raises(NoisyLabelError, match=match):
        ready(table)
    names = [str(i) for i in range(6)]
    assert ready(table, class_names=names).noisy_targets.tolist() == labels


def test_integers_among_names_are_names(tmp_path):
    data = ready(write_table(tmp_path / "t.csv", rows_of(["10", "9", "x"])))
    assert data.class_names == ["10", "9", "x"]


def test_given_names_say_the_order(tmp_path):
    table = write_table(tmp_path / "t.csv", rows_of(["b", "a", "b"]))
    data = ready(table, class_names=["c", "b", "a"])
    assert (data.num_classes, data.noisy_targets.tolist()) == (3, [1, 2, 1])
    with pytest.raises(NoisyLabelError, match=r"^Row 3 of '.*t\.csv' \(image '1\.jpg'\) has the label 'a', which is"):
        ready(table, class_names=["c", "b"])


def test_columns_root_and_delimiter(tmp_path):
    rows = [(i, f"deep/{i}.png", "ab"[i % 2]) for i in range(4)]
    table = write_table(tmp_path / "lists" / "t.csv", rows, ("number", "file name", "species"), ";", images=False)
    for i, path, _ in rows:
        write_image(tmp_path / "photos" / path, 8 * i)
    data = ready(table, image_column="file name", label_column="species", root=str(tmp_path / "photos"), delimiter=";")
    images, target, _ = read(data.train_dataloader())
    assert sorted(images) == [0, 1, 2, 3]
    assert target == [i % 2 for i in images]


def test_tables_of_spreadsheets(tmp_path):
    path = tmp_path / "t.csv"
    write_table(path, [("ä, b.jpg", "größe"), ("c.jpg", " x ")], encoding="utf-8-sig")
    data = ready(str(path))
    assert data.class_names == ["größe", "x"]
    assert sorted(read(data.train_dataloader())[0]) == [0, 1]


def test_a_column_of_splits(tmp_path):
    splits = ["train", "test", "val", "train", "test", "val", "train"]
    rows = [(f"{i}.jpg", "ab"[i % 2], split) for i, split in enumerate(splits)]
    data = ready(write_table(tmp_path / "t.csv", rows, ("image", "label", "split")), split_column="split")

    assert data.validation_splits == ("val", "test")
    val, test = (read(loader) for loader in data.val_dataloader())
    assert val == ([2, 5], [0, 1])
    assert test == ([1, 4], [1, 0])
    images, target, index = read(data.train_dataloader())
    assert sorted(images) == [0, 3, 6]
    assert images == [[0, 3, 6][i] for i in index]
    assert target == [i % 2 for i in images]


def test_a_table_of_the_test_set(tmp_path):
    table = write_table(tmp_path / "t.csv", rows_of("abab"))
    other = write_table(tmp_path / "other.csv", [("x.jpg", "b"), ("y.jpg", "c")])
    data = ready(table, test_table=other)

    assert data.class_names == ["a", "b", "c"]
    assert read(data.test_dataloader()) == ([0, 1], [1, 2])
    assert len(data.noisy_targets) == 4


def test_a_table_of_the_test_set_and_a_split_of_it_are_refused(tmp_path):
    table = write_table(tmp_path / "t.csv", [("0.jpg", "a", "train"), ("1.jpg", "b", "test")], ("image", "label", "s"))
    with pytest.raises(NoisyLabelError, match="`test_table` to be None beside rows of the split 'test'"):
        ready(table, split_column="s", test_table=table)


HEADER = ("image", "label", "true", "split")
ROWS = [
    ("0.jpg", "a", "b", "train"),
    ("1.jpg", "b", "b", "train"),
    ("2.jpg", "a", "c", "train"),
    ("3.jpg", "a", "b", "val"),
    ("4.jpg", "b", "a", "test"),
]


@pytest.mark.parametrize("noisy_val", [True, False])
def test_clean_labels_beside_noisy_ones(tmp_path, noisy_val):
    table = write_table(tmp_path / "t.csv", ROWS, HEADER)
    data = ready(table, clean_column="true", split_column="split", noisy_val=noisy_val)

    assert data.class_names == ["a", "b", "c"]
    assert data.noisy_targets.tolist() == [0, 1, 0]
    assert data.clean_targets.tolist() == [1, 1, 2]
    assert data.realized_noise_rate == pytest.approx(2 / 3)
    assert read(data.val_dataloader()[0])[1] == [0 if noisy_val else 1]
    assert read(data.test_dataloader())[1] == [0]


@pytest.mark.parametrize("has_column", [True, False])
def test_a_test_table_is_evaluated_on_clean_labels_where_it_has_them(tmp_path, has_column):
    table = write_table(tmp_path / "t.csv", ROWS, HEADER)
    columns = 3 if has_column else 2
    other = write_table(tmp_path / "o.csv", [("5.jpg", "b", "a")[:columns]], HEADER[:columns])
    data = ready(table, clean_column="true", test_table=other)
    assert read(data.test_dataloader())[1] == [0 if has_column else 1]


def test_noise_makes_the_labels_clean(tmp_path):
    table = write_table(tmp_path / "t.csv", rows_of("abcabc"))
    data = ready(table, noise=SymmetricNoise(1.0))
    assert data.clean_targets.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.realized_noise_rate > 0
    with pytest.raises(NoisyLabelError, match="comes with noisy labels, but got noise="):
        ready(write_table(tmp_path / "u.csv", ROWS, HEADER), clean_column="true", noise=SymmetricNoise(1.0))


def test_missing_images_are_counted_and_named_by_their_row(tmp_path):
    table = write_table(tmp_path / "t.csv", rows_of("abab"))
    for i in (1, 3):
        (tmp_path / f"{i}.jpg").unlink()
    match = rf"^2 of 4 train images are not there, the first '{tmp_path}/1\.jpg' \(row 3 of '.*t\.csv'\): check `root`"
    with pytest.raises(NoisyLabelError, match=match):
        ready(table)


def test_left_out_rows_leave_no_gap(tmp_path):
    table = write_table(tmp_path / "t.csv", [*ROWS[:3], ("5.jpg", "c", "a", "train")], HEADER)
    (tmp_path / "1.jpg").unlink()
    (tmp_path / "0.jpg").write_bytes(b"none")
    with pytest.warns(UserWarning, match="2 of 4 train images cannot be read"):
        data = ready(table, clean_column="true", on_error="skip")
    images, target, index = read(data.train_dataloader())

    assert images == [[2, 3][i] for i in index]
    assert target == [[0, 2][i] for i in index]
    assert data.clean_targets.tolist() == [2, 0]
    assert [why for *_, why in data._problems.skipped] == ["cannot identify image file", "No such file or directory"]
    assert [row for *_, row, _ in data._problems.skipped] == [2, 3]


def test_rows_are_counted_by_lines(tmp_path):
    (tmp_path / "t.csv").write_text("image,label\n\n0.jpg,a\n\n\n1.jpg,\n")
    with pytest.raises(NoisyLabelError, match=r"^Row 6 of '.*t\.csv' \(image '1\.jpg'\) has nothing in column 'label'"):
        ready(str(tmp_path / "t.csv"))


@pytest.mark.parametrize(
    ("content", "options", "match"),
    [
        ("file,label\na,b\n", {}, "to have a column 'image', but got file, label: name the columns"),
        ("image;label\na;b\n", {}, "to have a column 'image', but got image;label: .* or set `delimiter`"),
        ("", {}, "to have a column 'image', but got none"),
        ("image,label\na,b\n", {"split_column": "split"}, "to have a column 'split', but got image, label"),
        ("image,label\na,b\n", {"clean_column": "clean"}, "to have a column 'clean', but got image, label"),
        ("image,label\na\n", {}, r"Row 2 .* has nothing in column 'label'"),
        ("image,label\n ,b\n", {}, r"Row 2 .* has nothing in column 'image'"),
        (
            "image,label,s\na,b,dev\n",
            {"split_column": "s"},
            r"row 2 .* 'train', 'val' or 'test' in column 's', but got",
        ),
        ("image,label,s\na,b,test\nc,d,test\n", {"split_column": "s"}, "The train set of CSVDataModule is empty"),
        ("image,label,label\na,b,c\n", {}, "t.csv' has 2 columns 'label': rename one"),
        ("image,label\na,b,c\n", {}, "Row 2 of '.*' has more fields than columns, the last 'c': quote what holds"),
        ("image,label,s\na,b,\n", {"split_column": "s"}, "Row 2 .* has nothing in column 's'"),
        ("image,label\n", {"class_names": ["a", "b"]}, "t.csv' to have a row for each image, but it has none"),
        ("image,label\na,b\n", {}, "`num_classes`"),
        ('image,label\n"a,b\n', {}, r"Cannot read the table '.*' \(.*\): save it as CSV in UTF-8"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, content, options, match):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(NoisyLabelError, match=match) as error:
        ready(str(tmp_path / "t.csv"), **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("clean_column", [None, "clean"])
def test_an_image_with_two_labels_is_named(tmp_path, clean_column):
    last = ("1.jpg", "b", "a") if clean_column else ("1.jpg", "a", "b")
    rows = [("0.jpg", "a", "a"), ("0.jpg", "a", "a"), ("1.jpg", "b", "b"), ("2.jpg", "a", "b"), last]
    table = write_table(tmp_path / "t.csv", rows, ("image", "label", "clean"))
    match = (
        r"An image of the train set is listed with two labels, '.*1\.jpg' \(row 4 of '.*t\.csv'\) as 'b' and .*row 6"
    )
    with pytest.raises(NoisyLabelError, match=match):
        ready(table, clean_column=clean_column)


def test_another_encoding_is_refused(tmp_path):
    (tmp_path / "t.csv").write_bytes("image,label\na,größe\n".encode("latin-1"))
    with pytest.raises(NoisyLabelError, match=r"^Cannot read the table '.*t\.csv' .* in UTF-8"):
        ready(str(tmp_path / "t.csv"))


@pytest.mark.parametrize("argument", ["table", "test_table"])
def test_a_missing_table_is_named(tmp_path, argument):
    table = write_table(tmp_path / "t.csv", rows_of("ab"))
    given = {"table": table, argument: str(tmp_path / "nowhere.csv")}
    with pytest.raises(NoisyLabelError, match=f"`{argument}` to be a CSV file, .* but got '.*nowhere.csv'"):
        ready(**given)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"delimiter": ""}, "`delimiter` to be one character"),
        ({"class_names": ["a", "b", "a"]}, "`class_names` to be names that differ"),
        ({"image_size": 0}, "`image_size`"),
    ],
)
def test_bad_arguments_are_refused_at_once(options, match):
    with pytest.raises(NoisyLabelError, match=match):
        CSVDataModule("nowhere.csv", **options)
