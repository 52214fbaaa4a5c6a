"""The benchmarks run, measure what they say, and go on where they stopped. A timing is never a test."""

import json
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from benchmarks import (
    backdoor,
    embeddings,
    functional_criterion,
    heads,
    host_time,
    loader,
    methods,
    moves,
    photos,
    scale,
    strategies,
    strategy_cost,
    strategy_tables,
    training_step,
)
from benchmarks.compact import read_compact, write_compact
from benchmarks.memory import measure_memory
from benchmarks.record import RESULTS
from benchmarks.strategy_list import STRATEGIES, Recipe, Scale
from benchmarks.textbook_kan import NaiveDKAN, TextbookKAN
from lightning_noisy import modules
from lightning_noisy.heads import KANHead, LinearHead
from lightning_noisy.losses import NegativeLearning
from lightning_noisy.networks import MLP
from tests._dummies import isolate, write_cifar

BATCH, INPUTS, CLASSES = SHAPE = 8, 16, 6
GRID = [(trigger, loss) for trigger in backdoor.TRIGGERS for loss in backdoor.LOSSES]


class Clock:
    """A clock that is moved by hand."""

    def __init__(self, monkeypatch):
        self.now = 5.0
        monkeypatch.setattr(time, "process_time", lambda: self.now)

    def spend(self, seconds):
        self.now += seconds


def same_layers(kind):
    """A KANHead and a textbook layer with its state, in float64."""
    head = KANHead(INPUTS, CLASSES).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_()
    textbook = kind(INPUTS, CLASSES).double()
    textbook.load_state_dict(head.state_dict())
    return head, textbook


def test_textbook_layer_is_the_kan_head():
    head, textbook = same_layers(TextbookKAN)
    features = (2 * torch.randn(BATCH, INPUTS, dtype=torch.float64)).requires_grad_()
    mask = (torch.rand(CLASSES, INPUTS) < 0.5).double()
    head.edge_mask = mask
    expected, logits = head(features), textbook.logits(features, mask)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    gradients = [
        torch.autograd.grad(z.square().sum(), [features, layer.spline_weight, layer.spline_scaler, layer.base_weight])
        for z, layer in ((logits, textbook), (expected, head))
    ]
    torch.testing.assert_close(*gradients, atol=1e-3, rtol=1e-5)


def test_naive_mask_is_that_of_the_callback():
    head, naive = same_layers(NaiveDKAN)
    step = heads.Step(head.float(), SHAPE, score="std")
    step.prepare()
    naive.float().load_state_dict(head.state_dict())
    step.run()
    assert torch.equal(naive.mask(step.features.detach()), step.refresh.mask)


def test_steps_are_fresh_and_their_masks_are_used():
    seen = {}
    for name, step in heads.linear_steps(SHAPE).items():
        seen[name] = []
        for _ in range(3):
            step.prepare()
            weight, features = step.head.weight.detach().clone(), step.features.detach()
            step.run()
            seen[name].append((weight, features, step.head.weight.grad, step.features.grad))
            if step.refresh is not None:
                dropped = step.refresh.mask == 0
                assert torch.equal(step.head.weight.grad == 0, dropped), name
                assert dropped.any() or name == "gradient", name
        for one, other in zip(seen[name][:2], seen[name][1:], strict=True):
            assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True)), name
    masks = {name: [(row[2] != 0) for row in rows] for name, rows in seen.items()}
    assert torch.equal(masks["kept mask"][0], masks["kept mask"][2])
    for name in ("std, every step", "std over the whole head", "obd", "gradient"):
        assert not torch.equal(masks[name][1], masks[name][2]), name
    for name in ("nn.Linear", "no mask"):
        assert all(mask.all() for mask in masks[name])


def test_variants_are_what_they_are_called():
    linear, kan = heads.linear_steps(SHAPE), heads.kan_steps(SHAPE)
    assert next(iter(linear)) == "nn.Linear"
    assert type(linear["nn.Linear"].head) is nn.Linear
    assert next(iter(kan)) == "textbook"
    assert type(kan["textbook"].head) is TextbookKAN
    assert all(type(step.head) is LinearHead for step in list(linear.values())[1:])
    assert kan["KANHead"].refresh is None
    assert kan["std, every step"].refresh.every_n_steps == 1
    assert linear["std over the whole head"].refresh.rule.granularity == "edge"
    for section, targets in heads.TARGETS.items():
        assert set(targets) <= set(heads.TIMED[section](SHAPE))
    assert "textbook, std of all activations" not in heads.kan_steps((1, 2, heads.NAIVE_UP_TO + 1))


def test_compiled_steps_do_what_is_written():
    steps = heads.compiled_steps(SHAPE, backend="eager")
    written = {
        "KANHead": heads.Step(KANHead(*SHAPE[1:]), SHAPE),
        "std, every step": heads.kan_steps(SHAPE)["std, every step"],
    }
    for name, step in written.items():
        compiled = steps[name]
        compiled.prepare()
        step.head.load_state_dict(compiled.head.state_dict())
        step.features = compiled.features.detach().clone().requires_grad_()
        step.gradient = compiled.gradient
        for one in (step, compiled):
            one.run()
        torch.testing.assert_close(compiled.features.grad, step.features.grad)
        assert "forward" in vars(compiled.head)
    assert torch.equal(steps["std, every step"].refresh.mask, written["std, every step"].refresh.mask)


