"""Which point of a search is chosen, its table and its figure."""

from hypothesis import given
from hypothesis import strategies as st

from lightning_noisy.reports.search import Point, chosen_point, search_figure, search_table

STATES = ("complete", "pruned", "failed", "running")


def point(score, state="complete", name="a", error=None):
    return Point({name: "1"}, state, score, "run" if state == "complete" else None, {0: 0.1, 3: 0.2}, error)


@given(st.lists(st.tuples(st.sampled_from([None, 0.0, 0.25, 0.5, 1.0]), st.sampled_from(STATES)), max_size=6))
def test_the_first_of_the_highest_that_are_complete_is_chosen(drawn):
    points = [point(*one) for one in drawn]
    complete = [one for one in points if one.state == "complete" and one.score is not None]
    best = [one for one in complete if all(one.score >= other.score for other in complete)]
    assert chosen_point(points) is (best[0] if best else None)


def test_the_table_says_what_became_of_each():
    points = [
        point(0.5),
        point(0.9, "pruned"),
        point(None, "failed", "abc", "loss is nan"),
        point(0.75),
        point(None, "running"),
    ]
    assert search_table(points, "val/acc").splitlines() == [
        "       noisy val/acc",
        "a 1     50.00 %  run",
        "a 1     90.00 %    pruned after epoch 3",
        "abc 1         -    failed: loss is nan",
        "a 1     75.00 %  run  chosen",
        "a 1           -    running",
    ]


def test_the_figure_has_each_point_and_the_best_of_the_complete_ones_so_far():
    points = [point(None, "failed"), point(0.5), point(0.9, "pruned"), point(0.25), point(0.75), point(0.1)]
    (axes,) = search_figure(points, "val/acc").axes
    best, failed = axes.lines
    assert (list(best.get_xdata()), list(best.get_ydata())) == ([2, 4, 5, 6, 6], [50, 50, 75, 75, 75])
    assert best.get_drawstyle() == "steps-post"
    assert list(failed.get_xdata()) == [1]
    found = {group.get_label(): group.get_offsets().tolist() for group in axes.collections}
    assert found == {
        "complete": [[2, 50], [4, 25], [5, 75], [6, 10]],
        "pruned": [[3, 90]],
        "chosen": [[5, 75]],
    }
    assert axes.get_ylabel() == "noisy val/acc in per cent"


def test_a_figure_of_nothing_is_one():
    search_figure([], "val/acc")
    search_figure([point(None, "running")], "val/acc")
