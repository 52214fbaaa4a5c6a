"""Running figures against a whole history in float64, and classes that are given up."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from lightning_noisy.functional import dynamics
from lightning_noisy.functional.collapse import collapse_message, collapsed_classes
from lightning_noisy.functional.dynamics import DynamicsTable
from tests.largest_tensor import LargestTensor

SAMPLES, CLASSES = 60, 4


def history(epochs, seed=0):
    """Log-probabilities (epochs, N, K), NaN where a sample was not seen, and given labels; the last is never seen."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(epochs, SAMPLES, CLASSES), scale=2)
    z[:, 0] = 1.0  # does not move
    likely = z - np.log(np.exp(z).sum(axis=2, keepdims=True))
    likely[rng.random((epochs, SAMPLES)) < 0.3] = np.nan
    likely[:, -1] = np.nan
    return likely, rng.integers(0, CLASSES, SAMPLES)


def table_of(likely, given, first=0, table=None):
    table = table or DynamicsTable(SAMPLES, likely.shape[2])
    for epoch in range(first, len(likely)):
        table.add(epoch, torch.tensor(likely[epoch]).float(), torch.tensor(given))
    return table


def expected(sample, likely, given):
    """Each figure of a sample from its whole history."""
    epochs = np.flatnonzero(~np.isnan(likely[:, sample, 0]))
    seen = likely[epochs, sample]
    p = np.exp(seen[:, given[sample]])
    m = seen[:, given[sample]] - np.delete(seen, given[sample], axis=1).max(axis=1)
    predicted = seen.argmax(axis=1).tolist()
    right = [label == given[sample] for label in predicted]
    forgotten = [int(epochs[i]) for i in range(1, len(epochs)) if right[i - 1] and not right[i]]
    learned = [int(epoch) for epoch, good in zip(epochs, right, strict=True) if good]
    counts = [predicted.count(label) for label in range(CLASSES)]
    modal = predicted[-1] if counts[predicted[-1]] == max(counts) else counts.index(max(counts))
    return {
        "visits": len(epochs),
        "label": given[sample],
        "confidence": p.mean(),
        "trend": np.polyfit(epochs, p, 1)[0] if len(epochs) > 1 else 0.0,
        "variability": p.std(),
        "final_confidence": p[-1],
        "margin": m.mean(),
        "modal_share": max(counts) / len(epochs),
        "forgotten": len(forgotten),
        "last_forgotten": forgotten[-1] if forgotten else -1,
        "first_learned": learned[0] if learned else -1,
        "last_prediction": predicted[-1],
        "modal_prediction": modal,
    }


@pytest.mark.parametrize("rows", [SAMPLES, 7])
def test_figures_are_those_of_the_whole_history(monkeypatch, rows):
    monkeypatch.setattr(dynamics, "_ROWS", rows)
    told = history(epochs=23)
    table = table_of(*told)
    figures = table.figures()
    assert np.allclose(table.beliefs()[:-1], np.nanmean(told[0][:, :-1], axis=0), atol=1e-5)
    assert not table.beliefs()[-1].any()
    for sample in range(SAMPLES - 1):
        for name, value in expected(sample, *told).items():
            assert figures[name][sample].item() == pytest.approx(value, abs=2e-6), (name, sample)
    assert {name: column[-1].item() for name, column in figures.items() if not column.is_floating_point()} == {
        "visits": 0, "label": -1, "forgotten": 0, "last_forgotten": -1, "first_learned": -1,
        "last_prediction": -1, "modal_prediction": -1,
    }  # fmt: skip
    assert all(column[-1].isnan() for column in figures.values() if column.is_floating_point())


def test_an_epoch_is_added_without_a_second_table(monkeypatch):
    monkeypatch.setattr(dynamics, "_ROWS", 7)
    likely, given = history(epochs=1)
    table, likely, given = DynamicsTable(SAMPLES, CLASSES), torch.tensor(likely[0]).float(), torch.tensor(given)
    with LargestTensor() as largest:
        table.add(0, likely, given)
        table.figures()
    assert largest.elements <= max(7 * CLASSES, SAMPLES)


def test_small_spreads_survive_many_epochs():
    confidence = 0.9 + 1e-3 * np.random.default_rng(1).random((300, SAMPLES))
    told = np.log(np.stack([confidence, 1 - confidence], axis=2)), np.zeros(SAMPLES, int)
    figures = table_of(*told).figures()
    assert torch.allclose(figures["variability"].double(), torch.tensor(confidence.std(axis=0)), rtol=2e-3)


def test_a_saved_table_goes_on():
    told = history(epochs=9)
    file = io.BytesIO()
    half = table_of(told[0][:5], told[1])
    torch.save(half.state_dict(), file)
    saved = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    again = DynamicsTable.restored(saved)
    for name, column in half.rows.items():  # no second copy in memory, neither way
        assert half.state_dict()[name] is column
        assert again.rows[name] is saved[name]
    whole = table_of(*told).figures()
    for name, column in table_of(*told, first=5, table=again).figures().items():
        assert torch.equal(column.nan_to_num(-7), whole[name].nan_to_num(-7)), name


def test_classes_that_are_given_up():
    predicted, given = torch.tensor([9, 10, 0, 0, 500, 0]), torch.tensor([100, 100, 0, 5, 100, 12])
    assert collapsed_classes(predicted, given) == [0, 5]  # of 63.4 labels a class; five are too few to judge
    assert collapsed_classes(torch.tensor([8, 0]), torch.tensor([4, 4])) == []
    assert collapsed_classes(torch.tensor([10, 0]), torch.tensor([5, 5])) == [1]
    assert collapsed_classes(given, given) == []
    assert collapsed_classes(torch.zeros(3), torch.zeros(3)) == []
    said = collapse_message([0, 3], 0.345, ["ant", "bee", "cat", "dog", "eel"])
    assert said.startswith("2 classes are (almost) never predicted, though 34% of the labels are theirs: ant, dog. ")
    assert collapse_message([2], 0.1).startswith(
        "1 class is (almost) never predicted, though 10% of the labels are theirs: 2."
    )
    assert "theirs: a  b." in collapse_message([0], 0.1, ["a\udcff\nb", "c"])
    assert "and 5 more" in collapse_message(list(range(15)), 1.0)
