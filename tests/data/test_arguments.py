"""The arguments that all data modules share are stated once, and the command line shows them for each."""

import inspect

import pytest
import yaml

from lightning_noisy import data
from lightning_noisy.data import ImageListDataModule, NoisyDataModule, TorchvisionDataModule
from tests._dummies import isolate, quiet

SHARED = {
    "noise": None,
    "batch_size": 128,
    "num_workers": 0,
    "val_fraction": 0.0,
    "noisy_val": True,
    "seed": None,
    "pin_memory": False,
    "backdoor": None,
    "data_on": "auto",
    "sharded": False,
}
OTHERWISE = {"DigitsDataModule": {"batch_size": 64}}
MODULES = sorted(name for name in data.__all__ if name.endswith("DataModule") and name != "NoisyDataModule")
NEEDED = {"FeaturesDataModule": ["--data.path", "f.npz"], "CSVDataModule": ["--data.table", "t.csv"]}


def concrete(name):
    return not inspect.isabstract(getattr(data, name))


@pytest.mark.parametrize("name", filter(concrete, MODULES))
def test_the_command_line_shows_them_all(name, tmp_path, monkeypatch, capsys):
    isolate(monkeypatch, tmp_path)
    kind = getattr(data, name)
    root = ["--data.root", "folder"] if "root" in inspect.signature(kind.__init__).parameters else []
    arguments = ["--data", name, *root, *NEEDED.get(name, []), "--data.noise", "null", "--print_config"]
    with pytest.raises(SystemExit):
        quiet("fit", "quickstart", *arguments)
    shown = yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]
    workers = {"num_workers": 2} if issubclass(kind, (ImageListDataModule, TorchvisionDataModule)) else {}
    kept = {"batch_size": 64}  # of the quickstart's own data module
    assert {key: shown[key] for key in SHARED} == {**SHARED, **workers, **OTHERWISE.get(name, {}), **kept}


def test_they_stand_in_one_signature():
    assert set(SHARED) == set(inspect.signature(NoisyDataModule.__init__).parameters) - {"self"}
    for name in MODULES:
        own = set(inspect.signature(getattr(data, name).__init__).parameters) & set(SHARED)
        assert own <= {"noise", "batch_size", "num_workers"}, name
