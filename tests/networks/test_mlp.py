import jsonargparse
import numpy as np
import pytest
import torch
from torch import nn

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.networks import MLP


def arrays(module):
    return {name: value.double().numpy() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("hidden", [(512,), (8, 3), (4, 6, 5), [7]])
def test_layers_are_linear_with_relu(hidden):
    torch.manual_seed(0)
    backbone, x = MLP(5, hidden), 100 * torch.randn(9, 5)
    expected = x.double().numpy()
    weights = list(arrays(backbone).values())
    for weight, bias in zip(weights[::2], weights[1::2], strict=True):
        expected = np.maximum(expected @ weight.T + bias, 0)

    assert np.allclose(backbone(x).detach(), expected, atol=1e-3)
    assert backbone.num_features == hidden[-1]
    assert [len(weight) for weight in weights[::2]] == list(hidden)


def test_batch_normalization_lies_between_linear_layer_and_relu():
    torch.manual_seed(0)
    backbone, x = MLP(5, (6,), batch_norm=True), torch.randn(9, 5)
    state = arrays(backbone)
    linear = x.double().numpy() @ next(value for value in state.values() if value.shape == (6, 5)).T
    expected = (linear - linear.mean(axis=0)) / np.sqrt(linear.var(axis=0) + 1e-5)

    assert np.allclose(backbone(x).detach(), np.maximum(expected, 0), atol=1e-5)
    assert not any(name.endswith("0.bias") for name in state)


@pytest.mark.parametrize("options", [{}, {"dropout": 0.5, "batch_norm": True}])
def test_without_hidden_layers_features_pass_unchanged(options):
    backbone, x = MLP(5, (), **options), torch.randn(3, 5)

    assert torch.equal(backbone(x), x)
    assert backbone.num_features == 5
    assert not backbone.state_dict()


def test_the_input_is_left_alone():
    x = torch.randn(4, 5)
    before = x.clone()
    MLP(5, (5, 5))(x)
    assert torch.equal(x, before)


def test_every_hidden_layer_drops_in_training_only():
    torch.manual_seed(0)
    backbone, x = MLP(5, (400, 300), dropout=0.75), torch.randn(50, 5)
    shares = []
    hook = lambda module, inputs, output: shares.append(((output == 0) & (inputs[0] > 0)).sum() / (inputs[0] > 0).sum())  # noqa: E731
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(hook)
    backbone(x)

    assert len(shares) == 2
    assert all(abs(share - 0.75) < 0.03 for share in shares)
    assert torch.equal(backbone.eval()(x), backbone(x))
    assert shares[2:] == [0, 0, 0, 0]


def test_a_training_batch_of_one_sample_with_batch_normalization():
    assert MLP(5, (6, 4), batch_norm=True)(torch.randn(1, 5)).isfinite().all()


def test_the_default_is_one_layer_of_512():
    assert MLP(192).num_features == 512
    assert sum(parameter.numel() for parameter in MLP(192).parameters()) == 193 * 512


@pytest.mark.parametrize(("text", "hidden"), [("[8, 3]", [8, 3]), ("[]", []), ("[16]", [16])])
def test_from_yaml(text, hidden):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(nn.Module, "backbone")
    given = f"{{class_path: lightning_noisy.networks.MLP, init_args: {{in_features: 4, hidden: {text}}}}}"
    config = parser.parse_args([f"--backbone={given}"])
    instantiate = getattr(parser, "instantiate", parser.instantiate_classes)  # the name before jsonargparse 4.49

    for parsed in (config, parser.parse_string(parser.dump(config))):
        assert instantiate(parsed).backbone.num_features == [4, *hidden][-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_features": 0}, "`in_features` to be an int of at least 1, but got 0"),
        ({"in_features": 4, "hidden": (8, 0)}, r"`hidden` to be positive ints, but got \(8, 0\)"),
        ({"in_features": 4, "hidden": [-1]}, r"`hidden` to be positive ints, but got \[-1\]"),
        ({"in_features": 4, "dropout": 1.0}, r"`dropout` to be a float in \[0, 1\), but got 1.0"),
        ({"in_features": 4, "dropout": -0.1}, r"`dropout` to be a float in \[0, 1\), but got -0.1"),
        ({"in_features": 4, "dropout": float("nan")}, r"`dropout` to be a float in \[0, 1\), but got nan"),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(NoisyLabelError, match=message):
        MLP(**arguments)


@pytest.mark.parametrize("hidden", [(8,), ()])
@pytest.mark.parametrize("shape", [(3, 5), (4,), (3, 1, 4), (3, 1, 2, 2)])
def test_refuses_other_features(hidden, shape):
    with pytest.raises(NoisyLabelError) as error:
        MLP(4, hidden)(torch.zeros(shape))
    assert str(error.value) == f"Expected argument `features` to be of shape (B, 4), but got {shape}."
