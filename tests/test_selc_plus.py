"""SELC+: two runs, one after the other, as docs/recipes.md says them."""

import re
import shlex
from pathlib import Path

import numpy as np

from tests._dummies import DummyCIFAR10, isolate, quiet

ROOT = Path(__file__).parents[1]
SMALL = shlex.split(
    "--model.backbone lightning_noisy.networks.SmallCNN --model.backbone.in_channels 3 --model.backbone.width 4 "
    "--data.batch_size 8 --data.num_workers 0 --trainer.max_epochs 2 --trainer.accelerator cpu"
)
AT_ONCE = shlex.split("--trainer.callbacks.warmup_epochs 0 --trainer.callbacks.momentum 0")


def documented_commands():
    """Arguments of the commands that say where a first run's labels go."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "recipes.md").read_text(), re.DOTALL)
    (block,) = (block for block in blocks if "LabelWriter" in block)
    commands = [shlex.split(line) for line in block.splitlines()]
    assert [command[:3] for command in commands] == [["lightning-noisy", "fit", "--config"]] * 2
    return [command[3:] for command in commands]


def labels_of(folder):
    with np.load(Path(folder, "noisy_labels.npz")) as arrays:
        return arrays["noisy"]


def test_second_run_trains_on_the_labels_of_the_first(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)
    monkeypatch.setattr("lightning_noisy.data.cifar.CIFAR10", DummyCIFAR10)
    (base, *rest), second = documented_commands()
    first = quiet("fit", base, *AT_ONCE, *rest, *SMALL)
    with np.load(Path(first.trainer.log_dir, "labels.npz")) as arrays:
        corrected = arrays["labels"]
    assert (corrected != labels_of(first.trainer.log_dir)).any()
    (selc,) = (callback for callback in first.trainer.callbacks if type(callback).__name__ == "SELC")
    np.testing.assert_array_equal(corrected, selc.section.stores["target"].values.argmax(dim=1))
    again = quiet("fit", *second, *SMALL)
    assert Path(again.trainer.log_dir).parent == Path("runs", "selc_plus", "cifar10")
    np.testing.assert_array_equal(labels_of(again.trainer.log_dir), corrected)
    names = {type(callback).__name__ for callback in again.trainer.callbacks}
    assert "MixUp" in names
    assert not {"SELC", "LabelWriter"} & names