def test_memory_sees_the_largest_tensor_and_the_peak():
    small, large = torch.zeros(64, 32), torch.zeros(512, 512)

    def work():
        first = small + 1  # 8 KiB
        second = first.view(32, 64).t() * 2  # and 8 more
        del first
        assert second.double().sum() > 0  # 8 and 16
        large.add_(1).t()  # makes nothing

    seen = measure_memory(work, 64 * 32)
    assert seen["largest_elements"] == 64 * 32
    assert not seen["below_batch_times_edges"]
    assert seen["peak_mib"] == pytest.approx(24 / 1024, abs=1e-3)
    assert measure_memory(work, 64 * 32 + 1)["below_batch_times_edges"]


def test_memory_sees_backward():
    weight = torch.zeros(256, 256, requires_grad=True)  # 0.25 MiB
    forward = measure_memory(lambda: (weight * weight).sum(), 2**16)
    backward = measure_memory(lambda: (weight * weight).sum().backward(), 2**16)
    assert forward["peak_mib"] == pytest.approx(0.25, abs=0.01)
    assert backward["peak_mib"] >= 0.5


def test_heads_record(tmp_path, capsys):
    path = tmp_path / "heads.json"
    small = ["--batch", "8", "--features", "16", "--classes", "4", "6", "--rounds", "2", "--results", str(path)]
    heads.main(["--only", "linear", "kan", "memory", *small])
    record = json.loads(path.read_text())
    assert set(record) == {"linear", "kan", "memory"}
    for section in record.values():
        assert set(section["variants"]) == {"4", "6"}
        assert {"commit", "processor", "threads", "torch", "numpy"} <= set(section["machine"])
        assert section["machine"]["threads"] == 1
    for section in ("linear", "kan"):
        assert record[section]["rounds"] == 2
        for rows in record[section]["variants"].values():
            ratios = [row["ratio"] for row in rows.values()]
            unit = next(iter(rows.values()))["ms"]
            assert ratios[0] == 1
            assert ratios == pytest.approx([row["ms"] / unit for row in rows.values()], rel=0.02)
            assert all(row["quartiles_ms"][0] <= row["ms"] <= row["quartiles_ms"][1] for row in rows.values())
    naive = record["memory"]["variants"]["6"]["kan"]["textbook, std of all activations"]
    assert not naive["below_batch_times_edges"]
    assert "nn.Linear" in capsys.readouterr().out

    heads.main(["--only", "linear", *small[:-3], "3", *small[-2:]])
    again = json.loads(path.read_text())
    assert again["linear"]["rounds"] == 3
    assert again["kan"] == record["kan"]


def test_heads_make_no_activations_of_all_edges():
    measured = heads.measure_memories(batch=32, inputs=INPUTS, classes=[16])  # both more than the terms of an edge
    for section, seen in measured["variants"]["16"].items():
        assert len(seen) == len(heads.SECTIONS[section](SHAPE))
        for name, row in seen.items():
            assert row["below_batch_times_edges"] == (name != "textbook, std of all activations"), (section, name)


def test_rounds_begin_after_the_warm_up(monkeypatch):
    clock = Clock(monkeypatch)

    class Slower:
        """Each run takes a second more than the one before."""

        runs = 0

        def prepare(self):
            clock.spend(100)

        def run(self):
            self.runs += 1
            clock.spend(self.runs)

    steps = {"one": Slower(), "other": Slower()}
    taken = heads.time_rounds(steps, rounds=2)
    in_a_row, rest = divmod(steps["one"].runs, heads.WARM_UP + 2)
    assert rest == 0
    first = heads.WARM_UP * in_a_row + (in_a_row + 1) / 2  # mean of the first round after the warm-up
    expected = pytest.approx([1e3 * first, 1e3 * (first + in_a_row)])
    assert taken == {"one": expected, "other": expected}


def test_verdict():
    assert "reached" in heads._verdict(1.5, 1.5)
    assert "MISSED" in heads._verdict(1.51, 1.5)
    assert heads._verdict(9.0, None) == ""


def test_stopwatch_counts_nested_time_once(monkeypatch):
    clock, watch = Clock(monkeypatch), training_step.Stopwatch()
    clock.spend(1)
    watch.enter("a")
    clock.spend(2)
    watch.leave()
    watch.begin_step()
    clock.spend(4)
    watch.enter("a")
    clock.spend(8)
    watch.enter("b")
    clock.spend(16)
    watch.leave()
    clock.spend(32)
    watch.leave()
    clock.spend(64)
    watch.end_step()
    clock.spend(128)
    assert watch.between == {"a": 2}
    assert watch.steps == [(124, {"a": 40, "b": 16})]


