import numpy as np
import pytest
import torch
from PIL import Image

from lightning_noisy.data.image_files import class_folders, images_in_folders, is_integer, read_pairs, sorted_names
from lightning_noisy.data.image_list import ImageList
from lightning_noisy.errors import NoisyLabelError
from tests._dummies import write_image, write_lines


def listed(root, names, **options):
    return ImageList.of(root, names, range(len(names)), **options)


# ImageList


@pytest.mark.parametrize("name", ["a.jpg", "deep/er/b.png", "Straße/ä ö.webp", "c.BMP"])
def test_images_are_decoded_to_rgb(tmp_path, name):
    write_image(tmp_path / name, 200, size=(7, 5))
    image = listed(tmp_path, [name])[0]

    assert (image.mode, image.size) == ("RGB", (7, 5))
    assert np.abs(np.array(image).astype(int) - [200, 55, 128]).max() <= 3


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_images_of_other_colors_become_rgb(tmp_path, mode):
    kind = "tif" if mode == "CMYK" else "png"
    Image.new(mode, (4, 4)).save(tmp_path / f"a.{kind}")
    assert listed(tmp_path, [f"a.{kind}"])[0].mode == "RGB"


def test_absolute_paths_stand_for_themselves(tmp_path):
    write_image(tmp_path / "a.png", 9)
    assert listed("elsewhere", [str(tmp_path / "a.png")])[0].getpixel((0, 0)) == (9, 246, 128)


def test_the_root_may_begin_with_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_image(tmp_path / "data" / "a.png")
    images = listed("~/data", ["a.png"])
    assert images[0].size == (12, 10)
    assert not images.missing()


def broken(folder):
    """Files of many kinds that are no images, each with what the message says of it."""
    write_image(folder / "whole.jpg", 5, size=(64, 64))
    whole = (folder / "whole.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("not found")
    write_image(folder / "x.png")
    damaged = bytearray((folder / "x.png").read_bytes())
    damaged[20] ^= 255
    (folder / "x.png").write_bytes(damaged)
    (folder / "folder.jpg").mkdir()
    return {
        "truncated.jpg": "runcated",
        "empty.png": "cannot identify image file",
        "text.jpg": "cannot identify image file",
        "x.png": "",
        "folder.jpg": "Is a directory",
        "gone.jpg": "No such file or directory",
    }


def test_what_cannot_be_read_is_named_with_path_and_row(tmp_path):
    for row, (name, reason) in enumerate(broken(tmp_path).items(), start=2):
        for source, where in ((None, ""), ("list.csv", f" (row {row} of 'list.csv')")):
            images = listed(tmp_path, [name], source=source, rows=None if source is None else [row])
            with pytest.raises(NoisyLabelError) as error:
                images[0]
            message = str(error.value)
            assert message.startswith(f"Cannot read image '{tmp_path / name}'{where}: ")
            assert reason in message
            assert "`on_error='skip'`" in message
            assert "\n" not in message


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_all_that_cannot_be_read_is_found(tmp_path, threads):
    reasons = broken(tmp_path)
    names = ["whole.jpg", *reasons, "whole.jpg"]
    found = listed(tmp_path, names).unreadable(threads)

    assert list(found) == list(range(1, len(reasons) + 1))
    assert all(reasons[names[index]] in why and why and str(tmp_path) not in why for index, why in found.items())


def test_more_images_than_one_part_are_checked(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_noisy.data.image_list._CHUNK", 4)
    write_image(tmp_path / "a.png")
    names = ["a.png" if i % 3 else "gone.png" for i in range(11)]
    assert list(listed(tmp_path, names).unreadable(2)) == [0, 3, 6, 9]


def checked(rank, images):
    return images.unreadable()


def test_processes_share_the_check_and_agree(pool, tmp_path):
    write_image(tmp_path / "a.png")
    names = ["a.png", "b.png", "c.png", "a.png", "d.png"]
    results = pool.run(checked, listed(tmp_path, names))

    assert [list(found) for found in results] == [[1, 2, 4]] * 2
    assert results[0] == results[1]


def test_missing_images_are_found_without_being_read(tmp_path):
    names = list(broken(tmp_path))
    images = listed(tmp_path, [*names, "nowhere/a.jpg", "nowhere/b.jpg", "whole.jpg"])
    assert images.missing() == [names.index("gone.jpg"), len(names), len(names) + 1]


def test_a_file_system_may_list_names_in_another_case(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png")
    monkeypatch.setattr("os.listdir", lambda folder: ["A.PNG"])
    assert listed(tmp_path, ["a.png", "b.png"]).missing() == [1]


def test_some_of_the_images(tmp_path):
    images = listed(tmp_path, ["a", "bcd", "e"], source="list", rows=[4, 6, 9], clean=[2, 0, 1])
    taken = images.take(torch.tensor([2, 1]))

    assert [taken.name(i) for i in range(len(taken))] == [
        f"'{tmp_path / 'e'}' (row 9 of 'list')",
        f"'{tmp_path / 'bcd'}' (row 6 of 'list')",
    ]
    assert (taken.labels.tolist(), taken.clean.tolist()) == ([2, 1], [1, 0])
    assert images.below(2).labels.tolist() == [0, 1]


def test_no_image_at_all(tmp_path):
    images = listed(tmp_path, [])
    assert (len(images), images.missing(), images.unreadable()) == (0, [], {})


# Names of classes


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["b", "a", "10"], ["10", "a", "b"]),
        (["10", "9", "0"], ["0", "9", "10"]),
        (["10", "09"], ["09", "10"]),
        (["-1", "2"], ["-1", "2"]),
        (["Z", "a"], ["Z", "a"]),
    ],
)
def test_classes_are_sorted(names, expected):
    assert sorted_names(names) == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("0", True), ("12", True), ("01", False), ("-1", False), ("1.0", False), ("", False)]
)
def test_integers(name, expected):
    assert is_integer(name) == expected


