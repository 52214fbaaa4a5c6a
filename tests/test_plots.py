import ast
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib import _pylab_helpers
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import lightning_noisy
from lightning_noisy.figures import (
    comparison_figure,
    confidence_figure,
    mask_figure,
    memorization_figure,
    mixture_figure,
    transition_figure,
)
from lightning_noisy.figures import (
    curves as curve_figures,
)

PACKAGE = Path(lightning_noisy.__file__).parent


def confidence(clean, noisy):
    return {
        e: {"train/conf/clean": c, "train/conf/noisy": n} for e, (c, n) in enumerate(zip(clean, noisy, strict=True))
    }


HISTORY = confidence([0.2, 0.5, 0.9], [0.1, 0.3, 0.6])
ACCURACIES = {"plain": {0: [0.2, 0.4], 1: [0.5, 0.5], 2: [0.7, 0.6]}, "robust": {0: [0.3], 1: [0.6], 2: [0.9]}}
MEMORIZATION = {
    epoch: {f"train/memorization/{name}": share for name, share in shares.items()}
    for epoch, shares in {
        0: {"noisy/correct": 0.2, "noisy/memorized": 0.1, "noisy/other": 0.7, "clean/correct": 0.3, "clean/wrong": 0.7},
        1: {"noisy/correct": 0.5, "noisy/memorized": 0.3, "noisy/other": 0.2, "clean/correct": 0.8, "clean/wrong": 0.2},
        2: {"noisy/correct": 0.1, "noisy/memorized": 0.8, "noisy/other": 0.1, "clean/correct": 1.0, "clean/wrong": 0.0},
    }.items()
}
COUNTS = np.array([[7, 2, 1], [0, 4, 0], [1, 0, 299], [0, 0, 0], [3, 1, 0]])
KEPT = np.linspace(0, 1, 24).reshape(4, 6)
CONFIDENCES = {"robust": confidence([0.2, 0.4, 0.6], [0.1, 0.2, 0.2]), "plain": HISTORY}


def curves(axes):
    """(x, y, color, style) of the lines that hold data."""
    return [
        ([int(x) for x in line.get_xdata()], list(line.get_ydata()), to_hex(line.get_color()), line.get_linestyle())
        for line in axes.lines
        if len(line.get_xdata())
    ]


def png(figure):
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=60)
    return stream.getvalue()


def legend_texts(legend):
    return [text.get_text() for text in legend.get_texts()]


# pyplot


def test_plots_do_without_pyplot():
    """Loaded by path: other packages (torchmetrics) import pyplot themselves."""
    code = (
        "import importlib.util, sys; "
        f"spec = importlib.util.spec_from_file_location('curves', {curve_figures.__file__!r}); "
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module); "
        "module.confidence_figure({0: {'train/conf/clean': 0.5}}).savefig(sys.stdout.buffer, format='png'); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)

    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.startswith(b"\x89PNG")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_file_of_the_package_imports_pyplot(path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}

    assert not {name for name in imported if "pyplot" in name or "pylab" in name}


@pytest.mark.parametrize(
    "draw",
    [
        lambda: confidence_figure(HISTORY),
        lambda: comparison_figure(ACCURACIES, CONFIDENCES),
        lambda: memorization_figure(MEMORIZATION),
        lambda: mask_figure(KEPT),
        lambda: mixture_figure(np.arange(9.0), lambda points: np.stack([points, points**2])),
        lambda: transition_figure(COUNTS),
    ],
)
def test_figures_belong_to_nobody_and_can_be_drawn(draw):
    before = set(_pylab_helpers.Gcf.figs)
    figure = draw()

    assert type(figure) is Figure
    assert set(_pylab_helpers.Gcf.figs) == before
    assert png(figure).startswith(b"\x89PNG")
    assert png(draw()) == png(draw())


# Confidence


def test_confidence_curves_carry_the_history():
    shuffled = {epoch: HISTORY[epoch] for epoch in (2, 0, 1)}
    (axes,) = confidence_figure(shuffled, "my run").axes

    by_label = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}
    assert by_label == {
        "correctly labeled": ([0, 1, 2], [0.2, 0.5, 0.9]),
        "mislabeled": ([0, 1, 2], [0.1, 0.3, 0.6]),
    }
    assert legend_texts(axes.get_legend()) == ["correctly labeled", "mislabeled"]
    assert axes.get_ylim() == (0, 1)
    assert len({line.get_color() for line in axes.lines}) == 2
    assert "my run" in {axes.get_title(loc=side) for side in ("left", "center", "right")}