def test_stopwatch_watches_hooks_and_work_at_the_criterion(monkeypatch):
    clock, watch = Clock(monkeypatch), training_step.Stopwatch()

    class Changer(Callback):
        def on_train_batch_start(self, *_):
            clock.spend(1)

        def change_target(self, call):
            clock.spend(2)
            return call

        def observe_target(self, call):
            clock.spend(4)

        def helper(self):
            clock.spend(8)

    changer = watch.watch(Changer())
    criterion = nn.Identity()
    (opening,) = watch.watch_criterion(criterion)
    criterion.register_forward_pre_hook(lambda *_: clock.spend(16) or changer.change_target(None))
    opening.on_train_start(None, None)
    criterion.register_forward_hook(lambda *_: clock.spend(32))
    changer.on_train_batch_start()
    criterion(torch.zeros(1))
    changer.helper()
    changer.observe_target(None)
    assert watch.between == {"Changer": 7, "target pipeline": 16}


def test_callbacks_are_all_accounted_for():
    measured = training_step.measure_callbacks(batch_size=2, rounds=2)
    rows = measured["callbacks"]
    names = {type(callback).__name__ for callback in training_step.all_callbacks()}
    assert set(rows) == {*names, "target pipeline"}
    assert measured["rounds"] == 2
    assert {name for name, row in rows.items() if row["ms"] > 0} == set(rows) - {"RunSummary"}
    assert measured["share"] * measured["step_without_ms"] == pytest.approx(
        sum(row["ms"] for row in rows.values()), rel=0.5
    )
    assert rows["CDR"]["ms"] > rows["ParameterSchedule"]["ms"]  # a pass over 11 million weights


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Separable features with labels of which every fourth is wrong, and a place for the record."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # what a run sets is gone afterwards
    generator = np.random.default_rng(0)
    clean = np.arange(96) % 3
    noisy = np.where(np.arange(72) % 4 == 0, (clean[:72] + 1) % 3, clean[:72])
    np.savez(tmp_path / "x.npz", x=5 * np.eye(3, 6)[clean] + generator.normal(size=(96, 6)), y=clean)
    np.savez(tmp_path / "labels.npz", worse=noisy, aggre=clean[:72])
    given = ["--features", str(tmp_path / "x.npz"), "--labels", str(tmp_path / "labels.npz"), "--test-rows", "24"]
    size = ["--epochs", "2", "--batch-size", "24", "--hidden", "8"]
    return tmp_path / "record.json", [*given, *size, "--results", str(tmp_path / "record.json")]


def test_embeddings_record_and_restart(files, capsys, monkeypatch):
    path, given = files
    embeddings.main([*given, "--seeds", "0"])
    first = json.loads(path.read_text())
    assert len(first["runs"]) == 2 * 2 * 4
    assert {(seen["loss"], seen["head"], seen["ratio"]) for seen in first["runs"].values()} == {
        (loss, head, ratio) for loss in ("ce", "anl") for head in ("linear", "kan") for ratio in (None, 0.3, 0.5, 0.7)
    }
    assert all(len(seen["accuracy"]) == 2 for seen in first["runs"].values())
    assert all(seen["realized_noise_rate"] == pytest.approx(0.25) for seen in first["runs"].values())
    assert len({tuple(seen["agreement_with_labels"]) for seen in first["runs"].values()}) > 4
    assert first["settings"]["labels_key"] == "worse"
    assert {"commit", "processor", "torch"} <= set(first["machine"])

    calls = []
    monkeypatch.setattr(
        embeddings, "run", lambda *_, **arguments: calls.append(arguments) or {**arguments, "accuracy": [0.5, 0.25]}
    )
    embeddings.main([*given, "--seeds", "0", "1", "--heads", "linear", "--losses", "anl"])
    second = json.loads(path.read_text())
    assert calls == [{"loss": "anl", "head": "linear", "ratio": ratio, "seed": 1} for ratio in (None, 0.3, 0.5, 0.7)]
    assert {name: second["runs"][name] for name in first["runs"]} == first["runs"]
    assert path.with_suffix(".md").read_text() in capsys.readouterr().out

    with pytest.raises(ValueError, match="a record of"):
        embeddings.main([*given, "--epochs", "3"])


