"""MixUp in modules that know nothing of it: what it mixes is found from the outside."""

import math

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from lightning_noisy import NoisyLabelError
from lightning_noisy.callbacks import SELC, MixUp
from lightning_noisy.data import IndexedDataset
from tests.foreign import DictDataset, DictForeignModule, ForeignModule, make_loader, make_tensors, make_trainer
from tests.small import NUM_CLASSES, SmallDataModule, make_module

X, NOISY, _ = make_tensors()


class Spy(Callback):
    """What the module is trained on: index, inputs, and at the criterion logits, target and value."""

    def __init__(self, key=0):
        self.key = key
        self.calls = []

    def on_train_start(self, trainer, pl_module):
        def note(module, args, kwargs, value):
            given = [*args, *kwargs.values()]
            logits, target = (given if not kwargs else (kwargs["input"], kwargs["target"]))[:2]
            self.calls[-1] |= {"logits": logits.detach().clone(), "target": target.clone(), "value": value.item()}

        self.handle = pl_module.criterion.register_forward_hook(note, with_kwargs=True)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.calls[-1] |= {"inputs": batch[self.key], "epoch": trainer.current_epoch}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.calls.append({"index": batch[-1] if isinstance(batch, list) else batch["index"]})

    def on_train_end(self, trainer, pl_module):
        self.handle.remove()


def loader(batch_size=8, shuffle=False):
    return make_loader(IndexedDataset(TensorDataset(X, NOISY)), batch_size, shuffle)


def fit(folder, callbacks, module=None, data=None, max_epochs=2, key=0):
    spy = Spy(key)
    torch.manual_seed(0)
    trainer = make_trainer(folder, [*callbacks, spy], max_epochs)
    trainer.fit(ForeignModule() if module is None else module, loader() if data is None else data)
    return spy.calls


def mixing(call, inputs=X):
    """lambda and partners, from inputs alone: each mixed row lies on the line between its own and another one."""
    mine, partners, shares = inputs[call["index"]], [], []
    for i, row in enumerate(call["inputs"]):
        if torch.allclose(row, mine[i], atol=1e-6):
            partners.append(i)
            continue
        for j in set(range(len(mine))) - {i}:
            along = mine[i] - mine[j]
            share = ((row - mine[j]) @ along / (along @ along)).item()
            if torch.allclose(row, mine[j] + share * along, atol=1e-5):
                partners.append(j)
                shares.append(share)
    assert sorted(partners) == list(range(len(mine)))
    share = sum(shares) / len(shares)
    assert all(math.isclose(value, share, abs_tol=1e-4) for value in shares)
    return share, torch.tensor(partners)


def test_inputs_and_targets_are_mixed_alike(tmp_path):
    calls = fit(tmp_path, [MixUp(1.0)])
    assert len(calls) == 6
    for call in calls:
        share, partners = mixing(call)
        rows = F.one_hot(NOISY[call["index"]], 4).float()
        torch.testing.assert_close(call["target"], share * rows + (1 - share) * rows[partners], atol=1e-4, rtol=0)
        own, other = (F.cross_entropy(call["logits"], y) for y in (rows.argmax(1), rows[partners].argmax(1)))
        assert call["value"] == pytest.approx((share * own + (1 - share) * other).item(), abs=1e-3)
    assert len({tuple(call["target"].flatten().tolist()) for call in calls}) == 6


@pytest.mark.parametrize("order", [1, -1])
def test_targets_of_other_callbacks_are_mixed_whatever_the_order(tmp_path, order):
    callbacks = [SELC(momentum=0.7), MixUp(1.0)][::order]
    for call in fit(tmp_path, callbacks, max_epochs=1):
        share, partners = mixing(call)
        rows = 0.7 * F.one_hot(NOISY[call["index"]], 4) + 0.3 * call["logits"].softmax(1)
        torch.testing.assert_close(call["target"], share * rows + (1 - share) * rows[partners], atol=1e-4, rtol=0)


def test_draws_are_a_function_of_the_seed(tmp_path):
    def targets(seed):
        return [call["target"] for call in fit(tmp_path, [MixUp(1.0, seed=seed)])]

    for first, second in zip(targets(3), targets(3), strict=True):
        assert torch.equal(first, second)
    assert not any(torch.equal(first, other) for first, other in zip(targets(3), targets(4), strict=True))


def test_partners_change_from_epoch_to_epoch(tmp_path):
    partners = [mixing(call)[1].tolist() for call in fit(tmp_path, [MixUp(1.0)])]
    assert all(first != second for first, second in zip(partners[:3], partners[3:], strict=True))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 30.0])