def test_confidence_of_what_is_known():
    history = {0: {"train/conf/all": 0.3}, 1: {"train/conf/clean": 0.4}, 2: {"train/conf/all": 0.5}}
    (axes,) = confidence_figure(history).axes

    assert [curve[:2] for curve in curves(axes)] == [([1], [0.4]), ([0, 2], [0.3, 0.5])]
    assert legend_texts(axes.get_legend()) == ["correctly labeled", "whole training set"]


def test_a_single_epoch_is_visible_and_counted_in_whole_numbers():
    figure = confidence_figure({0: {"train/conf/clean": 0.3}})
    (axes,) = figure.axes

    assert len(set(axes.lines[0].get_marker())) == 1
    assert axes.lines[0].get_marker() not in ("None", "")
    png(figure)
    assert [tick for tick in axes.get_xticks() if tick != round(tick)] == []


def test_no_history_is_an_empty_figure(recwarn):
    (axes,) = confidence_figure({}).axes

    assert not axes.lines
    assert axes.get_legend() is None
    assert not recwarn.list


# Memorization


def areas(axes):
    """color -> height of each area at every epoch, from its outline."""
    found = {}
    for area in axes.collections:
        corners = area.get_paths()[0].vertices
        heights = {x: np.ptp([round(y, 9) for at, y in corners if at == x]) for x in {x for x, _ in corners}}
        found[to_hex(area.get_facecolor()[0])] = {float(x): round(float(h), 9) for x, h in heights.items()}
    return found


def test_memorization_shares_stand_on_one_another():
    shuffled = {epoch: MEMORIZATION[epoch] for epoch in (2, 0, 1)}
    figure = memorization_figure(shuffled, "my run")
    noisy, clean = figure.axes
    names = dict(zip(legend_texts(figure.legends[0]), figure.legends[0].get_patches(), strict=True))
    colors = {text: to_hex(patch.get_facecolor()) for text, patch in names.items()}

    assert list(colors) == ["the true class", "the wrong label it was given", "another class"]
    assert len(set(colors.values())) == 3
    expected = {
        "the true class": [0.2, 0.2, 0.5, 0.1, 0.1],
        "the wrong label it was given": [0.1, 0.1, 0.3, 0.8, 0.8],
        "another class": [0.7, 0.7, 0.2, 0.1, 0.1],
    }
    ends = [-0.5, 0.0, 1.0, 2.0, 2.5]
    assert areas(noisy) == {colors[text]: dict(zip(ends, shares, strict=True)) for text, shares in expected.items()}
    assert areas(clean) == {
        colors["the true class"]: dict(zip(ends, [0.3, 0.3, 0.8, 1.0, 1.0], strict=True)),
        colors["another class"]: dict(zip(ends, [0.7, 0.7, 0.2, 0.0, 0.0], strict=True)),
    }
    assert noisy.get_ylim() == clean.get_ylim() == (0, 1)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Mislabeled samples", "Correctly labeled samples"]
    assert figure.get_suptitle() == "my run"


def test_memorization_of_one_epoch_is_visible():
    noisy, _ = memorization_figure({7: MEMORIZATION[0]}).axes
    assert noisy.get_xlim() == (6.5, 7.5)
    assert all(set(heights) == {6.5, 7.0, 7.5} for heights in areas(noisy).values())
    assert [tick for tick in noisy.get_xticks() if tick != round(tick)] == []


@pytest.mark.parametrize(
    "history", [{}, {0: {}, 1: {"train/memorization/clean/correct": 1.0, "train/memorization/clean/wrong": 0.0}}]
)
def test_memorization_of_what_is_known(history, recwarn):
    figure = memorization_figure(history)
    noisy, clean = figure.axes
    assert not noisy.collections
    assert len(clean.collections) == (2 if history else 0)
    png(figure)
    assert not recwarn.list


# Mask


@pytest.mark.parametrize("shape", [(2, 3), (10, 512), (100, 512), (1000, 2048), (21, 4096)])
def test_every_edge_has_its_place_in_the_map(shape):
    kept = np.random.default_rng(0).random(shape)
    figure = mask_figure(kept, "classifier")
    axes, bar = figure.axes
    (image,) = axes.images

    assert np.array_equal(image.get_array(), kept)
    assert image.get_clim() == (0, 1)
    assert tuple(image.get_extent()) == (-0.5, shape[1] - 0.5, shape[0] - 0.5, -0.5)  # the first class at the top
    assert (axes.get_xlabel(), axes.get_ylabel(), bar.get_ylabel()) == ("input feature", "class", "share of steps kept")
    assert axes.get_title(loc="left") == "classifier"
    assert [tick for tick in (*axes.get_xticks(), *axes.get_yticks()) if tick != round(tick)] == []


def test_a_map_is_as_large_as_it_needs_to_be():
    sizes = {
        shape: mask_figure(np.zeros(shape)).get_size_inches() for shape in [(2, 3), (10, 512), (100, 512), (1000, 4096)]
    }
    assert all(6 <= width <= 16 and 1.5 <= height <= 8 for width, height in sizes.values())
    assert sizes[10, 512][1] < sizes[100, 512][1]


