"""What ``--search`` says."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.tuning.space import Listed, Range, grid_of, read_space


class Given:
    """Draws that are known."""

    def __init__(self, value):
        self.value, self.asked = value, []

    def suggest_float(self, name, low, high, *, log):
        self.asked.append((name, low, high, log))
        return self.value

    suggest_int = suggest_float

    def suggest_categorical(self, name, choices):
        self.asked.append((name, choices))
        return self.value


def grid(*searches):
    return grid_of(read_space(searches))


def test_the_grid_has_all_combinations_the_last_argument_fastest():
    assert grid("model.loss.q=0.5,0.7", "c=x,1e-3,-1") == [
        {"model.loss.q": q, "c": c} for q in ("0.5", "0.7") for c in ("x", "1e-3", "-1")
    ]
    assert grid("loss={a: 1}") == [{"loss": "{a: 1}"}]
    assert grid("path=a=b") == [{"path": "a=b"}]
    assert grid("path=../a,../b/..") == [{"path": "../a"}, {"path": "../b/.."}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.1..0.5", Range(0.1, 0.5, log=False, whole=False)),
        ("1..5", Range(1, 5, log=False, whole=False)),
        ("-1e-2...5", Range(-0.01, 0.5, log=False, whole=False)),
        ("1e-4..1e-1:log", Range(1e-4, 0.1, log=True, whole=False)),
        ("16..256:int", Range(16, 256, log=False, whole=True)),
        ("16..256:int:log", Range(16, 256, log=True, whole=True)),
        ("16..256:log:int", Range(16, 256, log=True, whole=True)),
        ("0.1", Listed(("0.1",))),
    ],
)
def test_ranges(text, expected):
    assert read_space([f"a={text}"]) == {"a": expected}


@pytest.mark.parametrize(
    "searches",
    [
        *([], ["q"], ["=1"], ["q="], ["q=1,"], ["q=,1"], ["q=1,1"], ["--q=1"], ["q=1", "q=2"], ["a=1,2", "b"], [""]),
        *(["q=1..2,3"], ["q=1..x"], ["q=1..2:lin"], ["q=1..2:"], ["q=1.."]),
    ],
)
def test_another_search_is_refused(searches):
    came = repr(searches[-1]) if searches else "None"
    with pytest.raises(NoisyLabelError, match=r"^Expected argument `search` to be `<name>=<value>,<value>,") as error:
        read_space(searches)
    assert str(error.value).endswith(f"but got {came}.")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2..1", "whose first end is the smaller"),
        ("1..1", "whose first end is the smaller"),
        ("1..1e999", "whose first end is the smaller"),
        ("0..1:log", "above 0 where its logarithm"),
        ("1.5..3:int", "between whole numbers"),
    ],
)
def test_another_range_is_refused(text, wanted):
    with pytest.raises(NoisyLabelError, match=f"`search` to be a range {wanted}.*, but got 'a={text}'"):
        read_space([f"a={text}"])


@pytest.mark.parametrize("name", ["seed_everything", "data.noise.seed", "seed"])
def test_seeds_are_not_searched(name):
    with pytest.raises(NoisyLabelError, match=rf"^`{name}` is not searched: the best of several seeds is"):
        read_space([f"{name}=1,2"])


@pytest.mark.parametrize("name", ["data.noise.rate", "data.noise"])
def test_the_labels_are_not_searched(name):
    with pytest.raises(NoisyLabelError, match=rf"^`{name}` is not searched: trials on other labels do not compare"):
        read_space([f"{name}=1,2"])


@pytest.mark.parametrize("name", ["data.val_fraction", "data.noisy_val", "trainer.logger.name", "config", "ckpt_path"])
def test_what_tune_sets_is_not_searched(name):
    with pytest.raises(NoisyLabelError, match=rf"^`{name}` is not searched: `tune` sets it"):
        read_space([f"{name}=1,2"])


def test_a_grid_takes_no_range():
    with pytest.raises(NoisyLabelError, match=r"^`b` has a range, .*`--sampler tpe` or `random`"):
        grid("a=1,2", "b=1..2")


def test_draws():
    number, whole, listed = Given(0.0123456), Given(17), Given("x")
    assert read_space(["a=1e-3..1:log"])["a"].draw(number, "a") == "0.01235"
    assert read_space(["b=1..20:int"])["b"].draw(whole, "b") == "17"
    assert read_space(["c=x,y"])["c"].draw(listed, "c") == "x"
    assert (number.asked, whole.asked, listed.asked) == (
        [("a", 1e-3, 1.0, True)],
        [("b", 1, 20, False)],
        [("c", ("x", "y"))],
    )


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.floats(0, 1))
def test_rounding_stays_inside_and_near(one, other, share):
    low, high = sorted((one, other))
    if low < high:
        drawn = low + share * (high - low)
        value = float(Range(low, high, log=False, whole=False).draw(Given(drawn), "a"))
        assert low <= value <= high
        assert math.isclose(value, min(max(drawn, low), high), rel_tol=5e-4)
