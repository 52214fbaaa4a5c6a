"""PMD noise (PLC, ICLR 2021): the network whose posterior it is made from, as the code trains it."""

from tests.papers.settings import CROSS_ENTROPY, Settings


def posterior(data):
    """Clean labels and a constant rate."""
    sgd = {"momentum": 0.9, "nesterov": True}
    writer = {"PosteriorWriter": {}}
    return Settings(25, "ResNet34", 128, 0.001, 5e-4, {}, CROSS_ENTROPY, writer, noise={}, data=data, sgd=sgd)


ROWS = {"pmd/cifar10": posterior("CIFAR10DataModule"), "pmd/cifar100": posterior("CIFAR100DataModule")}
