import pytest
import torch
from torch import nn

from lightning_noisy.networks import LoneSampleBatchNorm1d


def pair(**arguments):
    """The layer and torch's own, with the same random parameters and statistics."""
    torch.manual_seed(0)
    plain = nn.BatchNorm1d(5, **arguments)
    with torch.no_grad():
        for tensor in [*plain.parameters(), *plain.buffers()]:
            tensor.copy_(torch.rand(tensor.shape) + 0.5)
    layer = LoneSampleBatchNorm1d(5, **arguments)
    layer.load_state_dict(plain.state_dict(), strict=True)
    return layer, plain


def state(layer):
    return {name: tensor.clone() for name, tensor in layer.state_dict().items()}


def test_state_dict_keys_are_those_of_the_plain_layer():
    layer, plain = pair()
    assert list(layer.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize("shape", [(1, 5), (1, 5, 1)])
@pytest.mark.parametrize("arguments", [{}, {"eps": 0.1}, {"affine": False}, {"momentum": None}])
def test_a_lone_training_sample_is_normalized_with_the_running_statistics_and_leaves_them(shape, arguments):
    layer, plain = pair(**arguments)
    before = state(layer)
    sample = torch.randn(shape)
    torch.testing.assert_close(layer(sample), plain.eval()(sample))
    assert layer.training
    torch.testing.assert_close(state(layer), before, rtol=0, atol=0)


def test_a_lone_training_sample_has_gradients():
    layer, plain = pair()
    sample = torch.randn(1, 5, requires_grad=True)
    layer(sample).square().sum().backward()
    gradient, sample.grad = sample.grad, None
    plain.eval()(sample).square().sum().backward()
    torch.testing.assert_close(gradient, sample.grad)
    torch.testing.assert_close(layer.weight.grad, plain.weight.grad)
    torch.testing.assert_close(layer.bias.grad, plain.bias.grad)


@pytest.mark.parametrize("shape", [(2, 5), (7, 5), (1, 5, 3), (4, 5, 1)])
def test_other_training_batches_are_those_of_the_plain_layer(shape):
    layer, plain = pair()
    batch = torch.randn(shape)
    assert torch.equal(layer(batch), plain(batch))
    torch.testing.assert_close(state(layer), state(plain), rtol=0, atol=0)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_evaluation_is_that_of_the_plain_layer(batch_size):
    layer, plain = pair()
    batch = torch.randn(batch_size, 5)
    assert torch.equal(layer.eval()(batch), plain.eval()(batch))


def test_without_running_statistics_torch_refuses_a_lone_sample():
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        LoneSampleBatchNorm1d(5, track_running_stats=False)(torch.randn(1, 5))
