"""On an accelerator: no host round trip in a training step, state on the device, half precision, deferred errors."""

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities import move_data_to_device
from torch.utils.data import DataLoader, TensorDataset

from lightning_noisy import NoisyLabelError
from lightning_noisy.callbacks import SELC, ConfidenceTracker, GradientSwitching, MaskRefresh, StepSeed
from lightning_noisy.data import DigitsDataModule, IndexedDataset, SymmetricNoise
from lightning_noisy.heads import KANHead, LinearHead
from lightning_noisy.losses import EarlyLearningRegularization, NoiseAttentionLoss
from lightning_noisy.state import RunDriver, SampleStore
from tests.foreign import ForeignModule, make_tensors, make_trainer
from tests.modules.strategies import make_data, make_strategy
from tests.small import SmallDataModule, make_heads, make_module

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

METHODS = {
    "selc": (torch.nn.CrossEntropyLoss, lambda: [SELC(momentum=0.7, warmup_epochs=1)]),
    "nal": (lambda: NoiseAttentionLoss(lam=0.5, beta=0.1), lambda: [SELC(momentum=0.7, floor=1e-4)]),
    "gss": (torch.nn.CrossEntropyLoss, lambda: [GradientSwitching(total_epochs=3)]),
    "mask": (torch.nn.CrossEntropyLoss, lambda: [MaskRefresh(ratio=0.5), ConfidenceTracker()]),
    "mask-step-before": (
        torch.nn.CrossEntropyLoss,
        lambda: [
            MaskRefresh("network.head.0", ratio=0.5, score="gradient"),
            MaskRefresh("network.head.1", ratio=0.5, score="random", granularity="edge"),
            MaskRefresh("network.head.2", ratio=0.5, score="gradient", granularity="edge", every_n_epochs=1),
        ],
        make_heads,
    ),
    "mask-batch": (
        torch.nn.CrossEntropyLoss,
        lambda: [
            MaskRefresh("network.head.0", ratio=0.5, granularity="edge", apply_in="always"),
            MaskRefresh("network.head.1", ratio=0.5, score="obd"),
            MaskRefresh("network.head.2", ratio=0.5),
        ],
        make_heads,
    ),
    "mask-batch-kan": (
        torch.nn.CrossEntropyLoss,
        lambda: [
            MaskRefresh(["network.head.0", "network.head.1"], ratio=0.5, score="activation", granularity="edge"),
            MaskRefresh("network.head.2", ratio=0.5, score="obd", granularity="edge", every_n_steps=3),
        ],
        make_heads,
    ),
    "elr": (EarlyLearningRegularization, list),
}


class NoSync(Callback):
    """Makes torch refuse host round trips inside training steps (not at logging steps)."""

    def on_train_start(self, trainer, pl_module):
        with torch.no_grad():  # a KAN head looks at its grid once
            pl_module.network.head(torch.zeros(1, 8, device=pl_module.device))

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        torch.cuda.set_sync_debug_mode("error")

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        torch.cuda.set_sync_debug_mode("default")

    def on_exception(self, trainer, pl_module, exception):
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("method", METHODS)
def test_trains_without_a_host_round_trip(tmp_path, method, precision):
    loss, callbacks, *head = METHODS[method]
    callbacks = [NoSync(), *callbacks()]
    trainer = make_trainer(
        tmp_path, callbacks, max_epochs=3, accelerator="gpu", precision=precision, log_every_n_steps=1000
    )
    module = make_module(loss(), head=(head or [LinearHead])[0])
    trainer.fit(module, datamodule=SmallDataModule(seed=0))
    for table in [t for section in RunDriver.of(trainer).sections.values() for t in section.stores.values()]:
        assert table.values.device.type == "cuda"
        assert not table.values.isinf().any()