def test_rows_and_columns_of_a_map_stay_apart():
    """Each edge of 10 x 512 is sharp: no color but those of 0 and of 1."""
    kept = np.indices((10, 512)).sum(axis=0) % 2
    figure = mask_figure(kept.astype(float))
    axes = figure.axes[0]
    stream = io.BytesIO()
    figure.savefig(stream, format="raw", dpi=150)
    pixels = np.frombuffer(stream.getvalue(), np.uint8).reshape(round(figure.bbox.height), round(figure.bbox.width), 4)
    box = axes.get_window_extent()
    height = len(pixels)
    inside = pixels[height - int(box.y1) + 3 : height - int(box.y0) - 3, int(box.x0) + 3 : int(box.x1) - 3]
    assert len(np.unique(inside.reshape(-1, 4), axis=0)) == 2


# Mixture


def test_a_mixture_stands_on_the_histogram_of_what_it_was_fitted_to():
    values, wrong = np.array([0.0, 0.0, 0.0, 1.0, 1.0]), np.array([False, False, True, True, True])
    figure = mixture_figure(values, lambda points: np.stack([points + 1, 1e6 * points]), wrong, "network 0")
    (axes,) = figure.axes
    bars = [(patch.get_x(), patch.get_width(), patch.get_y(), patch.get_height()) for patch in axes.patches]
    filled = [(round(x, 2), round(y * w, 9), round(h * w, 9)) for x, w, y, h in bars if h]
    assert filled == [(0.0, 0.0, 0.4), (0.0, 0.4, 0.2), (0.98, 0.0, 0.4)]  # shares: clean, then wrong ones on them
    clean, mislabeled = axes.lines
    assert np.allclose(clean.get_ydata(), clean.get_xdata() + 1)
    assert np.allclose(mislabeled.get_ydata(), 1e6 * mislabeled.get_xdata())
    assert (clean.get_linestyle(), mislabeled.get_linestyle()) == ("-", "--")
    assert axes.get_ylim()[1] < 40  # that of the bars
    assert set(legend_texts(axes.get_legend())) == {
        "correctly labeled",
        "mislabeled",
        "taken for correct",
        "taken for wrong",
    }


@pytest.mark.parametrize("wrong", [None, np.zeros(3, bool), np.ones(3, bool)])
def test_a_mixture_of_equal_values_or_without_a_group(wrong, recwarn):
    figure = mixture_figure(np.full(3, 0.5), lambda points: np.zeros((2, len(points))), wrong)
    assert png(figure).startswith(b"\x89PNG")
    assert not recwarn.list


# What became of each class


def test_transitions_are_shares_of_each_class():
    axes, bar = transition_figure(COUNTS).axes
    (image,) = axes.images

    expected = [[0.7, 0.2, 0.1], [0, 1, 0], [1 / 300, 0, 299 / 300], [0, 0, 0], [0.75, 0.25, 0]]
    assert np.allclose(image.get_array(), expected, rtol=0, atol=1e-12)
    assert image.get_clim() == (0, 1)
    assert tuple(image.get_extent()) == (-0.5, 2.5, 4.5, -0.5)  # the first class at the top
    written = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts}
    assert written == {
        (0, 0): ".70",
        (0, 1): ".20",
        (0, 2): ".10",
        (1, 1): "1.00",
        (2, 2): "1.00",
        (4, 0): ".75",
        (4, 1): ".25",
    }
    assert axes.get_title(loc="left") == "Label noise: 2.52 % wrong"  # 8 of 318
    assert (axes.get_xlabel(), axes.get_ylabel(), bar.get_ylabel()) == (
        "given label",
        "true class",
        "share of the class",
    )


@pytest.mark.parametrize(("classes", "numbers"), [(20, 20), (21, 0), (100, 0)])
def test_numbers_are_written_where_there_is_room(classes, numbers):
    axes = transition_figure(np.eye(classes, dtype=np.int64)).axes[0]

    assert len(axes.texts) == numbers
    assert [tick for tick in axes.get_xticks() if tick != round(tick)] == []


@pytest.mark.parametrize("shape", [(2, 2), (10, 10), (20, 20), (100, 100), (100, 80)])
def test_labels_of_transitions_lie_inside_the_figure(shape):
    figure = transition_figure(np.ones(shape, dtype=np.int64))
    figure.savefig(io.BytesIO(), format="raw")
    axes, bar = figure.axes

    for label in (axes.xaxis.label, axes.yaxis.label, bar.yaxis.label):
        box = label.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width
        assert 0 <= box.y0 < box.y1 <= figure.bbox.height