def test_embeddings_keep_what_was_done_before_an_interruption(files, monkeypatch):
    path, given = files
    calls = []

    def run(*_, **arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return {**arguments, "accuracy": [0.5]}

    monkeypatch.setattr(embeddings, "run", run)
    with pytest.raises(KeyboardInterrupt):
        embeddings.main(given)
    assert len(json.loads(path.read_text())["runs"]) == 3
    embeddings.main([*given, "--seeds", "0"])
    assert len(calls) == 4 + 16 - 3


@pytest.mark.slow
def test_embeddings_in_two_processes(files):
    path, given = files
    embeddings.main([*given, "--seeds", "0", "--heads", "linear", "--losses", "ce", "--jobs", "2"])
    several = json.loads(path.read_text())["runs"]
    path.unlink()
    embeddings.main([*given, "--seeds", "0", "--heads", "linear", "--losses", "ce"])
    alone = json.loads(path.read_text())["runs"]
    assert {name: seen["accuracy"] for name, seen in several.items()} == {
        name: seen["accuracy"] for name, seen in alone.items()
    }


def test_embeddings_table():
    def seen(ratio, seed, accuracy):
        return {"loss": "ce", "head": "kan", "ratio": ratio, "seed": seed, "accuracy": accuracy}

    runs = [seen(None, 0, [0.9, 0.5]), seen(0.3, 0, [0.1, 0.2]), seen(None, 1, [0.7, 0.6])]
    rows = embeddings.table({"runs": dict(enumerate(runs))}).splitlines()
    assert rows[2:] == [
        "| ce | KAN | none | 55.00 ± 7.07 | 80.00 ± 14.14 | 2 |",
        "| ce | DKAN | 0.3 | 20.00 | 20.00 | 1 |",
    ]


def test_methods_record_and_restart(files, capsys):
    path, given = files
    some = ["--methods", "CE", "DAL", "SELC+", "forward", "L_DMI", "--seeds", "0"]
    methods.main([*given, *some, "--noises", "worse", methods.SYMMETRIC])
    runs = read_compact(path)["runs"]
    assert len(runs) == 5 * 2
    assert all(len(seen["accuracy"]) == 2 for seen in runs.values())
    assert runs["CE, worse, 0"]["realized_noise_rate"] == pytest.approx(0.25)
    assert runs["CE, symmetric 0.6, 0"]["realized_noise_rate"] == pytest.approx(0.6, abs=0.2)
    assert len({seen["agreement_with_labels"] for seen in runs.values()}) > 5
    with pytest.raises(ValueError, match="a record of"):
        methods.main([*given, *some, "--learning-rate", "0.5"])
    methods.main([*given, *some])
    again = read_compact(path)["runs"]
    assert {name: again[name] for name in runs} == runs
    assert len(again) == 5 * 3
    assert path.with_suffix(".md").read_text() in capsys.readouterr().out
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["methods", "methods-lr-1", "methods-lr-0.01"])
def test_methods_records_are_whole(tmp_path, name):
    path = RESULTS / f"{name}.json"
    record = read_compact(path)
    write_compact(tmp_path / "again.json", record)
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
    assert methods.table(record) == path.with_suffix(".md").read_text()
    assert path.stat().st_size < 150_000
    for key, seen in record["runs"].items():
        assert key == f"{seen['method']}, {seen['noise']}, {seen['seed']}"
        assert len(seen["accuracy"]) == record["settings"]["epochs"]


def test_a_compact_record_keeps_every_figure(tmp_path):
    runs = {}
    for seed, method, accuracy in ((0, "CE", [0.125, 1.0]), (1, "CE", [0.5, 0.0]), (0, "ELR, twice", [0.25, 0.375])):
        figures = {"accuracy": accuracy, "agreement_with_labels": 0.1 + seed, "commit": f"{method[0]}{seed}"}
        runs[f"{method}, worse, {seed}"] = {"method": method, "noise": "worse", "seed": seed, **figures}
    record = {"settings": {"test_rows": 8}, "machine": {"cores": 2}, "runs": runs}
    write_compact(tmp_path / "record.json", record)
    assert read_compact(tmp_path / "record.json") == record
    assert read_compact(tmp_path / "none.json") == {}


def test_methods_draw_by_their_seed(files, monkeypatch):
    seeds = []

    def method(fitter):
        loss = NegativeLearning()
        seeds.append(int(loss.seed))
        return fitter.fit(loss)

    _, given = files
    monkeypatch.setitem(methods.METHODS, "noted", method)
    settings = methods.Settings(test_rows=24, epochs=1, batch_size=24, hidden=8)
    for seed in (3, 4):
        methods.run(given[1], given[3], settings, "noted", "worse", seed)
    assert seeds == [3, 4]


def test_methods_in_proportion_to_the_epochs():
    fitter = methods.Fitter("x", "y", methods.Settings(epochs=20), "worse", 0)
    assert [fitter.epochs(30, 200), fitter.epochs(39, 120), fitter.epochs(1, 200)] == [3, 6, 1]


@pytest.mark.parametrize(
    ("method", "arguments"), [("AGCE", {"a": 0.6, "q": 0.6}), ("AUL", {"a": 5.5, "q": 3.0}), ("AEL", {"a": 2.5})]
)
def test_asymmetric_losses_alone_have_the_arguments_of_their_code(method, arguments):
    """hitcszx/ALFs:config.py has others beside NCE."""
    loss = methods.METHODS[method](SimpleNamespace(fit=lambda loss, *callbacks: loss))
    assert {name: getattr(loss, name) for name in arguments} == arguments


