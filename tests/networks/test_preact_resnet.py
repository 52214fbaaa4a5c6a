import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.networks import PreActResNet, PreActResNet18, PreActResNet34, WideResNet


def number_of_parameters(blocks, widths, stem, channels, he):
    """From the layers: convolutions without bias, two parameters a channel in each batch normalization."""
    total = 9 * channels * stem + (2 * widths[-1] if he else 2 * stem)
    before = stem
    for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
        for block in range(count):
            total += 2 * before + 9 * before * width + 2 * width + 9 * width * width
            total += before * width if before != width or (stage and not block) else 0
            before = width
    return total


def on_meta(network, **arguments):
    with torch.device("meta"):
        return network(**arguments)


def size_of(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("network", "blocks"), [(PreActResNet18, (2, 2, 2, 2)), (PreActResNet34, (3, 4, 6, 3))])
@pytest.mark.parametrize("variant", ["dividemix", "he"])
def test_number_of_parameters(network, blocks, variant):
    expected = number_of_parameters(blocks, (64, 128, 256, 512), 64, 3, variant == "he")
    assert size_of(on_meta(network, variant=variant)) == expected
    documented = {"dividemix": f"{expected:,} parameters with", "he": f'``variant="he"``\n    has {expected:,}'}
    assert documented[variant] in network.__doc__
    assert f"{expected + 5130:,}" in network.__doc__


def test_number_of_parameters_of_the_wide_network_is_the_papers():
    model = nn.Sequential(on_meta(WideResNet), on_meta(nn.Linear, in_features=640, out_features=10))
    assert size_of(model) == 36_479_194
    assert "36,479,194" in WideResNet.__doc__
    assert f"{36_479_194 - 6410:,} parameters" in WideResNet.__doc__


@pytest.mark.parametrize("variant", ["dividemix", "he"])
def test_number_of_parameters_with_other_numbers(variant):
    backbone = PreActResNet([1, 2, 1], [6, 6, 9], stem_width=5, in_channels=2, variant=variant)
    assert size_of(backbone) == number_of_parameters([1, 2, 1], [6, 6, 9], 5, 2, variant == "he")


def norm(tensors, prefix, maps):
    weight, bias, mean, variance = (
        tensors.pop(f"{prefix}.{name}")[:, None, None] for name in ("weight", "bias", "running_mean", "running_var")
    )
    return ((maps - mean) / (variance + 1e-5).sqrt() * weight + bias).clamp(min=0)


def features_by_hand(tensors, images, strides, he):
    """The published layers in evaluation; ``strides`` has one number for each block."""
    tensors = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    maps = F.conv2d(images, tensors.pop("stem.0.weight"), padding=1)
    if not he:
        maps = norm(tensors, "stem.1.0", maps)
    for i, stride in enumerate(strides):
        key = f"blocks.{i}"
        inner = norm(tensors, f"{key}.bn1", maps)
        projection = tensors.pop(f"{key}.shortcut.weight", None)
        if projection is not None:
            shortcut = torch.einsum("oc,bchw->bohw", projection[:, :, 0, 0], inner[:, :, ::stride, ::stride])
        else:
            shortcut = maps if he else inner
        outer = F.conv2d(inner, tensors.pop(f"{key}.conv1.weight"), stride=stride, padding=1)
        outer = norm(tensors, f"{key}.bn2", outer)
        maps = F.conv2d(outer, tensors.pop(f"{key}.conv2.weight"), padding=1) + shortcut
    if he:
        maps = norm(tensors, "pool.0.0", maps)
    assert not tensors
    return maps.mean(dim=(2, 3))


@pytest.mark.parametrize(
    ("network", "strides", "he"),
    [
        (lambda: PreActResNet([2, 2, 2, 2]), (1, 1, 2, 1, 2, 1, 2, 1), False),
        (lambda: PreActResNet([2, 2, 2, 2], variant="he"), (1, 1, 2, 1, 2, 1, 2, 1), True),
        (lambda: PreActResNet([2, 1, 3], [8, 8, 12], 6, 3, "he"), (1, 1, 2, 2, 1, 1), True),
        (lambda: PreActResNet([2, 1, 3], [8, 8, 12], 6), (1, 1, 2, 2, 1, 1), False),
        (lambda: WideResNet(16, 2), (1, 1, 2, 1, 2, 1), True),
    ],
    ids=["dividemix", "he", "small_he", "small_dividemix", "wide"],
)
def test_features_are_those_of_the_published_layers(network, strides, he):
    torch.manual_seed(0)
    backbone = network().double()
    images = torch.randn(2, 3, 20, 16, dtype=torch.float64)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.7
            nn.init.normal_(module.bias, std=0.3)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    backbone(images)
    features = backbone.eval()(images)
    assert (features.min() >= 0) == he
    torch.testing.assert_close(features, features_by_hand(backbone.state_dict(), images, strides, he))


