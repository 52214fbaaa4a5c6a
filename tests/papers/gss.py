"""GSS (CVPR 2023): gradient switching."""

from tests.papers.settings import COSINE, CROSS_ENTROPY, Settings

ROWS = {
    "gss/cifar10": Settings(150, "ResNet18", 128, 0.01, 5e-4, COSINE, CROSS_ENTROPY, {"GradientSwitching": {}}),
}
