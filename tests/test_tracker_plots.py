"""Figures of the trackers show what they are given."""

import numpy as np
from matplotlib.colors import to_hex

from lightning_noisy.figures import curves_figure, gradient_weight_figure, of_groups
from lightning_noisy.figures.curves import GROUP_COLORS

HISTORY = {2: {"a/clean": 0.5, "a/noisy": 0.25, "b": 3.0}, 0: {"a/clean": 0.125, "b": 1.0}}


def test_panels_and_curves():
    left, right = curves_figure(HISTORY, {"first": of_groups("a"), "second": {"b": "it"}}, "title").axes
    curves = {to_hex(line.get_color()): (list(line.get_xdata()), list(line.get_ydata())) for line in left.lines}
    assert curves == {GROUP_COLORS["clean"]: ([0, 2], [0.125, 0.5]), GROUP_COLORS["noisy"]: ([2], [0.25])}
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["correctly labeled", "mislabeled"]
    assert list(right.lines[0].get_ydata()) == [1.0, 3.0]
    assert right.get_legend() is None
    assert (left.get_ylabel(), right.get_ylabel()) == ("first", "second")
    assert (left.get_title(loc="left"), right.get_title(loc="left")) == ("title", "")


def test_weights():
    weights = {name: np.array([1.0, 2.0]) * number for number, name in enumerate("abcdefghij")}
    (axes,) = gradient_weight_figure(np.array([0.25, 0.75]), weights).axes
    assert [line.get_label() for line in axes.lines] == list(weights)
    for line, values in zip(axes.lines, weights.values(), strict=True):
        assert list(line.get_ydata()) == list(values)
    looks = {(to_hex(line.get_color()), line.get_linestyle()) for line in axes.lines}
    assert len(looks) == len(weights)
