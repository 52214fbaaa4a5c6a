"""Co-teaching, Co-teaching+, JoCoR and Decoupling against the papers' steps in float64, with sorts of Python's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_noisy.losses import DeepAbstainingClassifier
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

X, Y = make_samples(18)
BATCH, EPOCHS = 6, 4


def smallest(losses: Tensor, count: int, among: list[int] | None = None) -> list[int]:
    rows = range(len(losses)) if among is None else among
    return sorted(rows, key=lambda row: (losses[row].item(), row))[:count]


def simulate(module: Any, step: Any) -> list[list[Tensor]]:
    """What both networks know in the end; ``step(epoch, first, second, x, y)`` gives the loss of a batch."""
    both = [weights(network) for network in module.networks]
    for epoch in range(EPOCHS):
        for start in range(0, len(Y), BATCH):
            x, y = X[start : start + BATCH], Y[start : start + BATCH]
            descend(step(epoch, linear(both[0], x), linear(both[1], x), y), *both)
    return both


def assert_both_learned(module: Any, both: list[list[Tensor]]) -> None:
    for network, own in zip(module.networks, both, strict=True):
        assert_learned(network, own)


def test_each_network_learns_from_the_samples_that_the_other_one_chose(tmp_path: Path) -> None:
    """Six samples of which each keeps two. The other four have no gradient in the other network."""
    module: Any = make_linear("CoTeaching", forget_rate=2 / 3, ramp_epochs=1)
    module.forget_rate, module.ramp_epochs = 2 / 3, 0  # from the first epoch on
    before = [weights(network) for network in module.networks]
    easy = [smallest(cross_entropies(linear(own, X[:6]), Y[:6]), 2) for own in before]
    assert not set(easy[0]) & set(easy[1])  # so that a missing exchange would show
    fit(tmp_path, module, X[:6], Y[:6], 6)
    for own, rows in zip(before, easy[::-1], strict=True):
        descend(cross_entropies(linear(own, X[rows]), Y[rows]).mean(), own)
    assert_both_learned(module, before)


@pytest.mark.parametrize("twice", [False, True])
def test_co_teaching_over_its_ramp(tmp_path: Path, twice: bool) -> None:
    """R = 0, 0.25, 0.5, 0.5: of six samples 6, 4, 3 and 3 are kept."""

    def step(epoch: int, first: Tensor, second: Tensor, y: Tensor) -> Tensor:
        keep = (6, 4, 3, 3)[epoch]
        losses = cross_entropies(first, y), cross_entropies(second, y)
        own, other = losses[0][smallest(losses[1], keep)], losses[1][smallest(losses[0], keep)]
        return (own.mean() + other.mean()) / (keep if twice else 1)

    module = make_linear("CoTeaching", forget_rate=0.5, ramp_epochs=3, divide_twice=twice)
    expected = simulate(module, step)
    history = fit(tmp_path, module, X, Y, BATCH, EPOCHS)
    assert_both_learned(module, expected)
    assert [seen["selection/keep_rate"] for seen in history.values()] == pytest.approx([1, 0.75, 0.5, 0.5])
    sizes = [seen["selection/network_1/size"] for seen in history.values()]
    assert sizes == pytest.approx([1, 4 / 6, 0.5, 0.5])


@pytest.mark.parametrize("code", [False, True])
def test_co_teaching_plus_chooses_among_what_they_disagree_on(tmp_path: Path, code: bool) -> None:
    seen: set[int] = set()

    def step(epoch: int, first: Tensor, second: Tensor, y: Tensor) -> Tensor:
        keep, rows = (1, 0.75, 0.5, 0.5)[epoch], list(range(len(y)))
        if epoch >= 2:
            apart = [row for row in rows if first[row].argmax() != second[row].argmax()]
            seen.add(len(apart))
            if code:
                first, second = probabilities(first), probabilities(second)
            losses = cross_entropies(first, y), cross_entropies(second, y)
            if not apart:
                return losses[0].mean() + losses[1].mean()
            rows = apart
        else:
            losses = cross_entropies(first, y), cross_entropies(second, y)
        count = max(1, int(keep * len(rows)))
        own, other = (smallest(each, count, rows) for each in losses)
        return (losses[0][other].mean() + losses[1][own].mean()) / (count if code else 1)

    as_published = {"double_softmax": code, "divide_twice": code}
    module = make_linear(
        "CoTeachingPlus", forget_rate=0.5, ramp_epochs=3, warmup_epochs=2, seed=1 + code, **as_published
    )
    expected = simulate(module, step)
    assert 0 in seen
    assert max(seen) > 1
    fit(tmp_path, module, X, Y, BATCH, EPOCHS)
    assert_both_learned(module, expected)


def test_jocor_learns_from_what_both_find_easy_and_agree_on(tmp_path: Path) -> None:
    def step(epoch: int, first: Tensor, second: Tensor, y: Tensor) -> Tensor:
        p, q = probabilities(first), probabilities(second)
        apart = (p * (p / q).log()).sum(dim=1) + (q * (q / p).log()).sum(dim=1)
        joint = 0.2 * (cross_entropies(first, y) + cross_entropies(second, y)) + 0.8 * apart
        return joint[smallest(joint, (6, 4, 3, 3)[epoch])].mean()

    module = make_linear("JoCoR", forget_rate=0.5, ramp_epochs=3, agreement=0.8)
    expected = simulate(module, step)
    fit(tmp_path, module, X, Y, BATCH, EPOCHS)
    assert_both_learned(module, expected)


def test_decoupling_learns_from_disagreement_alone(tmp_path: Path) -> None:
    seen: set[int] = set()

    def step(epoch: int, first: Tensor, second: Tensor, y: Tensor) -> Tensor:
        apart = [row for row in range(len(y)) if epoch < 1 or first[row].argmax() != second[row].argmax()]
        seen.add(len(apart))
        if not apart:
            return 0 * first.sum()
        return cross_entropies(first[apart], y[apart]).mean() + cross_entropies(second[apart], y[apart]).mean()

    module = make_linear("Decoupling", warmup_epochs=1, seed=1)
    expected = simulate(module, step)
    assert {0, BATCH} < seen
    fit(tmp_path, module, X, Y, BATCH, EPOCHS)
    assert_both_learned(module, expected)


def test_networks_that_agree_teach_decoupling_nothing(tmp_path: Path) -> None:
    module: Any = make_linear("Decoupling")
    module.networks[1].load_state_dict(module.networks[0].state_dict())
    before = [weights(network) for network in module.networks]
    history = fit(tmp_path, module, X, Y, BATCH)
    assert history[0]["train/loss"] == history[0]["selection/size"] == 0
    assert all(
        torch.equal(a, b)
        for n, own in zip(module.networks, before, strict=True)
        for a, b in zip(n.parameters(), own, strict=True)
    )


def test_class_weights_divide_the_mean_of_what_is_chosen(tmp_path: Path) -> None:
    share = torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64)
    module: Any = make_linear("CoTeaching", nn.CrossEntropyLoss(weight=share))
    module.forget_rate, module.ramp_epochs = 0.5, 0
    before = [weights(network) for network in module.networks]
    easy = [smallest(share[Y[:6]] * cross_entropies(linear(own, X[:6]), Y[:6]), 3) for own in before]
    fit(tmp_path, module, X[:6], Y[:6], 6)
    for own, rows in zip(before, easy[::-1], strict=True):
        losses = share[Y[rows]] * cross_entropies(linear(own, X[rows]), Y[rows])
        descend(losses.sum() / share[Y[rows]].sum(), own)
    assert_both_learned(module, before)


@pytest.mark.parametrize("name", ["Decoupling", "CoTeachingPlus"])
def test_abstaining_is_no_disagreement(tmp_path: Path, name: str) -> None:
    """The second network is the first one, but it abstains from everything."""
    module: Any = make_linear(name, DeepAbstainingClassifier(), warmup_epochs=0)
    with torch.no_grad():
        module.networks[1].load_state_dict(module.networks[0].state_dict())
        module.networks[1].head.bias[-1] += 50
    outputs = module.all_outputs(X[:6])
    assert (outputs[1].logits.argmax(dim=1) == CLASSES).all()
    assert not module.disagreement(outputs).any()