def test_digits_of_other_scripts_are_names():
    assert not is_integer("٣")
    assert not is_integer("²")


def test_images_in_folders_are_sorted_and_may_lie_deep(tmp_path):
    for path in ("b/2.jpg", "b/10.jpg", "b/deep/1.PNG", "a/z.jpeg", "c/x.gif.jpg"):
        write_image(tmp_path / "train" / path)
    for path in ("a/notes.txt", "a/.hidden.jpg", "b/Thumbs.db", ".cache/d.jpg", "readme.md"):
        write_lines(tmp_path / "train" / path, ["x"])

    names = class_folders(tmp_path / "train")
    images = images_in_folders(tmp_path, "train", names)

    assert names == ["a", "b", "c"]
    expected = ["a/z.jpeg", "b/10.jpg", "b/2.jpg", "b/deep/1.PNG", "c/x.gif.jpg"]
    assert [images.path(i) for i in range(len(images))] == [str(tmp_path / "train" / path) for path in expected]
    assert images.labels.tolist() == [0, 1, 1, 1, 2]


def test_linked_folders_are_followed(tmp_path):
    write_image(tmp_path / "elsewhere" / "1.jpg")
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "train" / "b").symlink_to(tmp_path / "elsewhere")
    images = images_in_folders(tmp_path, "train", class_folders(tmp_path / "train"))
    assert images.labels.tolist() == [0, 1]


def test_a_folder_of_no_class_is_refused(tmp_path):
    write_image(tmp_path / "test" / "dogs" / "a.jpg")
    with pytest.raises(NoisyLabelError, match="holds the folder 'dogs', which is none of the 2 classes"):
        images_in_folders(tmp_path, "test", ["cat", "dog"])


# Text files of paths and labels


def test_pairs(tmp_path):
    write_lines(tmp_path / "list.txt", ["a/b.jpg 3", "", "with space.jpg 0", "  c 12  "])
    assert read_pairs(tmp_path / "list.txt") == (["a/b.jpg", "with space.jpg", "c"], [3, 0, 12], [1, 3, 4])


@pytest.mark.parametrize("line", ["a.jpg", "a.jpg x", "a.jpg -1", "a.jpg 1.0", "3", "a.jpg,3"])
def test_lines_that_are_no_pairs(tmp_path, line):
    write_lines(tmp_path / "list.txt", ["a 1", line])
    with pytest.raises(NoisyLabelError, match=rf"^Expected line 2 of '.*list\.txt' to be `<path> <label>` .* '{line}'"):
        read_pairs(tmp_path / "list.txt")