def test_selective_stages_of_nlnl_know_the_epoch_before():
    class Caught(methods.Fitter):
        def fit(self, loss, *callbacks):
            return loss

    loss = methods.METHODS["NLNL"](Caught("x", "y", methods.Settings(epochs=20), "worse", 0))
    assert loss.starts == [0, 6, 13]
    assert [stage.store_shapes(10) for stage in loss.stages] == 3 * [{"label_probability": (2, 2)}]


@pytest.mark.slow
@pytest.mark.parametrize("method", methods.METHODS)
def test_every_method_learns_something(tmp_path, monkeypatch, method):
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    generator = np.random.default_rng(0)
    clean = np.arange(1200) % 4
    features = 3 * np.eye(4, 8)[clean] + generator.normal(size=(1200, 8))
    noisy = np.where(generator.random(1000) < 0.2, generator.integers(0, 4, 1000), clean[:1000])
    np.savez(tmp_path / "x.npz", x=features, y=clean)
    np.savez(tmp_path / "y.npz", worse=noisy)
    settings = methods.Settings(test_rows=200, epochs=20, batch_size=50, hidden=32)
    seen = methods.run(str(tmp_path / "x.npz"), str(tmp_path / "y.npz"), settings, method, "worse", 0)
    assert max(seen["accuracy"]) > 0.7


def test_methods_table():
    def seen(method, noise, seed, accuracy):
        return {"method": method, "noise": noise, "seed": seed, "accuracy": accuracy}

    runs = [
        seen("DAL", "worse", 0, [0.9, 0.5]),
        seen("CE", "worse", 0, [0.2, 0.1]),
        seen("DAL", "worse", 1, [0.7, 0.6]),
        seen("CE", "aggre", 0, [0.3, 0.4]),
    ]
    assert methods.table({"runs": dict(enumerate(runs))}).splitlines() == [
        "| method | aggre, last | aggre, best | worse, last | worse, best | seeds |",
        "|---|---|---|---|---|---|",
        "| CE | 40.00 | 40.00 | 10.00 | 20.00 | 1 |",
        "| DAL | - | - | 55.00 ± 7.07 | 80.00 ± 14.14 | 0 to 2 |",
    ]


def test_methods_figure():
    def seen(method, noise, seed, accuracy):
        return {"method": method, "noise": noise, "seed": seed, "accuracy": accuracy}

    runs = [seen("CE", "worse", 0, [0.9, 0.5]), seen("CE", "worse", 1, [0.7, 0.6]), seen("DAL", "aggre", 0, [0.3])]
    aggre, worse = methods.figure({"runs": dict(enumerate(runs))}).axes
    assert (aggre.get_title(), worse.get_title()) == ("aggre", "worse")
    best, last, highest = (points.get_offsets().tolist() for points in worse.collections[1:])
    assert best == [[pytest.approx(80), 0]]  # CE stands above DAL: 55 against 30 in the last epochs
    assert last == highest == [[pytest.approx(55), 0]]
    assert aggre.collections[2].get_offsets().tolist() == [[pytest.approx(30), 1]]
    assert [text.get_text() for text in aggre.get_yticklabels()] == ["CE", "DAL"]


def test_a_batch_of_the_quickstart_stays_in_few_files(tmp_path, monkeypatch):
    isolate(monkeypatch, tmp_path)
    batches = moves.count_moves()
    length = len(batches) // moves.EPOCHS
    assert max(batch.total for number, batch in enumerate(batches) if number % length) < 120
    assert max(batch.total for batch in batches[1:]) < 180  # those that begin an epoch, or make a store
    assert batches[0].total < 200  # where stores are made
    warm_up, correcting = batches[1], batches[-1]
    assert 20 < warm_up.total < correcting.total
    assert warm_up.pairs["state/run_driver.py", "state/run_state.py"] == 4
    assert warm_up.of_loader == correcting.of_loader < 20  # the last batch of an epoch holds fewer samples


def test_loaders_are_measured_by_turns(tmp_path, monkeypatch):
    images = {part: np.zeros((300, 32, 32, 3), dtype=np.uint8) for part in ("train", "test")}
    labels = {part: np.arange(300) % 10 for part in images}
    write_cifar(monkeypatch, tmp_path, "CIFAR10", images, labels)
    monkeypatch.setattr(loader, "write_record", lambda path, record: written.update({path.name: record}))
    monkeypatch.setattr("sys.argv", ["loader", "--root", str(tmp_path), "--rounds", "1"])
    written = {}
    loader.run(lambda root, rounds: loader.measure(root, rounds, batches=1))
    assert written["loader.json"]["command"] == "OMP_NUM_THREADS=1 python -m benchmarks.loader --root data --rounds 1"
    figures = written["loader.json"]["images per second"]
    assert list(figures) == list(json.loads((RESULTS / "loader.json").read_text())["images per second"])
    assert all(figure > 0 for figure in figures.values())