def test_shares_follow_the_beta_distribution(tmp_path, alpha):
    callback, shares = MixUp(alpha), []

    class Shares(Callback):
        def on_train_batch_start(self, *args):
            shares.append(callback._lam)

    make_trainer(tmp_path, [callback, Shares()], 40).fit(ForeignModule(), loader(4))
    drawn = torch.tensor(shares, dtype=torch.float64)
    variance = 1 / (4 * (2 * alpha + 1))
    assert len(drawn) == 240
    assert drawn.mean().item() == pytest.approx(0.5, abs=4 * (variance / 240) ** 0.5)
    assert drawn.var().item() == pytest.approx(variance, rel=0.35)
    assert ((drawn >= 0) & (drawn <= 1)).all()


def test_dict_batches_and_keyword_criteria(tmp_path):
    data = make_loader(IndexedDataset(DictDataset(X, NOISY)))
    for call in fit(tmp_path, [MixUp(1.0, input_key="x")], DictForeignModule(), data, 1, key="x"):
        share, partners = mixing(call)
        rows = F.one_hot(NOISY[call["index"]], 4).float()
        torch.testing.assert_close(call["target"], share * rows + (1 - share) * rows[partners], atol=1e-4, rtol=0)


def test_views_are_mixed_alike(tmp_path):
    class TwoViews(ForeignModule):
        def training_step(self, batch, batch_idx):
            first, second = batch[0]
            torch.testing.assert_close(second, 2 * first)
            return super().training_step([first, *batch[1:]], batch_idx)

    samples = IndexedDataset([((x, 2 * x), y) for x, y in zip(X, NOISY, strict=True)])
    callback = MixUp(1.0)
    fit(tmp_path, [callback], TwoViews(), make_loader(samples))
    assert callback._lam not in (0.0, 1.0)


def test_the_data_set_keeps_its_samples(tmp_path):
    before = X.clone()
    fit(tmp_path, [MixUp(1.0)])
    assert torch.equal(X, before)


def test_in_our_module_and_not_in_validation(tmp_path):
    module = make_module(nn.CrossEntropyLoss())
    seen = []
    handle = module.loss.register_forward_hook(lambda _, args, __: seen.append(args[1].shape))
    trainer = make_trainer(tmp_path, [MixUp(0.9)])
    trainer.fit(module, datamodule=SmallDataModule(seed=0))
    handle.remove()
    assert set(seen) == {(8, NUM_CLASSES)}
    assert not module.loss._forward_pre_hooks


def test_half_precision(tmp_path):
    trainer = make_trainer(tmp_path, [MixUp(1.0)], precision="bf16-mixed")
    trainer.fit(ForeignModule(), loader())
    assert trainer.global_step == 6


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.inf, math.nan])
def test_refused_alpha(alpha):
    with pytest.raises(NoisyLabelError) as caught:
        MixUp(alpha)
    assert str(caught.value) == f"Expected argument `alpha` to be a finite float > 0, but got {alpha!r}."


def tuples(samples):
    return tuple(torch.utils.data.default_collate(samples))


@pytest.mark.parametrize(
    ("options", "data", "message"),
    [
        ({}, {"collate_fn": tuples}, r"^MixUp replaces the inputs in the batch, but a tuple cannot be changed: let"),
        ({"input_key": 3}, {}, r"^Expected argument `input_key` to be one of \[-3, -2, -1, 0, 1, 2\], .* but got 3\.$"),
        ({"input_key": 1}, {}, r"^MixUp expects floating-point inputs \(B, \.\.\.\), but got torch.int64: name their"),
    ],
)
def test_refused_batches(tmp_path, options, data, message):
    samples = IndexedDataset(TensorDataset(X, NOISY))
    with pytest.raises(NoisyLabelError, match=message):
        fit(tmp_path, [MixUp(**options)], data=torch.utils.data.DataLoader(samples, 8, **data))


def test_several_entries_that_may_be_the_inputs(tmp_path):
    samples = IndexedDataset(TensorDataset(torch.zeros(len(X), 2), X, NOISY))
    with pytest.raises(
        NoisyLabelError, match=r"several floating-point entries .*, \(8, 2\) and \(8, 6\): name the inputs"
    ):
        fit(tmp_path, [MixUp()], data=make_loader(samples))


def test_dict_without_an_image(tmp_path):
    with pytest.raises(NoisyLabelError, match=r"^Expected argument `input_key` to be one of \['x', 'y', 'index'\], "):
        fit(tmp_path, [MixUp()], DictForeignModule(), make_loader(IndexedDataset(DictDataset(X, NOISY))))


def test_a_criterion_without_soft_targets(tmp_path):
    module = ForeignModule()
    module.criterion = nn.NLLLoss()
    with pytest.raises(NoisyLabelError, match=r"^MixUp makes soft targets, but NLLLoss cannot take them"):
        fit(tmp_path, [MixUp()], module)
    assert not module.criterion._forward_pre_hooks
