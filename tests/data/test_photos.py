"""Photos are read as people have them: each case is an image whose pixels are known."""

import io

import numpy as np
import pytest
from PIL import Image

from lightning_noisy.data.photos import read_photo
from lightning_noisy.errors import NoisyLabelError


def read(tmp_path, image, name="a.png", **options):
    image.save(tmp_path / name, **options)
    photo = read_photo(tmp_path / name)
    assert photo.mode == "RGB"
    return np.asarray(photo)


def test_sixteen_bits_become_the_upper_eight(tmp_path):
    values = np.array([[0, 255, 256, 65535]], dtype=np.uint16)
    for name in ("a.png", "a.tif"):
        assert read(tmp_path, Image.fromarray(values), name)[0, :, 0].tolist() == [0, 0, 1, 255]


def test_floats_are_shares_of_white(tmp_path):
    assert read(tmp_path, Image.fromarray(np.float32([[0, 0.5, 1]])), "a.tif")[0, :, 1].tolist() == [0, 128, 255]
    with pytest.raises(NoisyLabelError, match=r"float pixels outside \[0, 1\]"):
        read(tmp_path, Image.fromarray(np.float32([[0, 255]])), "b.tif")


def test_what_is_transparent_is_white(tmp_path):
    assert read(tmp_path, Image.new("RGBA", (1, 1), (10, 20, 30, 0)))[0, 0].tolist() == [255, 255, 255]
    assert read(tmp_path, Image.new("RGBA", (1, 1), (10, 20, 30, 255)))[0, 0].tolist() == [10, 20, 30]
    assert read(tmp_path, Image.new("LA", (1, 1), (0, 51)))[0, 0].tolist() == [204, 204, 204]
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    for transparency in (1, b"\xff\x00"):
        found = read(tmp_path, palette, transparency=transparency)
        assert found[0].tolist() == [[10, 20, 30], [255, 255, 255]]


def test_cmyk_and_gray(tmp_path):
    assert np.abs(read(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "a.jpg")[4, 4] - [255.0, 0, 0]).max() < 5
    assert read(tmp_path, Image.new("L", (1, 1), 77))[0, 0].tolist() == [77, 77, 77]
    assert read(tmp_path, Image.new("1", (1, 1), 1))[0, 0].tolist() == [255, 255, 255]


def test_the_orientation_of_the_camera_is_undone(tmp_path):
    lying = Image.new("RGB", (32, 16), "black")
    lying.paste((255, 255, 255), (0, 0, 16, 16))  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it clockwise: left becomes top
    found = read(tmp_path, lying, "a.jpg", exif=exif)
    assert found.shape == (32, 16, 3)
    assert found[2, 8].min() > 250
    assert found[30, 8].max() < 5


def test_broken_tags_do_not_hide_the_pixels(tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (9, 9, 9)).save(file, "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff junk")
    (tmp_path / "a.jpg").write_bytes(file.getvalue())
    assert read_photo(tmp_path / "a.jpg").size == (8, 8)


def test_the_suffix_does_not_matter_and_the_first_frame_counts(tmp_path):
    Image.new("RGB", (3, 2), (1, 2, 3)).save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(tmp_path / "x.jpg")
    assert read_photo(tmp_path / "x.jpg").getpixel((0, 0)) == (1, 2, 3)
    frames = [Image.new("L", (1, 1), value) for value in (0, 255)]
    assert read(tmp_path, frames[0], "a.gif", save_all=True, append_images=frames[1:])[0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_raises(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(Exception, match=r"cannot identify|truncated"):
        read_photo(tmp_path / "a.png")


def test_what_is_cut_short_raises(tmp_path):
    file = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(file, "JPEG")
    (tmp_path / "a.jpg").write_bytes(file.getvalue()[:1000])
    with pytest.raises(OSError, match="truncated"):
        read_photo(tmp_path / "a.jpg")
