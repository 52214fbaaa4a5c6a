"""Noise models on the command line and in configuration files."""

import pytest

from lightning_noisy.data.noise import (
    AsymmetricNoise,
    FileNoise,
    LabelNoise,
    PairFlipNoise,
    SymmetricNoise,
    TransitionNoise,
)

YAML = [
    ("{class_path: SymmetricNoise, init_args: {rate: 0.4}}", SymmetricNoise(0.4)),
    ("{class_path: SymmetricNoise, init_args: {rate: 0.4, include_true_class: true}}", SymmetricNoise(0.4, True)),
    ("{class_path: AsymmetricNoise, init_args: {rate: 0.4, mapping: cifar10}}", AsymmetricNoise(0.4, "cifar10")),
    (
        "{class_path: AsymmetricNoise, init_args: {rate: 0.3, mapping: {0: 9, 7: 1}}}",
        AsymmetricNoise(0.3, {0: 9, 7: 1}),
    ),
    (
        "{class_path: AsymmetricNoise, init_args: {rate: 0.3, mapping: {'0': 9, '7': 1}}}",
        AsymmetricNoise(0.3, {0: 9, 7: 1}),
    ),
    ("{class_path: PairFlipNoise, init_args: {rate: 0.45}}", PairFlipNoise(0.45)),
    ("{class_path: FileNoise, init_args: {path: labels.npz, key: worse}}", FileNoise("labels.npz", "worse")),
    ("{class_path: FileNoise, init_args: {path: labels.npy}}", FileNoise("labels.npy")),
    ("{class_path: SymmetricNoise, init_args: {rate: 0.4, exact: true}}", SymmetricNoise(0.4, exact=True)),
    (
        "{class_path: AsymmetricNoise, init_args: {rate: 0.4, mapping: cifar100-blocks, sequential: true}}",
        AsymmetricNoise(0.4, "cifar100-blocks", sequential=True),
    ),
    ("{class_path: TransitionNoise, init_args: {matrix: [[0.9, 0.1], [0, 1]]}}", TransitionNoise([[0.9, 0.1], [0, 1]])),
    ("{class_path: TransitionNoise, init_args: {matrix: t.npy, exact: true}}", TransitionNoise("t.npy", exact=True)),
]


@pytest.mark.parametrize(("text", "expected"), YAML)
def test_models_come_from_yaml_and_survive_the_saved_config(text, expected):
    jsonargparse = pytest.importorskip("jsonargparse")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--noise", type=LabelNoise | None, default=None)
    text = text.replace("class_path: ", "class_path: lightning_noisy.data.noise.")

    config = parser.parse_args([f"--noise={text}"])
    again = parser.parse_string(parser.dump(config))

    instantiate = getattr(parser, "instantiate", parser.instantiate_classes)  # the name before jsonargparse 4.49
    for parsed in (config, again):
        assert instantiate(parsed).noise.describe() == expected.describe()