def test_plain_batches_of_the_benchmark_are_crops_and_flips(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (150, 32, 32, 3), dtype=np.uint8)
    parts = {"train": pixels, "test": pixels}
    write_cifar(monkeypatch, tmp_path, "CIFAR10", parts, {part: np.arange(150) % 10 for part in parts})
    plain = loader.PlainBatches(tmp_path)
    batches = list(plain)
    assert sum(len(labels) for _, labels in batches) == 150
    back = (batches[0][0] * plain.std + plain.mean).round()
    center = back[:, :, 12:20, 12:20].flatten(1)
    whole = torch.as_tensor(pixels).permute(0, 3, 1, 2).float()
    windows = whole.unfold(2, 8, 1).unfold(3, 8, 1)
    found = 0
    for patch in center[:4]:
        patch = patch.view(3, 8, 8)
        sides = (patch, patch.flip(2))
        either = [(windows == view.view(1, 3, 1, 1, 8, 8)).all(dim=5).all(dim=4).all(dim=1) for view in sides]
        found += bool(either[0].any() or either[1].any())
    assert found == 4


def test_backdoors_are_recorded_and_shown_as_recorded():
    runs = {f"global, DAL, seed {i}": {"test/acc": 0.9 + i / 100, "backdoor/success": 0.5} for i in (0, 2)}
    others = {f"{t}, {loss}, seed 0": {"test/acc": 0, "backdoor/success": 1} for t, loss in GRID if loss != "DAL"}
    last = {"local, DAL, seed 1": {"test/acc": 0.25, "backdoor/success": 0.125}}
    rows = backdoor.table({**runs, **others, **last})
    assert rows[-1] == "| global | DAL | 91.00 ± 1.41 | 50.00 ± 0.00 | 2 |"
    assert rows[4] == "| local | DAL | 25.00 ± 0.00 | 12.50 ± 0.00 | 1 |"
    recorded = json.loads((RESULTS / "backdoor.json").read_text())["runs"]
    assert len(recorded) == 3 * len(GRID)
    assert "\n".join(backdoor.table(recorded)) in (RESULTS.parents[1] / "docs" / "benchmarks.md").read_text()


def test_host_time_is_measured_by_turns(monkeypatch):
    written, fits = {}, []
    monkeypatch.setattr(host_time, "write_record", lambda path, record: written.update({path.name: record}))
    monkeypatch.setattr("sys.argv", ["host_time", "--samples", "256", "512", "--rounds", "2", "--steps", "24"])
    original = host_time.one_fit
    monkeypatch.setattr(host_time, "one_fit", lambda row, *more: fits.append(row[2]) or original(row, *more))
    host_time.run()
    assert fits == [256, 256, 256, 256, 512, 512] * 2
    steps = written["host-time.json"]["step"]
    assert steps[host_time.PLAIN]["times plain"] == 1
    for name, row in steps.items():
        beyond = row["ms"] - steps[host_time.PLAIN + ", N = 512" * name.endswith(" 512")]["ms"]
        assert row["beyond plain"] == pytest.approx(beyond, abs=2e-3)
        assert row["ms"] > 0


def test_a_functional_criterion_is_measured_by_turns(monkeypatch):
    monkeypatch.setattr(functional_criterion, "write_record", lambda path, record: written.update({path.name: record}))
    monkeypatch.setattr("sys.argv", ["functional_criterion", "--rounds", "1"])
    written = {}
    functional_criterion.run()
    figures = written["functional_criterion.json"]["ms of a step"]
    recorded = json.loads((RESULTS / "functional_criterion.json").read_text())
    assert list(figures) == list(recorded["ms of a step"])
    assert all(set(row) == {"without", "with", "adds"} for row in figures.values())


