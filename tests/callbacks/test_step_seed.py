"""What is seeded before a step; that runs resume with it is tested in tests/test_resume.py."""

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from lightning_noisy.callbacks import StepSeed
from lightning_noisy.callbacks.step_seed import reseed
from lightning_noisy.functional.random import hash_seed
from tests.foreign import make_trainer
from tests.small import SmallDataModule, make_module


def test_each_step_draws_what_torch_seeded_so_draws(tmp_path):
    seen = {}

    class Draw(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen[trainer.current_epoch, batch_idx] = torch.rand(3)

    make_trainer(tmp_path, [StepSeed(5), Draw()]).fit(make_module(nn.CrossEntropyLoss()), datamodule=SmallDataModule())
    assert len(seen) > 4
    for (epoch, batch), draw in seen.items():
        torch.manual_seed(hash_seed(5, epoch, batch, 0))
        assert torch.equal(draw, torch.rand(3))


@pytest.mark.parametrize(
    ("device", "expected"), [("cpu", []), ("cuda", ["torch.cuda.manual_seed"]), ("meta", ["torch.manual_seed"])]
)
def test_an_accelerator_that_is_not_in_use_is_left_alone(monkeypatch, device, expected):
    called = []
    for name in ("torch.manual_seed", "torch.cuda.manual_seed", "torch.cuda.manual_seed_all"):
        monkeypatch.setattr(name, lambda seed, name=name: called.append(name))
    torch.default_generator.manual_seed(1)
    reseed(9, torch.device(device))
    assert called == expected
    if device != "meta":
        draw = torch.rand(3)
        assert torch.equal(draw, torch.rand(3, generator=torch.Generator().manual_seed(9)))
