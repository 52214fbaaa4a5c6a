"""Data sets of image files in the layouts in which they are published, images of one color each."""

from tests._dummies.images import write_image, write_lines

WORDNET = [f"n{10000000 + 7 * i:08}" for i in range(60)]
"""Names of classes as ILSVRC12 has them."""

CLOTHING1M_LAYOUTS = {"A": ("label", ""), "B": ("", "images/"), "C": ("annotations", "")}
"""Folder of the lists, and what of the keys is left out of the paths."""

CLOTHING1M_FIRST = {"noisy_train": 0, "clean_train": 80, "clean_val": 120, "clean_test": 160}
"""Number of the first image of each list."""


def write_animal10n(root, labels):
    """Images 64 x 64, those of a set numbered 8 i + 4 in the order in which they are read.

    ``labels[folder]`` for the folders "training" and "testing".
    """
    for folder, values in labels.items():
        for i, name in enumerate(sorted(f"{label}_{i:03}_x_1.jpg" for i, label in enumerate(values))):
            write_image(root / folder / name, (8 * i + 4) % 256, size=(64, 64))


def write_webvision(root, train, val):
    """Image i of a list is numbered 8 i; those of labels above 49 are not there, as in a partial download."""
    images = [(f"google/q{label:04}/{i}.jpg", label) for i, label in enumerate(train)]
    others = [(f"val{i:06}.jpg", label) for i, label in enumerate(val)]
    write_lines(root / "info" / "train_filelist_google.txt", [f"{path} {label}" for path, label in images])
    write_lines(root / "info" / "val_filelist.txt", [f"{path} {label}" for path, label in others])
    for folder, entries in ((root, images), (root / "val_images_256", others)):
        for i, (path, label) in enumerate(entries):
            if label < 50:
                write_image(folder / path, 8 * i % 256)


def write_imagenet(root, names=WORDNET):
    """One validation image for each class, numbered 5 times its position among the names."""
    for i, name in enumerate(names):
        write_image(root / "val" / name / f"ILSVRC2012_val_{i:08}.JPEG", 5 * i % 256)


def clothing1m_keys(part, count):
    """The keys of a list."""
    return [f"images/{i}/{part}/{i},{i}.jpg" for i in range(count)]


def write_clothing1m(root, labels, layout="A"):
    """Image i of a list is numbered 8 i from its first on. Clean images have a noisy label as well, another one.

    ``labels[part]`` for the parts "noisy_train", "clean_train", "clean_val" and "clean_test".
    """
    place, left_out = CLOTHING1M_LAYOUTS[layout]
    lines = {"noisy": [], "clean": []}
    for part, values in labels.items():
        keys = clothing1m_keys(part, len(values))
        write_lines(root / place / f"{part}_key_list.txt", keys)
        for i, (key, label) in enumerate(zip(keys, values, strict=True)):
            noisy = part == "noisy_train"
            lines["noisy"].append(f"{key} {label if noisy else (label + 1) % 14}")
            lines["clean"] += [] if noisy else [f"{key} {label}"]
            write_image(root / key.removeprefix(left_out), (CLOTHING1M_FIRST[part] + 8 * i) % 256)
    for kind, entries in lines.items():
        write_lines(root / place / f"{kind}_label_kv.txt", entries[::-1])