@pytest.mark.parametrize(
    ("network", "blocks", "widths"),
    [
        (PreActResNet18, (2, 2, 2, 2), (64, 128, 256, 512)),
        (PreActResNet34, (3, 4, 6, 3), (64, 128, 256, 512)),
        (WideResNet, (4, 4, 4), (160, 320, 640)),
    ],
)
def test_sizes_and_widths_of_the_stages(network, blocks, widths):
    backbone, sizes = on_meta(network), []
    for block in backbone.blocks:
        block.register_forward_hook(lambda _, __, output: sizes.append(tuple(output.shape[1:])))
    backbone(torch.randn(2, 3, 32, 32, device="meta"))
    expected = []
    for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
        expected += count * [(width, 32 // 2**stage, 32 // 2**stage)]
    assert sizes == expected
    assert backbone.num_features == widths[-1]


def test_weights_start_as_torchs_or_as_the_authors():
    torch.manual_seed(0)
    for variant, spread in (("dividemix", lambda c: 1 / math.sqrt(3 * c.weight[0].numel())), ("he", None)):
        backbone = PreActResNet([1, 2], [64, 128], variant=variant)
        convolutions = [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]
        assert len(convolutions) == 8
        for convolution in convolutions:
            fan_out = convolution.weight[:, 0].numel()
            expected = spread(convolution) if spread else math.sqrt(2 / fan_out)
            std = convolution.weight.std().item()
            assert std == pytest.approx(expected, rel=0.06)
            is_normal = convolution.weight.abs().max().item() > 2 * std
            assert is_normal == (variant == "he")


def test_names_of_the_tensors_stay():
    statistics = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

    def keys(*layers):
        names = []
        for layer in layers:
            is_norm = "bn" in layer or layer in ("stem.1.0", "pool.0.0")
            names += [f"{layer}.{name}" for name in (statistics if is_norm else ("weight",))]
        return names

    block = ("bn1", "conv1", "bn2", "conv2")
    blocks = [f"blocks.0.{name}" for name in block] + [f"blocks.1.{name}" for name in (*block, "shortcut")]
    dividemix, he = (PreActResNet([1, 1], [4, 4], 4, variant=variant) for variant in ("dividemix", "he"))
    assert list(dividemix.state_dict()) == keys("stem.0", "stem.1.0", *blocks)
    assert list(he.state_dict()) == keys("stem.0", *blocks, "pool.0.0")


@pytest.mark.parametrize(
    ("network", "size", "batch_size"),
    [(PreActResNet18, 9, 1), (PreActResNet18, 8, 2), (PreActResNet18, 28, 1), (WideResNet, 5, 1), (WideResNet, 4, 2)],
)
def test_image_sizes_in_training(network, size, batch_size):
    backbone = on_meta(network)
    features = backbone(torch.randn(batch_size, 3, size, size, device="meta"))
    assert features.shape == (batch_size, backbone.num_features)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blocks": (2, 2, 2)}, "`blocks` to be 4 positive ints, one for each of `widths`, but got"),
        ({"blocks": (2, 0, 2, 2)}, "`blocks` to be 4 positive ints, one for each of `widths`, but got"),
        ({"blocks": (), "widths": ()}, "`widths` to be positive ints, at least one, but got"),
        ({"blocks": (1, 1), "widths": (4, 0)}, "`widths` to be positive ints, at least one, but got"),
        ({"blocks": (1, 1, 1, 1), "stem_width": 0}, "`stem_width` to be an int of at least 1, but got 0"),
        ({"blocks": (1, 1, 1, 1), "in_channels": -1}, "`in_channels` to be an int of at least 1, but got -1"),
        ({"blocks": (1, 1, 1, 1), "variant": "plain"}, "`variant` to be 'dividemix' or 'he', but got 'plain'"),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(NoisyLabelError, match=message):
        PreActResNet(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 27}, r"`depth` to be one of 10, 16, 22, 28, \.\.\., but got 27"),
        ({"depth": 4}, r"`depth` to be one of 10, 16, 22, 28, \.\.\., but got 4"),
        ({"width": 0}, "`width` to be an int of at least 1, but got 0"),
        ({"in_channels": 0}, "`in_channels` to be an int of at least 1, but got 0"),
    ],
)
def test_the_wide_network_refuses_bad_arguments(arguments, message):
    with pytest.raises(NoisyLabelError, match=message):
        WideResNet(**arguments)


@pytest.mark.parametrize("network", [PreActResNet18, PreActResNet34])
def test_arguments_are_passed_on(network):
    backbone = on_meta(network, in_channels=1, variant="he")
    assert backbone.stem[0].in_channels == 1
    assert isinstance(backbone.stem[1], nn.Identity)
