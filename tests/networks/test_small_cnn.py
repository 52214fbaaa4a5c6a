import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.networks import SmallCNN


@pytest.mark.parametrize(("channels", "width", "features"), [(1, 32, 128), (3, 5, 11)])
def test_number_of_parameters(channels, width, features):
    layers = [(channels, width), (width, width), (width, 2 * width), (2 * width, 2 * width), (2 * width, features)]
    expected = sum(9 * before * after + 2 * after for before, after in layers)
    backbone = SmallCNN(channels, width, features)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == expected
    assert 9 * (channels * width + 7 * width**2 + 2 * width * features) + 2 * (6 * width + features) == expected


def test_number_of_parameters_in_the_docstring():
    assert sum(parameter.numel() for parameter in SmallCNN().parameters()) == 139_168
    assert "139,168 parameters" in SmallCNN.__doc__


@pytest.mark.parametrize("size", [(4, 4), (8, 8), (28, 28), (32, 32), (9, 33)])
def test_image_sizes(size):
    assert SmallCNN(width=4, num_features=6)(torch.randn(2, 1, *size)).shape == (2, 6)


def test_a_training_batch_of_one_digit():
    assert SmallCNN()(torch.randn(1, 1, 8, 8)).isfinite().all()


def test_dropout_drops_that_share_of_the_features_in_training_only():
    torch.manual_seed(0)
    backbone, images = SmallCNN(dropout=0.75), torch.randn(200, 1, 8, 8)
    plain = SmallCNN()
    plain.load_state_dict(backbone.state_dict(), strict=True)
    dropped = (backbone(images) == 0).float().mean().item()
    zero = (plain(images) == 0).float().mean().item()
    assert dropped == pytest.approx(zero + (1 - zero) * 0.75, abs=0.02)
    assert torch.equal(backbone.eval()(images), backbone(images))


def test_learns_the_digits():
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    train, test = torch.randperm(len(labels)).split([1400, len(labels) - 1400])
    model = nn.Sequential(SmallCNN(width=16, num_features=64), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(5):
        for batch in train[torch.randperm(len(train))].split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    predicted = model.eval()(images[test]).argmax(dim=1)
    assert (predicted == labels[test]).float().mean() > 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0}, "`in_channels` to be an int of at least 1, but got 0"),
        ({"width": 0}, "`width` to be an int of at least 1, but got 0"),
        ({"width": -1}, "`width` to be an int of at least 1, but got -1"),
        ({"num_features": 0}, "`num_features` to be an int of at least 1, but got 0"),
        ({"dropout": 1.0}, r"`dropout` to be a float in \[0, 1\), but got 1.0"),
        ({"dropout": -0.1}, r"`dropout` to be a float in \[0, 1\), but got -0.1"),
        ({"dropout": float("nan")}, r"`dropout` to be a float in \[0, 1\), but got nan"),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(NoisyLabelError, match=message):
        SmallCNN(**arguments)