def test_small_shares_differ_from_none():
    image = transition_figure(np.array([[990, 10], [0, 1000]])).axes[0].images[0]
    colors = image.to_rgba(image.get_array())

    assert np.abs(colors[0, 1] - colors[1, 0]).max() > 0.03


# Comparison


def test_comparison_shows_means_ranges_and_confidences():
    left, right = comparison_figure(ACCURACIES, CONFIDENCES).axes
    accuracy = [(x, [round(y, 9) for y in values]) for x, values, *_ in curves(left)]

    assert accuracy == [([0, 1, 2], [0.3, 0.5, 0.65]), ([0, 1, 2], [0.3, 0.6, 0.9])]
    corners = [{(x, round(y, 9)) for x, y in band.get_paths()[0].vertices} for band in left.collections]
    assert corners[0] == {(0, 0.2), (0, 0.4), (1, 0.5), (2, 0.6), (2, 0.7)}
    assert corners[1] == {(0, 0.3), (1, 0.6), (2, 0.9)}
    assert [curve[1] for curve in curves(right)] == [
        [0.2, 0.4, 0.6],
        [0.1, 0.2, 0.2],
        [0.2, 0.5, 0.9],
        [0.1, 0.3, 0.6],
    ]


def test_a_run_has_one_color_and_a_group_one_style():
    """Whatever the order of the two mappings."""
    left, right = comparison_figure(ACCURACIES, CONFIDENCES).axes
    plain, robust = (curve[2] for curve in curves(left))
    right_colors, right_styles = ([curve[part] for curve in curves(right)] for part in (2, 3))

    assert plain != robust
    assert right_colors == [robust, robust, plain, plain]
    assert right_styles == ["-", "--", "-", "--"]
    assert [to_hex(band.get_facecolor()[0][:3]) for band in left.collections] == [plain, robust]


def test_a_run_that_is_in_one_mapping_only_has_a_color_of_its_own():
    figure = comparison_figure(ACCURACIES, {"robust": HISTORY, "third": HISTORY})
    names = dict(zip(legend_texts(figure.legends[0]), figure.legends[0].legend_handles, strict=True))

    assert len({to_hex(names[run].get_color()) for run in ("plain", "robust", "third")}) == 3


def test_the_legend_names_runs_and_groups_and_covers_no_curve():
    figure = comparison_figure(ACCURACIES, CONFIDENCES)
    png(figure)
    (legend,) = figure.legends
    names = dict(zip(legend_texts(legend), legend.legend_handles, strict=True))

    assert list(names) == ["plain", "robust", "correctly labeled", "mislabeled"]
    assert [to_hex(names[run].get_color()) for run in ACCURACIES] == [curve[2] for curve in curves(figure.axes[0])]
    assert names["mislabeled"].get_linestyle() == "--"
    box = legend.get_window_extent()
    assert not any(box.overlaps(axes.get_tightbbox()) for axes in figure.axes)
    assert all(axes.get_legend() is None for axes in figure.axes)


@pytest.mark.parametrize("count", [1, 5, 12])
def test_every_run_is_drawn(count):
    runs = [f"run {i}" for i in range(count)]
    figure = comparison_figure(dict.fromkeys(runs, ACCURACIES["plain"]), dict.fromkeys(runs, HISTORY))
    left, right = figure.axes

    assert len(curves(left)) == count
    assert len(curves(right)) == 2 * count
    assert legend_texts(figure.legends[0])[:count] == runs
    assert len({curve[2] for curve in curves(left)}) == min(count, 8)


def test_runs_without_clean_labels_or_without_figures():
    confidences = {"unknown": {0: {"train/conf/all": 0.3}, 1: {"train/conf/all": 0.4}}, "nothing": {}}
    figure = comparison_figure({}, confidences)

    assert not curves(figure.axes[0])
    assert [curve[:2] for curve in curves(figure.axes[1])] == [([0, 1], [0.3, 0.4])]
    assert "whole training set" in legend_texts(figure.legends[0])
    assert not comparison_figure({}, {}).legends


def test_names_of_classes_stand_at_the_axes_while_there_is_room():
    names = ["ant", "$\\frac{$", "\udcff\n", "a name that is much too long"]
    figure = transition_figure(np.eye(4, 3, dtype=np.int64), names[:3])
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["ant", "$\\frac{$", "  "]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ant", "$\\frac{$", "  ", "3"]
    shown = [label.get_text() for label in mask_figure(np.zeros((4, 5)), names=names).axes[0].get_yticklabels()]
    assert shown[3] == "a name that is …"
    figure.savefig(io.BytesIO())
    many = transition_figure(np.eye(21, dtype=np.int64), [f"n{i}" for i in range(21)])
    assert "n0" not in [label.get_text() for label in many.axes[0].get_xticklabels()]
