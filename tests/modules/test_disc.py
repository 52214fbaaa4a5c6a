"""DISC against its algorithm in float64: groups, thresholds, labels and steps of several epochs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from lightning_noisy.data import IndexedDataset
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.functional.mixing import mixing_partners, mixing_share
from lightning_noisy.modules.disc import _STREAM
from tests.modules.linear import (
    CLASSES,
    assert_learned,
    cross_entropies,
    descend,
    fit,
    linear,
    make_linear,
    make_samples,
    probabilities,
    weights,
)

SAMPLES, BATCH, EPOCHS = 24, 5, 6
X, Y = make_samples(SAMPLES, views=2, seed=3)
GROUPS = ("left out", "clean", "hard", "corrected")


class Simulation:
    """The algorithm of the paper, sample by sample."""

    def __init__(self, own: list[Tensor], momentum: float, margin: float, hard_weight: float, start: float) -> None:
        self.own, self.momentum, self.margin, self.hard_weight = own, momentum, margin, hard_weight
        self.p = torch.zeros(2, SAMPLES, CLASSES, dtype=torch.float64)
        self.tau = torch.full((2, SAMPLES), start, dtype=torch.float64)
        self.target, self.group = Y.clone(), ["left out"] * SAMPLES
        self.seen: Counter[str] = Counter()

    def end_epoch(self) -> None:
        for i, label in enumerate(Y.tolist()):
            believed = [bool(self.p[view, i, label] > self.tau[view, i]) for view in range(2)]
            mean = (self.p[0, i] + self.p[1, i]) / 2
            sure = bool(mean.max() > min(self.tau[:, i].mean().item() + self.margin, 0.99))
            name = {2: "clean", 1: "hard"}.get(sum(believed), "corrected" if sure else "left out")
            self.group[i] = name
            if name != "left out":
                self.target[i] = mean.argmax() if name == "corrected" else label
            elif self.target[i] != label:
                self.seen["keeps the label of an earlier epoch"] += 1
        self.seen.update(self.group)
        self.tau = self.momentum * self.tau + (1 - self.momentum) * self.p.amax(dim=2)

    def train(self, epoch: int, seed: int, warmup: int) -> None:
        for number, start in enumerate(range(0, SAMPLES, BATCH)):
            rows = list(range(start, min(start + BATCH, SAMPLES)))
            loss = torch.stack(
                [self.loss(view, rows, (_STREAM, seed, epoch, number, view), epoch < warmup) for view in range(2)]
            )
            descend(loss.sum(), self.own)

    def loss(self, view: int, rows: list[int], keys: tuple[int, ...], warm: bool) -> Tensor:
        logits = linear(self.own, X[view, rows])
        p = probabilities(logits)
        self.p[view, rows] = p.detach()
        if warm:
            return cross_entropies(logits, Y[rows]).mean()
        total = 0 * logits.sum()
        for at, row in enumerate(rows):
            if self.group[row] == "clean":
                total = total + cross_entropies(logits[[at]], Y[[row]]).sum() / len(rows)
            if self.group[row] == "hard":
                robust = (1 - p[at, Y[row]].clamp(1e-7, 1) ** 0.7) / 0.7
                total = total + self.hard_weight * robust / len(rows)
        mixed = [row for row in rows if self.group[row] != "left out"]
        if not mixed:
            return total
        partners = [mixed[place] for place in mixing_partners(torch.tensor(mixed), *keys).tolist()]
        share = mixing_share(5.0, *keys, dominant=True)
        labels = torch.eye(CLASSES, dtype=torch.float64)[self.target]
        inputs = share * X[view, mixed] + (1 - share) * X[view, partners]
        targets = share * labels[mixed] + (1 - share) * labels[partners]
        return total + cross_entropies(linear(self.own, inputs), targets).mean()


@pytest.mark.parametrize(
    ("initial", "momentum", "margin", "hard_weight"), [("samples", 0.5, 0.1, 1.0), ("classes", 0.9, 0.2, 0.2)]
)
def test_epochs_by_hand(
    tmp_path: Path, initial: Literal["samples", "classes"], momentum: float, margin: float, hard_weight: float
) -> None:
    """Momentum 0.5 makes thresholds outrun the given labels, so that all groups are there."""
    module: Any = make_linear(
        "DISC",
        warmup_epochs=2,
        momentum=momentum,
        margin=margin,
        hard_weight=hard_weight,
        initial_threshold=initial,
    )
    start = 1 / (SAMPLES if initial == "samples" else CLASSES)
    simulation = Simulation(weights(module.network), momentum, margin, hard_weight, start)
    history = fit(tmp_path, module, X, Y, BATCH, EPOCHS)
    for epoch in range(EPOCHS):
        if epoch:
            simulation.end_epoch()
        simulation.train(epoch, module.run.seed, warmup=2)
    assert set(GROUPS) <= set(simulation.seen)
    assert_learned(module.network, simulation.own, 1e-6)
    stores = {name: store.values for name, store in module.section.stores.items()}
    assert [GROUPS[number] for number in stores["group"].tolist()] == simulation.group
    assert stores["target"].tolist() == simulation.target.tolist()
    for view, name in enumerate(("weak", "strong")):
        torch.testing.assert_close(stores[name].double(), simulation.p[view], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(stores[f"{name} threshold"].double(), simulation.tau[view], rtol=1e-5, atol=1e-6)
    last = Counter(simulation.group)
    sizes = [last["clean"], last["hard"], SAMPLES - last["left out"]]
    logged = [history[EPOCHS - 1][f"selection/{name}/size"] * SAMPLES for name in ("clean", "hard", "mixed")]
    assert logged == pytest.approx(sizes)
    assert history[EPOCHS - 1]["selection/threshold"] == pytest.approx(simulation.tau.mean().item(), rel=1e-5)
    if initial == "samples":
        assert simulation.seen["keeps the label of an earlier epoch"]


def test_a_loss_of_zero_where_nothing_is_selected(tmp_path: Path) -> None:
    """Thresholds far above all probabilities."""
    module: Any = make_linear("DISC", warmup_epochs=0)
    module.prepare_epoch = lambda epoch: type(module).prepare_epoch(module, epoch)
    before = weights(module.network)
    history = fit(tmp_path, module, X, Y, BATCH)  # in the first epoch no sample has a group yet
    assert history[0]["train/loss"] == 0
    assert_learned(module.network, before)


@pytest.mark.parametrize("name", ["DISC", "SED"])
def test_other_numbers_of_views_are_refused(tmp_path: Path, name: str) -> None:
    module = make_linear(name)
    with pytest.raises(
        NoisyLabelError, match=f"{name} trains on 2 views of each image, but the batch has 1: .*'weak', 'strong'"
    ):
        fit(tmp_path, module, X[0], Y, BATCH)


def test_labels_that_nobody_tells_are_asked_for(tmp_path: Path) -> None:
    from torch.utils.data import DataLoader, Dataset

    from tests.foreign import make_trainer

    class Silent(Dataset[Any]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            return [X[0, index], X[1, index]], int(Y[index])

    with pytest.raises(NoisyLabelError, match="DISC needs the labels of all training samples"):
        make_trainer(tmp_path, precision="64-true").fit(
            make_linear("DISC", nn.CrossEntropyLoss()), DataLoader(IndexedDataset(Silent()))
        )
