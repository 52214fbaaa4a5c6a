"""Noise models on the command line and in configuration files."""

import json

import numpy as np
import pytest

from lightning_noisy.data import DigitsDataModule
from lightning_noisy.data.noise import (
    AsymmetricNoise,
    FileNoise,
    InstanceDependentNoise,
    LabelNoise,
    OpenSetNoise,
    PairFlipNoise,
    PMDNoise,
    SymmetricNoise,
    TransitionNoise,
)
from tests._dummies.command_line import command_line_error, isolate, quiet

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

# Models of models, and arguments that may be None
YAML += [
    ("{class_path: InstanceDependentNoise, init_args: {rate: 0.2, scale: 255}}", InstanceDependentNoise(0.2, 0.1, 255)),
    ("{class_path: PMDNoise, init_args: {type: 2, rate: 0.35, posterior: p.npz}}", PMDNoise(2, 0.35, "p.npz")),
    (
        "{class_path: PMDNoise, init_args: {type: 1, rate: null, posterior: p.npz, factor: 1.2, key: eta}}",
        PMDNoise(1, None, "p.npz", 1.2, "eta"),
    ),
    ("{class_path: OpenSetNoise}", OpenSetNoise()),
    (
        "{class_path: OpenSetNoise, init_args: {closed: {class_path: PairFlipNoise, init_args: {rate: 0.4}}}}",
        OpenSetNoise(PairFlipNoise(0.4)),
    ),
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


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A run on scikit-learn's digits that trains one batch."""
    isolate(monkeypatch, tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text(
        """
model:
  class_path: lightning_noisy.NoisyLabelModule
  init_args:
    backbone: {class_path: lightning_noisy.networks.SmallCNN, init_args: {in_channels: 1, width: 4, num_features: 8}}
    head: lightning_noisy.heads.LinearHead
    loss: torch.nn.CrossEntropyLoss
    num_classes: 10
data:
  class_path: lightning_noisy.data.DigitsDataModule
  init_args: {val_fraction: 0.2, seed: 0}
trainer:
  max_epochs: 1
  limit_train_batches: 1
  limit_val_batches: 1
  accelerator: cpu
  logger:
    class_path: lightning.pytorch.loggers.CSVLogger
    init_args: {save_dir: runs, name: run}
"""
    )
    return path


def manifest(folder):
    return json.loads((folder / "runs/run/version_0/noise.json").read_text())


def test_a_run_sees_its_images(config, tmp_path):
    quiet("fit", config, "--data.noise", "InstanceDependentNoise", "--data.noise.rate", 0.4)

    found = manifest(tmp_path)
    assert found["noise"] == {"class": "InstanceDependentNoise", "rate": 0.4, "std": 0.1, "scale": 1.0}
    assert found["realized_rate"] == pytest.approx(0.4, abs=0.05)
    assert (tmp_path / "runs/run/version_0/figures/transition.png").exists()


def test_a_run_takes_the_probabilities_of_a_file(config, tmp_path, capsys):
    labels = DigitsDataModule().training_images().labels
    guesses = np.random.default_rng(0).dirichlet(np.ones(10), len(labels))
    np.save("posterior.npy", 0.8 * guesses + 0.2 * np.eye(10)[labels])
    noise = ["--data.noise", "PMDNoise", "--data.noise.type", 1, "--data.noise.posterior", "posterior.npy"]

    assert "`rate` to lie between 0." in command_line_error(capsys, config, *noise, "--data.noise.rate", 0)
    quiet("fit", config, *noise, "--data.noise.rate", 0.5, "--trainer.logger.version", 0)
    assert manifest(tmp_path)["realized_rate"] == pytest.approx(0.5, abs=0.05)
