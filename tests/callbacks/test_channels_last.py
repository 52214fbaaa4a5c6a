"""Convolutions in channels-last format: the same training, the same checkpoints."""

from __future__ import annotations

import torch
from lightning.pytorch import Callback

from lightning_noisy.callbacks import CDR, ChannelsLast, MaskRefresh
from lightning_noisy.losses import GeneralizedCrossEntropy
from tests.foreign import make_trainer
from tests.small import SmallDataModule, assert_same, make_module


class Formats(Callback):
    """Strides of weights and outputs of the convolutions, and of their gradients."""

    def __init__(self):
        self.seen = set()

    def setup(self, trainer, pl_module, stage):
        """Before a strategy wraps the module."""
        for part in pl_module.modules():
            if isinstance(part, torch.nn.Conv2d):
                self.note("weight", part.weight)
                part.register_forward_hook(lambda part, _, output: self.note("output", output))

    def on_after_backward(self, trainer, pl_module):
        for part in pl_module.modules():
            if isinstance(part, torch.nn.Conv2d):
                self.note("weight", part.weight)
                self.note("gradient", part.weight.grad)

    def note(self, name, tensor):
        wide = tensor.shape[1] > 1 and tensor.shape[2] > 1
        last, first = (
            tensor.is_contiguous(memory_format=form) for form in (torch.channels_last, torch.contiguous_format)
        )
        if wide and last != first:
            self.seen.add((name, last))


def test_training_is_the_same_and_so_are_checkpoints(tmp_path):
    trained = {}
    for name, callbacks in {"plain": [], "last": [ChannelsLast()]}.items():
        torch.manual_seed(0)
        module, formats = make_module(GeneralizedCrossEntropy()), Formats()
        trainer = make_trainer(tmp_path / name, [*callbacks, MaskRefresh(ratio=0.5), CDR(0.4), formats])
        trainer.fit(module, SmallDataModule(seed=0))
        assert formats.seen == {(what, name == "last") for what in ("weight", "gradient", "output")}
        trained[name] = {key: value.clone() for key, value in module.state_dict().items()}
        trainer.save_checkpoint(tmp_path / f"{name}.ckpt")
    torch.testing.assert_close(trained["last"], trained["plain"], rtol=1e-4, atol=1e-5)
    module = make_module(GeneralizedCrossEntropy())
    module.load_state_dict(torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"])
    assert_same(dict(module.state_dict()), trained["last"])
    trainer = make_trainer(tmp_path / "test", [ChannelsLast()])
    trainer.test(module, SmallDataModule(seed=0), verbose=False)
    assert any(weight.ndim == 4 and not weight.is_contiguous() for weight in module.parameters())
