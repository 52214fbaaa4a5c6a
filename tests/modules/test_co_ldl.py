"""Co-LDL's step and its learned labels against float64 loops, one sample after the other."""

import math

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from lightning_noisy import NoisyLabelError
from lightning_noisy.functional.mixing import mixing_shares
from lightning_noisy.functional.random import hash_bits
from lightning_noisy.modules import co_ldl
from lightning_noisy.networks import ProjectedBackbone
from tests.foreign import make_trainer
from tests.modules.strategies import make_backbone, make_data, make_strategy

SAMPLES, CLASSES = 40, 4
SMOOTHING, CONSISTENCY, MIX_WEIGHT, EMBEDDING_WEIGHT, LABEL_LR = 0.5, 0.2, 0.3, 0.15, 20.0
OPTIONS = {
    "warmup_epochs": 1,
    "total_epochs": 4,
    "smoothing": SMOOTHING,
    "consistency": CONSISTENCY,
    "mix_weight": MIX_WEIGHT,
    "embedding_weight": EMBEDDING_WEIGHT,
    "label_lr": LABEL_LR,
}


class Run:
    def total_epochs(self, owner, given):
        return given


def test_drop_rates_at_their_corners():
    module = make_strategy("CoLDL", warmup_epochs=10, total_epochs=110)
    module._run = Run()
    assert [module.drop_rate_of(e) for e in (10, 109, 120)] == pytest.approx([0.25, 0.5, 0.5])
    assert module.drop_rate_of(43) == pytest.approx(0.25 + 0.25 * 33 / 99)


def log_softmax(z):
    return [value - math.log(sum(math.exp(other) for other in z)) for value in z]


def cross_entropy(target, z):
    return -sum(t * value for t, value in zip(target, log_softmax(z), strict=True))


class Steps(Callback):
    """The loss of each step and the labels after it."""

    def __init__(self, **code):
        self.code, self.seen = code, []
        self.labels = None

    def on_train_epoch_start(self, trainer, pl_module):
        for network in pl_module.networks:
            network.eval()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.labels is None:
            given = trainer.datamodule.noisy_targets
            start = 10.0 * nn.functional.one_hot(given, CLASSES).double()
            self.labels = [start.clone(), start.clone()]
        views, target, index = batch
        with torch.no_grad():
            seen = [network.outputs(view) for network, view in zip(pl_module.networks, views, strict=True)]
        logits = [outputs.logits.double().tolist() for outputs in seen]
        embeddings = [outputs.features.double().tolist() for outputs in seen]
        tilde = [[1 - SMOOTHING if k == y else SMOOTHING / 3 for k in range(CLASSES)] for y in target.tolist()]
        smooth = [[cross_entropy(t, z) for t, z in zip(tilde, of_network, strict=True)] for of_network in logits]
        size, epoch = len(target), trainer.current_epoch
        if epoch == 0:
            self.expected = sum(sum(row) / size for row in smooth)
            return
        drop = 0.25 + 0.25 * (epoch - 1) / 2
        keep = max(1, int((1 - drop) * size + 1e-9))
        ranked = [sorted(range(size), key=row.__getitem__) for row in smooth]
        self.expected, fresh = 0.0, []
        for n in (0, 1):
            clean, rest = sorted(ranked[1 - n][:keep]), sorted(ranked[1 - n][keep:])
            keys = (co_ldl._STREAM + n, 0, epoch, batch_idx)
            order = torch.tensor(clean)[hash_bits(*keys, index[clean]).argsort(stable=True)].tolist()
            partners = [order[i % len(order)] for i in range(len(rest))]
            shares = mixing_shares(0.4, len(rest), *keys).tolist()
            weights = torch.tensor(shares, dtype=torch.float64).view(-1, 1, 1, 1)
            with torch.no_grad():
                mixed = weights * views[n][rest] + (1 - weights) * views[n][partners]
                said = pl_module.networks[n](mixed).double().softmax(1)

            def of_labels(rows, clean=clean, rest=rest, partners=partners, shares=shares, said=said):
                return self.of_labels(rows, tilde, clean, rest, partners, shares, said + 1e-8)

            rows = self.labels[1 if self.code.get("shared_labels") else n][index]
            self.expected += self.of_network(n, logits, embeddings, smooth[n], clean) + of_labels(rows).item()
            leaf = rows.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(of_labels(leaf), leaf)
            fresh.append(rows - LABEL_LR * gradient)
        for n in (0, 1):
            self.labels[n][index] = fresh[1 if self.code.get("shared_labels") else n]

    def of_network(self, n, logits, embeddings, smooth, clean):
        fit = sum(smooth[i] - sum(math.exp(v) * v for v in log_softmax(logits[n][i])) for i in clean) / len(clean)
        alike = 0.0
        for z, h in zip(logits[n], embeddings[1 - n], strict=True):
            dot = sum(a * b for a, b in zip(z, h, strict=True))
            alike += (2 - 2 * dot / (math.hypot(*z) * math.hypot(*h))) / len(smooth)
        return (1 - CONSISTENCY) * fit + EMBEDDING_WEIGHT * alike

    def of_labels(self, rows, tilde, clean, rest, partners, shares, said):
        q = rows.softmax(1) + 1e-8
        mixed = 0.0
        for i, (row, own, partner) in enumerate(zip(said, rest, partners, strict=True)):
            if self.code.get("all_pairs"):
                for share in shares:
                    wanted = share * q[own] + (1 - share) * q[partner]
                    mixed = mixed + (row * (row / wanted).log()).sum() / (CLASSES * len(rest) ** 2)
            else:
                wanted = shares[i] * q[own] + (1 - shares[i]) * q[partner]
                mixed = mixed + (row * (row / wanted).log()).sum() / len(rest)
        source = rows.softmax(1) if self.code.get("double_softmax") else rows
        kept = -(torch.tensor(tilde)[clean] * source[clean].log_softmax(1)).sum() / len(clean)
        return (1 - CONSISTENCY) * MIX_WEIGHT * mixed + CONSISTENCY * kept

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append((float(outputs["loss"]), self.expected))