@pytest.mark.parametrize("method", METHODS)
def test_equals_the_cpu(tmp_path, method):
    loss, callbacks, *head = METHODS[method]
    states = []
    for accelerator in ("cpu", "gpu"):
        module = make_module(loss(), dropout=0.0, head=(head or [LinearHead])[0]).double()
        trainer = make_trainer(
            tmp_path, callbacks(), max_epochs=2, accelerator=accelerator, precision="64-true", deterministic="warn"
        )
        trainer.fit(module, datamodule=SmallDataModule(seed=0))
        states.append({name: value.cpu().double() for name, value in module.state_dict().items()})
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["CoTeaching", "ELRPlus"])
@pytest.mark.parametrize("compile", [True, {"mode": "reduce-overhead"}])
def test_compiled_training_is_that_of_the_module_as_written(tmp_path, compile, name):
    """CUDA graphs write over what they gave: two networks, teachers, scores of a basis, accumulated gradients."""
    weights = []
    for way in (False, compile):
        module = make_strategy(name, compile=way, head=KANHead)
        options = {"max_epochs": 3, "accelerator": "gpu", "accumulate_grad_batches": 2}
        trainer = make_trainer(tmp_path, [StepSeed(1), MaskRefresh(ratio=0.5)], **options)
        trainer.fit(module, datamodule=make_data(name))
        weights.append(dict(module.state_dict()))
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("views", [("weak",), ("weak", "weak")])
def test_samples_that_stay_on_the_device_are_those_of_the_cpu(views):
    batches, gpu = [], torch.device("cuda", torch.cuda.current_device())
    for place in ("loader", "device"):
        data = DigitsDataModule(SymmetricNoise(0.3), seed=0, augment=True, views=views, data_on=place)
        data.setup("fit")
        made = [move_data_to_device(batch, gpu) for batch in data.train_dataloader()]
        batches.append([view.cpu() for batch in made for view in (*batch[0], batch[2])])
    for left, right in zip(*batches, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-6)


def test_samples_on_the_device_are_made_without_a_host_round_trip():
    data, gpu = DigitsDataModule(seed=0, augment=True, data_on="device"), torch.device("cuda")
    data.setup("fit")
    first, second, *_ = data.train_dataloader()
    move_data_to_device(first, gpu)
    torch.cuda.set_sync_debug_mode("error")
    try:
        move_data_to_device(second, gpu)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_checkpoint_moves_between_devices(tmp_path):
    first = SELC(momentum=0.7)
    trainer = make_trainer(tmp_path, [StepSeed(0), first], accelerator="gpu")
    trainer.fit(make_module(torch.nn.CrossEntropyLoss()), datamodule=SmallDataModule(seed=0))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    (state,) = [state for name, state in saved["callbacks"]["lightning_noisy"]["sections"].items() if "SELC" in name]
    assert state["stores"]["target"]["values"].device.type == "cpu"
    for accelerator in ("cpu", "gpu"):
        callback = SELC(momentum=0.7)
        make_trainer(tmp_path, [StepSeed(0), callback], max_epochs=3, accelerator=accelerator).fit(
            make_module(torch.nn.CrossEntropyLoss()),
            datamodule=SmallDataModule(seed=0),
            ckpt_path=tmp_path / "last.ckpt",
        )
        assert callback.section.stores["target"].values.device.type == {"cpu": "cpu", "gpu": "cuda"}[accelerator]


def test_wrong_values_are_reported_at_the_next_logging_step(tmp_path):
    x, noisy, _ = make_tensors()

    class Spoil(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            batch[2][0] = 99

    loader = DataLoader(IndexedDataset(TensorDataset(x, noisy)), 8)
    with pytest.raises(NoisyLabelError, match=r"indices in \[0, 24\)"):
        make_trainer(tmp_path, [Spoil(), SELC()], accelerator="gpu", log_every_n_steps=2).fit(ForeignModule(), loader)


def test_store_equals_the_cpu_store():
    generator = torch.Generator().manual_seed(0)
    stores = [SampleStore(50, (7,), device=device) for device in ("cpu", "cuda")]
    for _ in range(20):
        index = torch.randint(50, (16,), generator=generator)
        values = torch.rand(16, 7, generator=generator)
        rows = [store.lerp(index.to(store.values.device), values, 0.3).cpu() for store in stores]
        torch.testing.assert_close(*rows)
    torch.testing.assert_close(stores[0].values, stores[1].values.cpu())
