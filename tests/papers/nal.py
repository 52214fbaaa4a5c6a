"""NAL and what it compares with: ELR."""

from tests.papers.settings import RESTARTS, Settings

# NAL's code counts epochs from 1 and begins at es = 60.
NAL = {"SELC": {"momentum": 0.9, "warmup_epochs": 60 - 1, "every_n_epochs": 10, "floor": 1e-4}}
ELR = {"EarlyLearningRegularization": {"lam": 3.0, "momentum": 0.7}}

ROWS = {
    "nal/cifar10": Settings(500, "ResNet34", 64, 0.02, 1e-3, RESTARTS, {"NoiseAttentionLoss": {"lam": 0.5}}, NAL),
    "elr/cifar10": Settings(150, "ResNet34", 128, 0.02, 1e-3, RESTARTS, ELR, {}, val=0.1),
}
