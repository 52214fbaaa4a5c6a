"""Configurations on top of each other: what is read, in which order, from where, and under which name it runs."""

import os
import re
import shutil
from pathlib import Path

import fsspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lightning_noisy.cli import main, run
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.recipes import (
    config_chain,
    config_values,
    files,
    find_config,
    recipe_list,
    recipe_names,
    recipe_settings,
    run_name,
)
from tests._dummies import isolate

ROOT = Path(__file__).parents[1] / "configs"
LOGGER = "lightning.pytorch.loggers.TensorBoardLogger"


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """A folder of its own, in which a recipe's file can be named with ``configs`` before it, as in a clone."""
    isolate(monkeypatch, tmp_path)
    return tmp_path


def write(**files):
    """Files by their stem, ``__`` for a folder; what is a tuple or a text are bases, with an epoch to tell it by."""
    for number, (name, content) in enumerate(files.items()):
        path = Path(name.replace("__", "/") + ".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        bases = list(content) if isinstance(content, tuple) else content
        told = {"base": bases, "trainer": {"max_epochs": number + 1}} if bases else {"seed_everything": 1}
        path.write_text(yaml.safe_dump(told))


def stems(value):
    return [config.path.stem for config in config_chain(value)]


def printed(capsys, *arguments):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([*map(str, arguments), "--print_config"])
    read = capsys.readouterr()
    assert stop.value.code == 0, read.err
    return yaml.safe_load(read.out)


def refused(capsys, *arguments):
    """The one line, without its beginning."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([*map(str, arguments)])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "lightning-noisy: error: " in line]
    assert stop.value.code == 2
    return line.removeprefix("lightning-noisy: error: ")


def callbacks(config):
    return [callback["class_path"].rpartition(".")[2] for callback in config["trainer"]["callbacks"]]


class TestOrder:
    def test_a_file_comes_after_its_bases_depth_first(self):
        write(root="", a="root", b="a.yaml", c=("b", "root"))
        assert stems("c.yaml") == ["root", "a", "b", "c"]

    def test_each_file_counts_once_in_its_first_place(self):
        write(root="", left="root", right="root", top=("left", "right", "left"))
        assert stems("top.yaml") == ["root", "left", "right", "top"]

    def test_a_file_is_one_whatever_it_is_called(self, folder):
        write(root="", deep__left="../root", right=("deep/../root.yaml",), top=("deep/left", "right"))
        Path("link.yaml").symlink_to("root.yaml")
        write(linked=("link", str(folder / "root.yaml"), "top"))
        assert stems("linked.yaml") == ["link", "left", "right", "top", "linked"]

    @given(st.lists(st.lists(st.integers(0, 8), max_size=3), min_size=1, max_size=9))
    def test_every_base_comes_before_what_it_is_the_base_of(self, chosen):
        graph = {n: list(dict.fromkeys(b % n for b in bases)) if n else [] for n, bases in enumerate(chosen)}
        for n, bases in graph.items():
            Path(f"{n}.yaml").write_text(f"base: {[f'{b}.yaml' for b in bases]}\nseed_everything: {n}")
        order = [int(stem) for stem in stems(f"{len(graph) - 1}.yaml")]
        assert len(set(order)) == len(order)
        assert all(order.index(base) < order.index(n) for n in order for base in graph[n])
        assert order[-1] == len(graph) - 1

    def test_two_bases_on_one_root_keep_their_callbacks(self, capsys):
        Path("root.yaml").write_text("trainer: {callbacks: [{class_path: lightning_noisy.callbacks.StepSeed}]}")
        for name, callback in {"left": "RunSummary", "right": "ConfidenceTracker"}.items():
            text = f"base: root.yaml\ntrainer: {{callbacks+: [{{class_path: lightning_noisy.callbacks.{callback}}}]}}"
            Path(f"{name}.yaml").write_text(text)
        Path("top.yaml").write_text("base: [left, right]\nmodel: {class_path: lightning_noisy.NoisyLabelModule}")
        expected = ["StepSeed", "RunSummary", "ConfidenceTracker"]
        model = ["--model", "NoisyLabelModule"]
        assert callbacks(printed(capsys, "fit", "-c", "top.yaml")) == expected
        assert callbacks(printed(capsys, "fit", "-cleft.yaml", "--config=right.yaml", *model)) == expected
        with pytest.warns(UserWarning, match=r"'root\.yaml' counts once, in its first place"):
            assert callbacks(printed(capsys, "fit", "-c", "top.yaml", "--config", "root.yaml")) == expected


class TestFinding:
    def test_a_recipe_is_found_with_and_without_its_suffix(self):
        for name in ("dal/cifar10", "dal/cifar10.yaml"):
            assert find_config(name) == ROOT / "dal" / "cifar10.yaml"
        assert find_config("dcm/cifar10") == ROOT / "dcm" / "cifar10.yaml"  # there is a folder of this name
        assert find_config("dal") is None

    @pytest.mark.parametrize("name", ["", ".", "/", "dal/", "..", "x" * 5000, "a\0b"])
    def test_what_is_no_file(self, name):
        assert find_config(name) is None

    def test_a_file_of_ones_own_comes_first(self, monkeypatch):
        write(dal__cifar10="", other__dal__cifar10="", other__top="dal/cifar10")
        assert find_config("dal/cifar10") == Path("dal/cifar10.yaml")
        assert stems("other/top.yaml")[0] == "cifar10"
        assert config_chain("other/top.yaml")[0].path == Path("other/dal/cifar10.yaml")

    def test_a_base_is_looked_for_beside_its_file_and_then_among_the_recipes(self, folder):
        write(here="", below__there="here", below__recipe="ce/cifar10")
        with pytest.raises(NoisyLabelError, match=r"`base` to be a file beside 'below/there\.yaml' or a recipe"):
            config_chain("below/there.yaml")
        assert config_chain("below/recipe.yaml")[0].path == ROOT / "ce" / "cifar10.yaml"

    def test_absolute_paths_and_the_home_folder(self, folder, monkeypatch):
        monkeypatch.setenv("HOME", str(folder))
        write(base="", below__one="~/base", below__two=str(folder / "base"))
        assert stems("below/one.yaml") == ["base", "one"]
        assert stems("~/below/two.yaml") == ["base", "two"]
        assert find_config("~nobody/base") is None

    def test_a_shipped_file_that_is_a_copy_goes_on_top_of_the_copy_beside_it(self, folder):
        for name in ("dal/cifar10", "ce/cifar10"):
            target = folder / "configs" / f"{name}.yaml"
            target.parent.mkdir(parents=True)
            target.write_text((ROOT / f"{name}.yaml").read_text())
        paths = [config.path.resolve() for config in config_chain("configs/dal/cifar10.yaml")]
        assert paths == [folder / "configs" / name / "cifar10.yaml" for name in ("ce", "dal")]
        assert run_name(["--config", "configs/dal/cifar10.yaml"]) == "dal/cifar10"

    def test_a_pipe_is_read_once(self, capsys):
        reader, writer = os.pipe()
        with os.fdopen(writer, "w") as file:
            file.write("base: quickstart\nseed_everything: 5")
        config = printed(capsys, "fit", "--config", f"/dev/fd/{reader}")
        os.close(reader)
        assert config["seed_everything"] == 5
        assert callbacks(config)[0] == "StepSeed"

    def test_recipes_in_the_package_come_before_those_beside_it(self, monkeypatch, folder):
        monkeypatch.setattr(files, "__file__", str(folder / "package" / "recipes" / "files.py"))
        write(configs__dal__a="", package__configs__dal__b="../c", package__configs__c="")
        assert recipe_names() == ["c", "dal/b"]
        assert stems("dal/b") == ["c", "b"]
        assert run_name(["--config", "dal/b"]) == "dal/b"
        shutil.rmtree("package/configs")
        assert recipe_names() == ["dal/a"]

    def test_no_recipes_are_an_installation_that_is_not_whole(self, monkeypatch, folder):
        monkeypatch.setattr(files, "__file__", str(folder / "package" / "recipes" / "files.py"))
        with pytest.raises(NoisyLabelError, match="reinstall"):
            recipe_names()


class TestRefused:
    @pytest.mark.parametrize(
        ("files", "expected"),
        [
            ({"a": "a"}, r"but it goes in a circle: a\.yaml -> a\.yaml\."),
            ({"a": "b", "b": "c", "c": "b"}, r"in a circle: a\.yaml -> b\.yaml -> c\.yaml -> b\.yaml\."),
            ({"a": "b", "b": "nowhere"}, r"beside 'b\.yaml' or a .* got 'nowhere': a\.yaml -> b\.yaml -> nowhere\."),
            ({"a": "dal/cifar1"}, r"a recipe \('dal/cifar10' or .*\? `lightning-noisy recipes` lists them\), but got"),
            ({"a": "s3://bucket/b.yaml"}, "`base` to be a file beside .* but got 's3://bucket/b.yaml'"),
            ({"a": 3}, r"Expected argument `base` to be a file or a list of files in 'a\.yaml', but got 3\."),
            ({"a": {"b": "c"}}, "`base` to be a file or a list of files .* but got {'b': 'c'}"),
            ({"a": ("b", 3), "b": ""}, r"`base` to be a file or a list of files .* but got \['b', 3\]"),
        ],
        ids=["itself", "circle", "missing", "misspelled", "url", "number", "mapping", "list"],
    )
    def test_bases(self, capsys, files, expected):
        write(**files)
        line = refused(capsys, "fit", "--config", "a.yaml")
        assert re.search(expected, line), line
        assert not Path("runs").exists()

    def test_nothing_as_base(self, capsys):
        Path("a.yaml").write_text("base:\nseed_everything: 1")
        line = refused(capsys, "fit", "--config", "a.yaml")
        assert "`base` to be a file or a list of files in 'a.yaml', but got None" in line

    def test_a_base_in_the_argument_itself(self, capsys):
        line = refused(capsys, "fit", "--config", "{base: dal/cifar10, trainer: {max_epochs: 1}}")
        assert line == "Expected `base` in a file, but it is in the argument `config`: give `--config` twice."

    def test_a_base_in_a_url(self, capsys):
        with fsspec.filesystem("memory").open("/far.yaml", "w") as file:
            file.write("seed_everything: 3\nmodel: NoisyLabelModule")
        assert printed(capsys, "fit", "--config", "memory://far.yaml")["seed_everything"] == 3
        with fsspec.filesystem("memory").open("/far.yaml", "w") as file:
            file.write("base: quickstart")
        assert "option 'base'" in refused(capsys, "fit", "--config", "memory://far.yaml").lower()

    def test_what_is_no_text(self, capsys):
        Path("a.yaml").write_bytes(b"\xff\xfe\xfd")
        line = refused(capsys, "fit", "--config", "a.yaml")
        assert line.startswith("Expected 'a.yaml' to be YAML in UTF-8, but byte 0 is none: save it as UTF-8.")

    def test_unknown_names_have_likely_ones_beside(self, capsys):
        line = refused(capsys, "fit", "--config", "dal/cifar1O")
        assert line.startswith("Expected argument `config` to be a file or a recipe ('dal/cifar10' or ")
        assert line.endswith("`lightning-noisy recipes` lists them), but got 'dal/cifar1O'.")

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("trainer: [", "Expected 'below.yaml' to be YAML, but while parsing a flow node"),
            ("", "Expected 'below.yaml' to be YAML with arguments and their values, but got ''."),
            ("- a", "Expected 'below.yaml' to be YAML with arguments and their values, but got '- a'."),
            ("model: {class_path: NoisyLabelModule, init_args: {num_clases: 3}}", "model: "),
            (
                "model: {class_path: X, num_clases: 3}",
                "'below.yaml' has `num_clases` beside the `class_path` of line 1",
            ),
            ("trainer: {}\ntrainer: {}", "'below.yaml' has `trainer` twice, the second time in line 2"),
            ("trainer: &a {b: *a}", "Expected 'below.yaml' to come to an end, but line 1 refers to itself"),
            ("[1]: 3", "Expected 'below.yaml' to have names before colons, but line 1 has none"),
            ("model: {class_path: Nothing}", "model: "),
        ],
    )
    def test_what_is_wrong_in_a_base_names_the_base(self, capsys, text, expected):
        Path("below.yaml").write_text(text)
        Path("top.yaml").write_text("base: below.yaml\nseed_everything: 1")
        line = refused(capsys, "fit", "--config", "top.yaml")
        assert line.startswith(expected), line
        assert "below.yaml" in line
        assert "top.yaml" not in line

    def test_config_without_a_value(self, capsys):
        assert "expected one argument" in refused(capsys, "fit", "--config")


class TestText:
    """jsonargparse never sees ``base``, and everything else stays as and where it is."""

    @pytest.mark.parametrize(
        "text",
        [
            "base: root\nseed_everything: 1\ntrainer: {max_epochs: 2}\n",
            "# a comment\n\nseed_everything: 1\nbase: [root,\n  root]  # why\n# another\ntrainer:\n  max_epochs: 2",
            "seed_everything: 1\ntrainer:\n  max_epochs: 2\nbase:\n- root\n- root\n",
            "{seed_everything: 1, base: root, trainer: {max_epochs: 2}}",
            "{base: root, seed_everything: 1, trainer: {max_epochs: 2}}",
            '{"seed_everything": 1, "trainer": {"max_epochs": 2}, "base": "root"}\n',
            "---\nseed_everything: 1\n'base': root\ntrainer: {max_epochs: 2}\n",
        ],
    )
    def test_without_base(self, text):
        write(root="")
        Path("top.yaml").write_text(text)
        root, top = config_chain("top.yaml")
        assert root.path.stem == "root"
        assert yaml.safe_load(top.text) == {"seed_everything": 1, "trainer": {"max_epochs": 2}}
        assert top.text.count("\n") == text.count("\n")

    def test_lines_keep_their_numbers(self):
        write(root="")
        Path("top.yaml").write_text("base:\n  - root\n\nseed_everything: 1")
        assert config_chain("top.yaml")[-1].text.splitlines()[3] == "seed_everything: 1"

    @pytest.mark.parametrize("text", ["base: root", "{base: root}", "# only\nbase: [root]\n"])
    def test_nothing_but_a_base(self, text):
        write(root="")
        Path("top.yaml").write_text(text)
        assert [yaml.safe_load(config.text) for config in config_chain("top.yaml")] == [{"seed_everything": 1}, {}]

    def test_base_deeper_down_is_an_argument(self):
        (config,) = config_chain("{model: {loss: {base: x}}}")
        assert config.text == "{model: {loss: {base: x}}}"


class TestPaths:
    """In a base they mean what they meant beside it."""

    def test_parts_in_files_lie_beside_the_base_and_plain_paths_in_the_working_directory(self, capsys, folder):
        places = Path("below")
        places.mkdir()
        (places / "trainer.yaml").write_text("max_epochs: 7")
        (places / "data.yaml").write_text("class_path: CIFAR10DataModule\ninit_args: {root: pictures}")
        (places / "base.yaml").write_text("trainer: trainer.yaml\ndata: data.yaml\nmodel: NoisyLabelModule")
        Path("top.yaml").write_text("base: below/base.yaml\nseed_everything: 1")
        alone = printed(capsys, "fit", "--config", "below/base.yaml")
        top = printed(capsys, "fit", "--config", "top.yaml")
        assert top["trainer"]["max_epochs"] == 7
        assert top["data"]["init_args"]["root"] == "pictures"
        for config in (alone, top):
            del config["trainer"]["logger"], config["seed_everything"]
        assert alone == top
        assert Path.cwd() == folder

    def test_a_part_in_a_file_is_no_chain(self, capsys):
        write(root="")
        Path("trainer.yaml").write_text("base: root\nmax_epochs: 7")
        Path("top.yaml").write_text("trainer: trainer.yaml")
        assert "base" in refused(capsys, "fit", "--config", "top.yaml")
        assert "base" in refused(capsys, "fit", "--trainer", "trainer.yaml")


class TestCommandLine:
    def test_before_the_subcommand(self, capsys):
        Path("root.yaml").write_text("fit: {seed_everything: 3, trainer: {max_epochs: 1}}")
        Path("top.yaml").write_text("base: root\nfit: {trainer: {max_epochs: 2}, model: NoisyLabelModule}")
        config = printed(capsys, "--config", "top.yaml", "fit")
        assert (config["seed_everything"], config["trainer"]["max_epochs"]) == (3, 2)

    @pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
    def test_other_subcommands(self, capsys, subcommand):
        config = printed(capsys, subcommand, "--config", "dal/cifar10")
        assert config["model"]["init_args"]["loss"]["class_path"].endswith("DynamicsAwareLoss")
        assert config["trainer"]["logger"]["init_args"]["name"] == "dal/cifar10"

    def test_arguments_of_the_process(self, capsys, monkeypatch):
        monkeypatch.setattr("sys.argv", ["lightning-noisy", "fit", "--config", "quickstart_ce", "--print_config"])
        with pytest.raises(SystemExit):
            run()
        config = yaml.safe_load(capsys.readouterr().out)
        assert config["trainer"]["logger"]["init_args"]["name"] == "quickstart_ce"

    def test_arguments_between_two_configurations(self, capsys):
        write(root="", top="root")
        Path("other.yaml").write_text("base: root\ntrainer: {max_epochs: 9}\nmodel: {class_path: NoisyLabelModule}")
        between = ["--seed_everything", "4"]
        config = printed(capsys, "fit", "--config", "top.yaml", *between, "--config", "other.yaml")
        assert (config["seed_everything"], config["trainer"]["max_epochs"]) == (4, 9)  # root counts in its first place

    def test_yaml_in_the_argument(self, capsys):
        config = printed(capsys, "fit", "--config", "quickstart", "--config", "{seed_everything: 6}")
        assert config["seed_everything"] == 6

    def test_values_are_found_in_every_spelling(self):
        arguments = ["fit", "--config", "a", "--x", "1", "-c", "b", "--config=c", "-cd", "--model.config", "e"]
        assert config_values(arguments) == ["a", "b", "c", "d"]

    def test_list(self, capsys, monkeypatch):
        monkeypatch.setattr("sys.argv", ["lightning-noisy", "recipes"])
        run()
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == recipe_names()
        assert len({len(line) - len(line.split(maxsplit=1)[1]) for line in lines}) == 1
        assert max(map(len, lines)) < 140
        (selc,) = (line for line in lines if line.startswith("selc/cifar10 "))
        assert selc.endswith("CIFAR-10, 40 % symmetric noise.")

    def test_list_of_some(self, capsys, monkeypatch):
        monkeypatch.setattr("sys.argv", ["lightning-noisy", "recipes", "dal/"])
        run()
        names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
        assert names == [name for name in recipe_names() if "dal/" in name]
        assert "gjs_dal/cifar100" in names
        with pytest.raises(NoisyLabelError, match=r"`FILTER` to be a part of the name of a recipe .* got 'daal'"):
            recipe_list("daal")

    @pytest.mark.parametrize("arguments", [["a", "b"], ["--all"]])
    def test_list_of_something_else(self, capsys, monkeypatch, arguments):
        monkeypatch.setattr("sys.argv", ["lightning-noisy", "recipes", *arguments])
        with pytest.raises(SystemExit):
            run()
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("lightning-noisy: error: unrecognized arguments: ")
        assert line.endswith("; see `lightning-noisy recipes --help`.")

    def test_help_names_the_list(self, capsys):
        with pytest.raises(SystemExit):
            main(["--help"])
        assert "`lightning-noisy recipes`" in " ".join(capsys.readouterr().out.split())


class TestName:
    @pytest.mark.parametrize(
        ("configs", "expected"),
        [
            (["dal/cifar10"], "dal/cifar10"),
            (["ce/cifar10", "dal/cifar10"], "dal/cifar10"),
            (["dal/cifar10", "ce/cifar10"], "dal/cifar10"),
            (["dal/cifar10", "gce/cifar10"], "gce/cifar10"),
            (["mine.yaml"], "mine"),
            (["mine.yaml", "dal/cifar10"], "mine"),
            (["dal/cifar10", "machine.yaml"], "dal/cifar10"),
            (["machine.yaml", "mine.yaml"], "mine"),
            (["configs/own/mine.yaml"], "mine"),
            ([ROOT / "dcm/cifar10/anl.yaml"], "dcm/cifar10/anl"),
            (["{seed_everything: 3}"], None),
            ([], None),
        ],
    )
    def test_of_what_is_on_the_command_line(self, configs, expected):
        write(mine="dal/cifar10", machine="", configs__own__mine="")
        assert run_name([word for config in configs for word in ("--config", str(config))]) == expected

    def test_another_logger_counts(self, capsys):
        logger = f"{{class_path: {LOGGER}, init_args: {{save_dir: x}}}}"
        Path("own.yaml").write_text(f"base: quickstart\ntrainer: {{logger: {logger}}}")
        logger = printed(capsys, "fit", "--config", "own.yaml")["trainer"]["logger"]
        assert logger["init_args"]["save_dir"] == "x"
        named = ["--trainer.logger.name", "y", "--trainer.logger.version", "3"]
        logger = printed(capsys, "fit", *named, "--config", "quickstart")["trainer"]["logger"]
        assert {key: logger["init_args"][key] for key in ("save_dir", "name", "version")} == {
            "save_dir": "runs",
            "name": "y",
            "version": 3,
        }
        none = ["--trainer.logger", "false"]
        assert printed(capsys, "fit", "--config", "quickstart", *none)["trainer"]["logger"] is False

    def test_without_a_file_the_logger_is_lightnings(self, capsys):
        assert printed(capsys, "fit", "--model", "NoisyLabelModule")["trainer"]["logger"] is None


def test_settings_are_put_on_top_of_each_other():
    Path("root.yaml").write_text(
        "model: {class_path: torch.nn.Linear, init_args: {in_features: 3, out_features: 4}}\n"
        "data: {class_path: torch.nn.Dropout, init_args: {p: 0.5, inplace: true}}\n"
        "trainer: {callbacks: [a], x: {y: 1, z: 2}}\n"
    )
    Path("top.yaml").write_text(
        "base: root\nmodel: {out_features: 5}\ndata: {class_path: torch.nn.ReLU}\n"
        "trainer: {callbacks+: [b], x: {y: null}, w: {v: 1}}\n"
    )
    assert recipe_settings("top.yaml") == {
        "model": {"class_path": "torch.nn.Linear", "init_args": {"in_features": 3, "out_features": 5}},
        "data": {"class_path": "torch.nn.ReLU", "init_args": {"inplace": True}},
        "trainer": {"callbacks": ["a", "b"], "x": {"y": None, "z": 2}, "w": {"v": 1}},
    }