def test_strategies_record_and_restart(files, capsys):
    path, given = files
    size = [*given[:-4], "--width", "8", "--results", str(path)]
    some = ["--only", "CE", "Co-teaching, true rate", "SED", "--seeds", "0"]
    strategies.main([*size, *some, "--noises", "worse"])
    runs = read_compact(path)["runs"]
    assert list(runs) == ["CE, worse, 0", "Co-teaching, true rate, worse, 0", "SED, worse, 0"]
    plain, informed, selecting = runs.values()
    assert all(len(seen["accuracy"]) == 2 and seen["batches"] == 3 for seen in runs.values())
    assert plain["alone"] == plain["accuracy"][-1]
    assert informed["alone"] != informed["accuracy"][-1]
    assert (plain["size"], plain["precision"], plain["recall"]) == (None, None, None)
    assert informed["size"] == pytest.approx(0.75)  # a quarter of the labels is wrong
    shares = selecting["precision"] * selecting["size"], selecting["recall"] * 0.75
    assert shares[0] == pytest.approx(shares[1], abs=1e-4)
    with pytest.raises(ValueError, match="a record of"):
        strategies.main([*size, *some, "--epochs", "3"])
    strategies.main([*size, *some, "--noises", "worse", "aggre"])
    again = read_compact(path)["runs"]
    assert {name: again[name] for name in runs} == runs
    assert len(again) == 3 * 2
    assert path.with_suffix(".md").read_text() in capsys.readouterr().out
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_strategies_on_digits(tmp_path, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    path = tmp_path / "digits.json"
    some = ["--only", "CE, strong view", "--seeds", "1", "--noises", "pair flips 0.4"]
    strategies.main(["--epochs", "1", "--batch-size", "256", "--width", "4", *some, "--results", str(path)])
    (seen,) = read_compact(path)["runs"].values()
    assert seen["realized_noise_rate"] == pytest.approx(0.4, abs=0.05)
    with pytest.raises(SystemExit):
        strategies.main(["--features", "x.npz"])


@pytest.mark.parametrize("name", sorted(path.stem for path in RESULTS.glob("strategies-*.json")))
def test_strategies_records_are_whole(tmp_path, name):
    path = RESULTS / f"{name}.json"
    record = read_compact(path)
    write_compact(tmp_path / "again.json", record)
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
    assert strategy_tables.tables(record) == path.with_suffix(".md").read_text()
    beside = read_compact(RESULTS / "methods.json") if name.endswith("embeddings") else None
    assert strategy_tables.summary(record, beside) in (RESULTS.parent.parent / "docs" / "benchmarks.md").read_text()
    assert path.stat().st_size < 150_000
    for key, seen in record["runs"].items():
        assert key == f"{seen['method']}, {seen['noise']}, {seen['seed']}"
        assert len(seen["accuracy"]) == record["settings"]["epochs"]


def test_every_strategy_is_measured():
    bases = [name for name in modules.__all__ if name.endswith("Module") and name != "NoisyLabelModule"]
    classes = {getattr(modules, name) for name in set(modules.__all__) - set(bases)}
    assert {strategy.module for strategy in STRATEGIES.values()} == classes
    assert {STRATEGIES[name].module for name in strategy_cost.COUNTED} == classes


def test_strategies_in_proportion():
    scale = Scale(epochs=20, batches=131, batch_size=384)
    assert [scale.count(20, 200), scale.count(10, 110), scale.count(10, 300)] == [2, 2, 1]
    few, fewer = Scale(epochs=20, batches=23, batch_size=64), Scale(epochs=20, batches=2, batch_size=64)
    assert [one.warmup(10, 200) for one in (scale, few, fewer)] == [1, 5, 10]
    assert scale.epoch_decay(0.99, 200) == pytest.approx(0.904382)
    assert scale.step_decay(0.99) == pytest.approx(0.970448)
    sure = STRATEGIES["SURE"].make(Recipe(lambda: MLP(4, (3,)), 3, learning_rate=0.1), Scale(20, 23, 64))
    optimizer = sure.make_optimizer(sure.parameters())
    rates = sure.make_lr_scheduler(optimizer)
    for _ in range(19):
        optimizer.step(lambda: sum(p.sum() for p in sure.parameters()).backward())
        rates.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)  # reached a twentieth of the training after 3 / 5


def test_strategies_tables_and_figure():
    def seen(method, noise, seed, accuracy, alone, precision):
        selected = {"size": precision and 0.5, "precision": precision, "recall": precision and 0.75, "batches": 23}
        return {"method": method, "noise": noise, "seed": seed, "accuracy": accuracy, "alone": alone, **selected}

    runs = [
        seen("SED", "worse", 0, [0.9, 0.5], 0.4, 0.625),
        seen("CE", "worse", 0, [0.2, 0.1], 0.1, None),
        seen("SED", "worse", 1, [0.7, 0.6], 0.3, 0.875),
        seen("CE", "aggre", 0, [0.3, 0.4], 0.4, None),
    ]
    record = {"settings": {"epochs": 20, "batch_size": 64}, "runs": dict(enumerate(runs))}
    accuracy, selection, arguments = (part.splitlines() for part in strategy_tables.tables(record).split("\n\n"))
    assert accuracy[2:] == [
        "| CE | 40.00 | 40.00 | 40.00 | 10.00 | 10.00 | 20.00 | 1 |",
        "| SED | - | - | - | 55.00 (50.00 to 60.00) | 35.00 | 80.00 | 2 |",
    ]
    assert selection[2:] == ["| SED | - | - | - | 50.00 | 75.00 | 75.00 |"]
    assert arguments[3].startswith("| SED | warmup_epochs 5, threshold_momentum 0.5905, ")
    beside = {"runs": {0: seen("ELR", "worse", 0, [0.5], 0.5, None), 1: seen("GCE", "aggre", 0, [0.7], 0.7, None)}}
    assert strategy_tables.summary(record, beside).splitlines()[2:] == [
        "| CE | 40.00 | 10.00 | 1 |",
        "| SED | - | 55.00 | 2 |",
        "| best loss or target method | 70.00 (GCE) | 50.00 (ELR) | 1 |",
    ]
    worse = strategy_tables.figure(record).axes[1]
    assert [points.get_offsets()[:, 0].tolist() for points in worse.collections[3:]] == [
        [pytest.approx(50), pytest.approx(60)],
        [pytest.approx(55)],
        [pytest.approx(80)],
    ]


