import numpy as np


def write_features(path, num_train=40, num_test=20, width=192, num_classes=10):
    """An archive laid out like the cached features of CIFAR-10: `x` float16, `y` uint8, the test set in the last rows.

    Feature k is high in class k, so that a linear layer can learn it; ``width`` is at least ``num_classes``.
    """
    count = num_train + num_test
    labels = (np.arange(count) * 7 % num_classes).astype(np.uint8)
    features = np.random.default_rng(0).normal(size=(count, width))
    features[np.arange(count), labels] += 4
    np.savez(path, x=features.astype(np.float16), y=labels)
