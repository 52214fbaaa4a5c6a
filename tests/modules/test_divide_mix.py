"""DivideMix against its algorithm in numpy, on linear networks in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from lightning_noisy import NoisyLabelError
from lightning_noisy.functional.random import hash_bits, hash_seed
from lightning_noisy.losses import DynamicsAwareLoss
from lightning_noisy.modules import mix_match
from tests.foreign import make_trainer
from tests.modules.recorded_steps import Array, Step, linear_strategy, record
from tests.modules.strategies import ViewsDataModule, make_data, make_strategy

ONE_HOT = np.eye(4)


def mixture(losses: Array) -> Array:
    """The posterior of the lower mean, straight from scikit-learn."""
    scaled = ((losses - losses.min()) / (losses.max() - losses.min()))[:, None]
    fit = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=0).fit(scaled)
    posterior: Array = fit.predict_proba(scaled)[:, fit.means_[:, 0].argmin()]
    return posterior


def sharpened(p: Array, temperature: float = 0.5) -> Array:
    powers = p ** (1 / temperature)
    shares: Array = powers / powers.sum(axis=1, keepdims=True)
    return shares


def mix_keys(step: Step) -> tuple[int, ...]:
    return mix_match._MIX_STREAM, 0, step.epoch, step.batch


def mixing(step: Step, rows: int, alpha: float) -> tuple[float, list[int]]:
    drawn = np.random.default_rng(hash_seed(*mix_keys(step))).beta(alpha, alpha)
    partners = hash_bits(*mix_keys(step), torch.arange(rows)).argsort(stable=True)
    return max(drawn, 1 - drawn), partners.tolist()


def mixed_loss(step: Step, turn: int, weight: float, used_part: str = "all", alpha: float = 4.0) -> float:
    """The loss of a network on a batch, as the paper has it."""
    clean, labeled = (step.stores[name][step.index, turn] for name in ("clean", "labeled"))
    clean = clean.astype(np.float64)
    own = np.mean([step.probabilities(view, f"networks.{turn}") for view in step.views], axis=0)
    other = np.mean([step.probabilities(view, f"networks.{1 - turn}") for view in step.views], axis=0)
    refined = sharpened(clean[:, None] * ONE_HOT[step.target] + (1 - clean[:, None]) * own)[labeled]
    guessed = sharpened((own + other) / 2)[~labeled]
    inputs = np.concatenate([view[labeled] for view in step.views] + [view[~labeled] for view in step.views])
    targets = np.concatenate([refined, refined, guessed, guessed])
    share, partners = mixing(step, len(inputs), alpha)
    inputs, targets = (share * rows + (1 - share) * rows[partners] for rows in (inputs, targets))
    first = 2 * labeled.sum()
    if used_part == "labeled":
        inputs = inputs[:first]
    p = step.probabilities(inputs, f"networks.{turn}")
    supervised = -(targets[:first] * np.log(p[:first])).sum(axis=1).mean()
    unsupervised = ((p[first:] - targets[first : len(p)]) ** 2).mean() if len(p) > first else 0.0
    penalty = (np.log(1 / 4 / p.mean(axis=0)) / 4).sum()
    return float(supervised + weight * unsupervised + penalty)


def turns_of(steps: list[Step], epoch: int) -> list[tuple[int, Step]]:
    """The steps of an epoch, with the number of the network that learns in each: the only one that moves."""
    found = []
    for number, step in enumerate(steps):
        turn = int((step.weights["turns"][:, 0] <= step.batch).sum())
        for other in {0, 1} - {turn} if step is not steps[-1] else ():
            name = f"networks.{other}.head.weight"
            assert np.array_equal(step.weights[name], steps[number + 1].weights[name])
        if step.epoch == epoch:
            found.append((turn, step))
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[Step]]:
    module = linear_strategy("DivideMix", warmup_epochs=1, lambda_u=30.0, rampup_epochs=4, confidence_penalty=0.5)
    return module, record(tmp_path_factory.mktemp("run"), module, views=2, num_samples=44)


def test_networks_learn_one_after_the_other_from_whole_batches(run: tuple[Any, list[Step]]) -> None:
    for epoch in range(3):
        turns = [turn for turn, _ in turns_of(run[1], epoch)]
        assert turns == sorted(turns)
        assert set(turns) == {0, 1}
        assert {len(step.index) for step in run[1]} == {8}
    for turn in range(2):  # 44 samples fill 5 batches and a half: 4 are seen again
        seen = [i for number, step in turns_of(run[1], 0) if number == turn for i in step.index.tolist()]
        assert len(seen) == 48
        assert set(seen) == set(range(44))
        assert seen[44:] == seen[:4]
    assert turns_of(run[1], 0)[0][1].index.tolist() != turns_of(run[1], 0)[6][1].index.tolist()


def test_warm_up_is_the_loss_of_one_view_and_a_confidence_penalty(run: tuple[Any, list[Step]]) -> None:
    for turn, step in turns_of(run[1], 0):
        p = step.probabilities(step.views[0], f"networks.{turn}")
        expected = -np.log(p[np.arange(8), step.target]).mean() + 0.5 * (p * np.log(p)).sum(axis=1).mean()
        assert step.loss == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("epoch", [1, 2])
def test_each_network_learns_what_the_other_one_finds_clean(run: tuple[Any, list[Step]], epoch: int) -> None:
    first = next(step for step in run[1] if step.epoch == epoch)
    data = ViewsDataModule(2, seed=0, val_fraction=0.0, num_samples=44)
    data.setup("test")
    images, given = torch.stack([data._scored[i][0] for i in range(44)]).double().numpy(), data.noisy_targets.numpy()
    for turn in range(2):
        theirs = first.probabilities(images, f"networks.{1 - turn}")
        expected = mixture(-np.log(theirs[np.arange(44), given]))
        np.testing.assert_allclose(first.stores["clean"][:, turn], expected, atol=1e-6)
        assert (first.stores["labeled"][:, turn] == (expected > 0.5)).all()
        mine = [step for number, step in turns_of(run[1], epoch) if number == turn]
        labeled = [first.stores["labeled"][step.index, turn] for step in mine]
        assert all((flags == ([True] * 4 + [False] * 4)).all() for flags in labeled)  # half and half
        visited = {int(i) for step, flags in zip(mine, labeled, strict=True) for i in step.index[flags]}
        assert visited == set(np.flatnonzero(expected > 0.5).tolist())
        assert len(mine) == -(-len(visited) // 4)


@pytest.mark.parametrize("epoch", [1, 2])
def test_the_loss_of_each_step(run: tuple[Any, list[Step]], epoch: int) -> None:
    steps = turns_of(run[1], epoch)
    for turn in range(2):
        mine = [step for number, step in steps if number == turn]
        for number, step in enumerate(mine):
            weight = 30 * min(1, (epoch - 1 + number / len(mine)) / 4)
            assert step.loss == pytest.approx(mixed_loss(step, turn, weight), rel=1e-9)


def test_what_is_logged(run: tuple[Any, list[Step]]) -> None:
    module, steps = run
    assert "selection/network_0/size" not in module.history[0]
    for epoch in (1, 2):
        stores = next(step.stores for step in steps if step.epoch == epoch)
        right = module._well_labeled.numpy()
        for turn in range(2):
            labeled, name = stores["labeled"][:, turn], f"selection/network_{turn}"
            assert module.history[epoch][f"{name}/size"] == pytest.approx(labeled.mean())
            assert module.history[epoch][f"{name}/precision"] == pytest.approx(right[labeled].mean())
            assert module.history[epoch][f"{name}/recall"] == pytest.approx(labeled[right].mean())
    images = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(module(images).double(), module.networks[0](images) + module.networks[1](images))


def test_mostly_unlabeled_mixtures_may_be_left_out(tmp_path: Path) -> None:
    module = linear_strategy("DivideMix", warmup_epochs=1, lambda_u=None, alpha=0.5, threshold=0.3)
    seen: list[int] = []
    for network in module.networks:
        network.register_forward_hook(
            lambda _, args, __: seen.append(len(args[0])) if torch.is_grad_enabled() else None
        )
    steps = record(tmp_path, module, views=2, max_epochs=2, num_samples=40)
    for turn, step in turns_of(steps, 1):
        assert step.loss == pytest.approx(mixed_loss(step, turn, 0.0, "labeled", alpha=0.5), rel=1e-9)
    assert set(seen[10:]) == {8}  # two views of four labeled samples
    stores = steps[-1].stores
    assert (stores["labeled"] == (stores["clean"] > 0.3)).all()


def test_agreement_follows_a_warm_up_with_another_loss(tmp_path: Path) -> None:
    module = linear_strategy("DivideMix", DynamicsAwareLoss(0.7), warmup_epochs=1, agreement_epochs=1)
    steps = record(tmp_path, module, views=2, num_samples=40)
    for turn, step in turns_of(steps, 0):
        p = step.probabilities(step.views[0], f"networks.{turn}")[np.arange(8), step.target]
        assert step.loss == pytest.approx(((1 - p**0.7) / 0.7).mean(), rel=1e-6)
    agreeing = []
    for turn, step in turns_of(steps, 1):
        p = step.probabilities(step.views[0], f"networks.{turn}")
        agrees = p.argmax(axis=1) == step.target
        expected = -np.log(p[np.arange(8), step.target])[agrees].sum() / max(1, agrees.sum())
        assert step.loss == pytest.approx(expected, rel=1e-9)
        agreeing.append(agrees.mean())
    assert 0 < np.mean(agreeing) < 1
    assert "clean" not in steps[15].stores
    assert turns_of(steps, 2)[0][1].loss == pytest.approx(mixed_loss(*turns_of(steps, 2)[0][::-1], 0.0), rel=1e-9)


def test_the_fit_may_be_to_the_mean_of_several_epochs(tmp_path: Path) -> None:
    module = linear_strategy("DivideMix", warmup_epochs=1, loss_window=2)
    steps = record(tmp_path, module, views=2, max_epochs=5, num_samples=40)
    seen = [next(step.stores for step in steps if step.epoch == epoch) for epoch in range(1, 5)]
    scaled = [(s["losses"] - s["losses"].min(axis=0)) / np.ptp(s["losses"], axis=0) for s in seen]
    np.testing.assert_allclose(seen[0]["fitted"], scaled[0], atol=1e-6)
    for now in range(1, 4):
        np.testing.assert_allclose(seen[now]["fitted"], (scaled[now] + scaled[now - 1]) / 2, atol=1e-6)


def test_an_epoch_may_be_about_a_balanced_part(tmp_path: Path) -> None:
    module = linear_strategy("DivideMix", warmup_epochs=2, samples_per_epoch=14)
    steps = record(tmp_path, module, views=2, num_samples=60)
    parts = []
    for epoch in range(3):
        chosen = [step for _, step in turns_of(steps, epoch)]
        label = {int(i): int(y) for step in chosen for i, y in zip(step.index, step.target, strict=True)}
        parts.append(set(label))
        assert sorted(np.bincount(list(label.values()))) in ([2, 4, 4, 4], [3, 3, 4, 4])
    assert parts[0] != parts[1]
    step = next(step for step in steps if step.epoch == 2)
    part = sorted(parts[2])
    assert np.flatnonzero(step.stores["part"]).tolist() == part
    data = ViewsDataModule(2, seed=0, val_fraction=0.0, num_samples=60)
    data.setup("test")
    images, given = torch.stack([data._scored[i][0] for i in part]).double().numpy(), data.noisy_targets[part].numpy()
    for turn in range(2):
        losses = -np.log(step.probabilities(images, f"networks.{1 - turn}")[np.arange(14), given])
        np.testing.assert_allclose(step.stores["clean"][part, turn], mixture(losses), atol=1e-6)
        np.testing.assert_allclose(step.stores["losses"][part, 1 - turn], losses, rtol=1e-6)
    assert (np.delete(step.stores["losses"], part, axis=0) == 0).all()  # nobody has looked at the others
    right = module._well_labeled.numpy()[part]
    labeled = step.stores["labeled"][part, 0]
    assert module.history[2]["selection/network_0/size"] == pytest.approx(labeled.mean())
    assert module.history[2]["selection/network_0/recall"] == pytest.approx(labeled[right].mean())


def test_figures_of_both_networks(tmp_path: Path) -> None:
    module = make_strategy("DivideMix", agreement_epochs=0)
    make_trainer(tmp_path, max_epochs=2, logger=True).fit(module, datamodule=make_data("DivideMix"))
    assert {path.name for path in tmp_path.rglob("figures/mixture-*.png")} == {
        "mixture-network_0.png",
        "mixture-network_1.png",
    }


@pytest.mark.parametrize(
    ("options", "data", "message"),
    [
        ({"threshold": 1.0}, {}, r"^Expected argument `threshold` to be a float in \[0, 1\), but got 1\.0\.$"),
        ({"lambda_u": -1.0}, {}, r"^Expected argument `lambda_u` to be a float >= 0, or None, but got -1\.0\.$"),
        ({"warmup_epochs": 0}, {}, r"^Expected argument `warmup_epochs` to be an int of at least 1"),
        ({"threshold": 0.9999999}, {}, r"^DivideMix has found no label to learn from in epoch 1: lower the threshold"),
        ({}, {"batch_size": 1}, r"^Expected argument `batch_size` to be at least 2, .*, but got 1\.$"),
    ],
)
def test_what_is_refused(tmp_path: Path, options: dict[str, Any], data: dict[str, Any], message: str) -> None:
    with pytest.raises(NoisyLabelError, match=message):
        record(tmp_path, linear_strategy("DivideMix", **{"warmup_epochs": 1, **options}), views=2, **data)