@pytest.mark.parametrize(
    "code",
    [{}, {"shared_labels": True}, {"double_softmax": True}, {"all_pairs": True}],
    ids=lambda c: "".join(c) or "paper",
)
def test_steps_are_those_of_the_paper_or_the_code(tmp_path, code):
    module, steps = make_strategy("CoLDL", **OPTIONS, **code).double(), Steps(**code)
    trainer = make_trainer(tmp_path, [steps], max_epochs=4, precision="64-true")
    trainer.fit(module, datamodule=make_data("CoLDL"))
    assert len(steps.seen) == 20
    for loss, expected in steps.seen:
        assert loss == pytest.approx(expected, rel=1e-5)
    given = nn.functional.one_hot(module.given_labels, CLASSES)
    stores = module.section.stores
    assert set(stores) == ({"labels_1"} if "shared_labels" in code else {"labels_0", "labels_1"})
    for name, store in stores.items():
        learned = 10.0 * given + store.values
        torch.testing.assert_close(learned, steps.labels[int(name[-1])].float(), rtol=1e-3, atol=1e-3)
        assert store.values.abs().max() > 0.01
    assert module.history[3]["selection/network_0/size"] == pytest.approx(0.5)


def test_each_network_has_an_embedding_of_as_many_features_as_classes():
    module = make_strategy("CoLDL")
    for network in module.networks:
        assert isinstance(network.backbone, ProjectedBackbone)
        assert network.num_features == network.head.in_features == network.head.out_features == CLASSES
    embedding = ProjectedBackbone(make_backbone(), 3)
    assert embedding(torch.randn(2, 1, 8, 8)).shape == (2, 3)
    assert embedding.projector[2].bias.eq(0).all()


def test_refusals(tmp_path):
    wrong = {"drop_rate": 1.0, "final_drop_rate": -0.1, "smoothing": 0.8, "mix_weight": -1.0, "mix_alpha": 0.0}
    for name, value in wrong.items():
        with pytest.raises(NoisyLabelError, match=f"`{name}`"):
            make_strategy("CoLDL", **{name: value})
    with pytest.raises(NoisyLabelError, match=r"trains on 2 views .*`views=\['weak', 'weak'\]`"):
        make_trainer(tmp_path).fit(make_strategy("CoLDL"), datamodule=make_data("CoLDL", views=1))
