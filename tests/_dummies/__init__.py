"""Small stand-ins for what tests cannot have."""

from tests._dummies.cifar import DummyCIFAR10, DummyCIFAR100, write_cifar
from tests._dummies.command_line import command_line_error, isolate, needs_command_line, quiet
from tests._dummies.features import write_features
from tests._dummies.image_sets import write_animal10n, write_clothing1m, write_imagenet, write_webvision
from tests._dummies.images import numbers, write_image, write_lines
from tests._dummies.mnist import write_idx, write_mnist
from tests._dummies.two_networks import CoTeaching

__all__ = [
    "CoTeaching",
    "DummyCIFAR10",
    "DummyCIFAR100",
    "command_line_error",
    "isolate",
    "needs_command_line",
    "numbers",
    "quiet",
    "write_animal10n",
    "write_cifar",
    "write_clothing1m",
    "write_features",
    "write_idx",
    "write_image",
    "write_imagenet",
    "write_lines",
    "write_mnist",
    "write_webvision",
]