def test_costs_are_of_medians_and_counted_at_the_share(monkeypatch):
    seconds = {"CE": [2.0, 1.0, 9.0], "DivideMix": [10.0, 14.0, 30.0]}

    def one_round(strategy, batches, batch_size, device):
        name = next(name for name, known in STRATEGIES.items() if known is strategy)
        return seconds[name].pop(0), None if name == "CE" else 0.5

    monkeypatch.setattr(strategy_cost, "one_round", one_round)
    rows = strategy_cost.measure(["CE", "DivideMix"], rounds=3, batches=2, batch_size=4)
    assert rows["DivideMix"]["measured"] == 7.0
    assert rows["DivideMix"]["counted"] == 6.7
    assert rows["DivideMix"]["above"] == pytest.approx(0.045, abs=1e-3)
    assert strategy_cost.table({"rows": rows}).splitlines()[2:] == [
        "| CE | 1.00 | 1.00 | +0 % |",
        "| DivideMix | 7.00 | 6.70 | +4 % |",
    ]


def test_the_page_has_the_recorded_costs():
    record = json.loads((RESULTS / "strategy-cost.json").read_text())
    assert list(record["rows"]) == list(strategy_cost.COUNTED)
    assert strategy_cost.table(record) in (RESULTS.parent.parent / "docs" / "benchmarks.md").read_text()


@pytest.mark.slow
def test_a_round_of_costs_is_of_whole_epochs_after_the_warm_up():
    seconds, size = strategy_cost.one_round(STRATEGIES["SED"], batches=2, batch_size=8)
    assert seconds > 0
    assert 0 <= size <= 1


def test_photos_of_the_benchmark(tmp_path):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (400, 8, 8, 3), dtype=np.uint8)
    data = SimpleNamespace(data=pixels, targets=[number % 4 for number in range(400)], classes=list("abcd"))
    truth = photos.make_folder(tmp_path / "photos", data, 400)
    assert sorted(str(path.relative_to(tmp_path / "photos")) for path in tmp_path.rglob("*.jpg")) == sorted(truth)
    assert all(truth[path] == "abcd"[int(Path(path).stem) % 4] for path in truth)
    wrong = np.mean([path[0] != name for path, name in truth.items()])
    assert 0.12 < wrong < 0.25  # 0.245 drawn, of which a quarter are right again
    rows = photos.make_table(tmp_path / "t.csv", truth).read_text().splitlines()
    assert rows[0] == "image,label"
    assert len(rows) == 401
    assert all(row.split("/")[1] == row.split(",")[1] for row in rows[1:])


@pytest.mark.slow
def test_an_audit_of_photos_joins_the_record(monkeypatch, tmp_path):
    pixels = np.stack([np.full((8, 8, 3), 30 + 60 * (number % 4), np.uint8) for number in range(60)])
    data = SimpleNamespace(data=pixels, targets=[number % 4 for number in range(60)], classes=list("abcd"))
    monkeypatch.setattr(photos, "CIFAR10", lambda root: data)
    results = tmp_path / "photos.json"
    results.write_text(json.dumps({"images": 60, "runs": {"table": {"seconds": 1.0}}}))
    arguments = ["--cifar", "there", "--count", "60", "--results", str(results), "--runs", "from scratch"]
    photos.main(arguments)
    runs = json.loads(results.read_text())["runs"]
    assert runs["table"] == {"seconds": 1.0}
    truth = photos.make_folder(tmp_path / "again", data, 60)
    assert runs["from scratch"]["wrong"] == pytest.approx(np.mean([path[0] != name for path, name in truth.items()]))
    assert runs["from scratch"]["wrong_of_first_48"] <= 60 * runs["from scratch"]["wrong"] < 30
    with pytest.raises(SystemExit):
        photos.main(["--cifar", "there", "--count", "61", "--results", str(results)])


def test_cost_of_rows_by_the_number_of_samples(monkeypatch, tmp_path):
    written = []

    def seconds(run):
        rows = run()
        written.append(tuple(rows.shape))
        return 3e-6 if len(written) % 3 == 1 else 6e-6  # the unit, then a step of each store

    monkeypatch.setattr(scale, "_seconds", seconds)
    arguments = ["--samples", "40", "300", "--classes", "9", "--top-k", "4", "--rounds", "2"]
    scale.main([*arguments, "--results", str(tmp_path / "scale.json")])
    rows = json.loads((tmp_path / "scale.json").read_text())["rows"]
    sizes = {"float32": 4 * 9, "float16": 2 * 9, "float16, 4 largest": 4 * 4 + 2}
    expected = [(name, count, size * count) for name, size in sizes.items() for count in (40, 300)]
    assert [(row["rows"], row["samples"], row["bytes"]) for row in rows] == expected
    assert {(row["microseconds"], row["units"]) for row in rows} == {(6.0, 2.0)}
    assert written == [(scale.BATCH, 9)] * 18
    assert "| float16, 4 largest | 300 | 6 | 2.00 | 0 |" in (tmp_path / "scale.md").read_text()
