import numpy as np
from PIL import Image


def write_image(path, number=0, size=(12, 10), **options):
    """An image file of one color, (number, 255 - number, 128), ``size`` wide and high; JPEG moves it by 2 at most."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (number, 255 - number, 128)).save(path, **options)


def write_lines(path, lines):
    """A text file of lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def numbers(images, mean, std):
    """The numbers of images that :func:`write_image` wrote, from normalized tensors (B, 3, H, W) of one color each."""
    mean, std = (np.array(values).reshape(3, 1, 1) for values in (mean, std))
    pixels = (images.double().numpy() * std + mean) * 255
    assert np.ptp(pixels, axis=(2, 3)).max() < 4
    means = pixels.mean(axis=(2, 3))
    assert np.abs(means[:, 0] + means[:, 1] - 255).max() < 5
    assert np.abs(means[:, 2] - 128).max() < 5
    return means[:, 0]
