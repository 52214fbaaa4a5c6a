import gzip
import struct
from pathlib import Path

import numpy as np

NUM_TRAIN, NUM_TEST = 40, 20


def write_mnist(root, name="MNIST", packed=False):
    """The four idx files of MNIST or FashionMNIST under ``root``, of 40 and 20 images of noise.

    Returns part -> (images uint8 (N, 28, 28), labels uint8 (N,)) for the parts "train" and "t10k".
    """
    folder = Path(root, name, "raw")
    folder.mkdir(parents=True)
    written = {}
    for part, count in {"train": NUM_TRAIN, "t10k": NUM_TEST}.items():
        images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) * 7 % 10).astype(np.uint8)
        for kind, values in {"images-idx3": images, "labels-idx1": labels}.items():
            write_idx(folder / f"{part}-{kind}-ubyte", values, packed)
        written[part] = images, labels
    return written


def write_idx(path, values, packed=False):
    """Bytes in the idx format: a magic number that ends in the number of sizes, the sizes, the values, big-endian."""
    content = struct.pack(f">{1 + values.ndim}i", 0x800 + values.ndim, *values.shape) + values.tobytes()
    if packed:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
    else:
        path.write_bytes(content)
