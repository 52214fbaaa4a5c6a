import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader, TensorDataset

from lightning_noisy import NoisyLabelError
from lightning_noisy.callbacks import PredictionWriter
from tests.foreign import make_trainer
from tests.small import make_module

IMAGES = TensorDataset(torch.randn(21, 1, 8, 8), torch.zeros(21, dtype=torch.int64))


def test_holds_every_probability_in_the_order_of_the_data(tmp_path):
    module = make_module(torch.nn.CrossEntropyLoss())
    make_trainer(tmp_path, [PredictionWriter()]).predict(module, DataLoader(IMAGES, 8))
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as file:
        assert file["index"].tolist() == list(range(21))
        with torch.no_grad():
            expected = module.eval()(IMAGES.tensors[0]).softmax(dim=1)
        np.testing.assert_allclose(file["probabilities"], expected.numpy(), rtol=1e-5)
        assert file["probabilities"].dtype == np.float32


def test_lies_in_the_run_folder(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="run")
    trainer = make_trainer(tmp_path, [PredictionWriter("p.npz")], logger=logger)
    trainer.predict(make_module(torch.nn.CrossEntropyLoss()), DataLoader(IMAGES, 8))
    assert (tmp_path / "run" / "version_0" / "p.npz").exists()


def test_refusals(tmp_path):
    with pytest.raises(NoisyLabelError, match=r"`path` to be the name of a \.npz file, but got 'p\.csv'"):
        PredictionWriter("p.csv")
    loaders = [DataLoader(IMAGES, 8), DataLoader(IMAGES, 8)]
    with pytest.raises(NoisyLabelError, match="writes one data set, but 2 were predicted"):
        make_trainer(tmp_path, [PredictionWriter()]).predict(make_module(torch.nn.CrossEntropyLoss()), loaders)
