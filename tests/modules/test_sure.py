"""SURE's step and counts against numpy, with SAM, and its whole recipe."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from lightning_noisy import NoisyLabelError
from lightning_noisy.callbacks import AveragedWeights, MaskRefresh
from lightning_noisy.functional.losses import correctness_ranking
from lightning_noisy.functional.mixing import mixing_partners, mixing_share
from lightning_noisy.heads import CosineHead
from lightning_noisy.modules import SURE, sure
from lightning_noisy.optim import SAM, CosineToConstant
from tests.foreign import make_trainer
from tests.modules.strategies import make_backbone, make_data, make_strategy
from tests.small import NUM_CLASSES


def test_ranking_by_hand():
    confidence, correctness = torch.tensor([0.6, 0.9, 0.7, 0.5]), torch.tensor([0.2, 0.2, 0.8, 0.4])
    # Neighbours 0-1 equal; 1 should lie 0.6 below 2, lies 0.2 above; 2 should lie 0.4 above 3, lies 0.2 above; 3 should
    # lie 0.2 above 0, lies 0.1 below.
    expected = torch.tensor([0.0, 0.8, 0.2, 0.3])
    torch.testing.assert_close(correctness_ranking(confidence, correctness), expected)
    assert correctness_ranking(confidence, torch.full((4,), 0.3)).eq(0).all()
    # With torch's own criterion, as the official code calls it.
    ahead = correctness - correctness.roll(-1)
    official = nn.MarginRankingLoss()(
        confidence, confidence.roll(-1) + ahead.abs() / (ahead.sign() + 1e-7), ahead.sign()
    )
    torch.testing.assert_close(correctness_ranking(confidence, correctness).mean(), official)


class Steps(Callback):
    """What each step saw and gave, in evaluation mode, so that passes can be repeated."""

    def __init__(self):
        self.seen, self.counts = [], np.zeros(40)

    def on_train_epoch_start(self, trainer, pl_module):
        pl_module.network.eval()
        self.least = self.counts.min()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.state = {name: value.clone() for name, value in pl_module.state_dict().items()}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        after = {name: value.clone() for name, value in pl_module.state_dict().items()}
        pl_module.load_state_dict(self.state)
        with torch.no_grad():
            expected = self.expect(trainer, pl_module, batch, batch_idx)
        pl_module.load_state_dict(after)
        self.seen.append((float(outputs["loss"]), expected))

    def expect(self, trainer, module, batch, batch_idx):
        images, target, index = batch
        rows = index.numpy()
        z = module(images).double().numpy()
        keys = (sure._STREAM, 0, trainer.current_epoch, batch_idx, 0)
        partners, share = mixing_partners(index, *keys).numpy(), mixing_share(10.0, *keys)
        mixed = module(share * images + (1 - share) * images[partners]).double().numpy()
        y = target.numpy()
        own, other = cross_entropies(mixed, y), cross_entropies(mixed, y[partners])
        span = max(1, trainer.current_epoch) - self.least
        n = (self.counts[rows] - self.least) / span if span else np.zeros(len(rows))
        kappa = probabilities(z).max(1)
        ranks = 0.0
        for i in range(len(rows)):
            j = (i + 1) % len(rows)
            gap = n[i] - n[j]
            ranks += max(0.0, -np.sign(gap) * (kappa[i] - kappa[j] - gap)) / len(rows)
        self.counts[rows] += z.argmax(1) == y
        return cross_entropies(z, y).mean() + (share * own + (1 - share) * other).mean() + 0.2 * ranks


def probabilities(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def cross_entropies(z, y):
    return -np.log(probabilities(z)[np.arange(len(y)), y])


def test_steps_are_those_of_the_paper(tmp_path):
    module, steps = make_strategy("SURE"), Steps()
    make_trainer(tmp_path, [steps], max_epochs=3).fit(module, datamodule=make_data("SURE"))
    assert len(steps.seen) == 15
    for loss, expected in steps.seen:
        assert loss == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(module.section.stores["right"].values, steps.counts)
    assert 0 < steps.counts.sum() < 120


@pytest.mark.parametrize("redraw", [False, True])
def test_both_passes_of_sam_have_the_same_counts_and_draws_as_asked(tmp_path, redraw):
    module = make_strategy("SURE", redraw=redraw)
    module.make_optimizer = lambda parameters: SAM(parameters, torch.optim.SGD, lr=0.05)
    passes = []

    def note(network, args):
        if network.training and torch.is_grad_enabled():
            passes.append(args[0].clone())

    module.network.backbone.register_forward_pre_hook(note)
    seen, counts = [], module._correctness
    module._correctness = lambda *args: seen.append(counts(*args).clone()) or seen[-1]
    make_trainer(tmp_path, max_epochs=2).fit(module, datamodule=make_data("SURE"))
    assert len(passes) == 40  # 10 steps, two passes, each of plain and of mixed images
    for first in range(0, 40, 4):
        assert passes[first].equal(passes[first + 2])
        assert passes[first + 1].equal(passes[first + 3]) is not redraw
    assert all(first.equal(second) for first, second in zip(seen[::2], seen[1::2], strict=True))
    assert module.section.stores["right"].values.sum() <= 80
    assert module.section.stores["right"].values.max() <= 2  # one count a visit


def test_the_whole_recipe_and_sure_dfc(tmp_path):
    module = SURE(
        make_backbone(),
        CosineHead,
        nn.CrossEntropyLoss(),
        NUM_CLASSES,
        optimizer=lambda parameters: SAM(parameters, torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=5e-4),
        lr_scheduler=lambda optimizer: CosineToConstant(optimizer, 4, start_epoch=2, anneal_epochs=1),
    )
    average, mask = AveragedWeights(2), MaskRefresh(ratio=0.5)
    trainer = make_trainer(tmp_path, [mask, average], max_epochs=4)
    trainer.fit(module, datamodule=make_data("SURE", batch_size=4))
    assert average.num_averaged == 2
    assert mask.mask.mean() == 0.5
    assert trainer.callback_metrics["test/acc"].isfinite()
    assert trainer.optimizers[0].base.param_groups[0]["lr"] == pytest.approx(0.05)


def test_refusals(tmp_path):
    for name, value in (("mix_weight", -1.0), ("rank_weight", -1.0), ("beta", 0.0)):
        with pytest.raises(NoisyLabelError, match=f"`{name}`"):
            make_strategy("SURE", **{name: value})
    with pytest.raises(
        NoisyLabelError, match=r"trains on one view of each image, but the batch has 2: .*`views=\['weak'\]`"
    ):
        make_trainer(tmp_path).fit(make_strategy("SURE"), datamodule=make_data("SURE", views=2))
