"""What holds for the package as a whole: metadata, public names, direction of imports, lint and types."""

from __future__ import annotations

import ast
import configparser
import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

import lightning_noisy
from lightning_noisy.requirements import COMMAND_LINE, TUNE

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lightning_noisy"

ROOMS = [
    {"errors", "private_api"},
    {"checks", "collectives", "files", "recipes", "requirements", "storage", "trainer_access"},
    {"checkpoints", "figures", "spreadsheets"},
    {"functional"},
    {"losses", "heads", "networks", "optim", "reports"},
    {"data"},
    {"state"},
    {"targets"},
    {"metrics"},
    {"modules", "callbacks"},
    {"embedding", "loop", "tuning"},
    {"__init__"},
    {"cli"},
    {"__main__"},
]
"""Modules and subpackages, low to high. An import goes to a lower line, or stays in its own room."""

OPTUNA = {"journal", "proposals", "study", "worker"}
"""Modules of ``tuning`` that may import Optuna, which is optional; they are imported inside of functions alone."""

LEVELS = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}


def imported_modules(source: str) -> Iterator[str]:
    """Dotted names of everything a source file imports, at its top and inside functions."""
    yield from imported_by(ast.walk(ast.parse(source)))


def imported_by(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Dotted names of what statements import, without those inside of them."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(path: Path, package: Path) -> str:
    """The room of a file: its name or its subpackage's."""
    return path.relative_to(package).parts[0].removesuffix(".py")


def imported_rooms(source: str) -> set[str]:
    """Rooms of the package that a source file imports; a name of the package itself counts as ``__init__``."""
    names = (name.split(".") for name in imported_modules(source))
    parts = [name[1] if len(name) > 1 else "" for name in names if name[0] == "lightning_noisy"]
    return {part if part in LEVELS else "__init__" for part in parts}


def top(name: str) -> str:
    """The package of a dotted name."""
    return name.split(".")[0]


def wrong_imports(package: Path) -> list[str]:
    """Imports that do not point down."""
    wrong = []
    for path in sorted(package.rglob("*.py")):
        here = room_of(path, package)
        wrong += [
            f"{path.relative_to(package)} imports {there}"
            for there in sorted(imported_rooms(path.read_text()))
            if there != here and LEVELS[there] >= LEVELS[here]
        ]
    return wrong


def distributed_names(source: str) -> set[str]:
    """What a source file takes from torch.distributed, as ``dist.NAME`` or by import."""
    tree = ast.parse(source)
    assert not any(name.startswith("torch.distributed.") for name in imported_modules(source)), "import it as `dist`"
    attributes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return {node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id == "dist"}


def read_setup() -> configparser.ConfigParser:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    return setup


def repository_files() -> Iterator[Path]:
    """Files of the repository, without what .gitignore names and other hidden folders."""
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().split()}
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        hidden = parts[0].startswith(".") and parts[0] not in (".ci", ".gitignore")
        named = parts[0] in ignored or "__pycache__" in parts or ".ipynb_checkpoints" in parts
        if path.is_file() and not hidden and not named and not parts[0].endswith(".egg-info"):
            yield path


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)


def test_collectives_are_called_in_one_place() -> None:
    """So their bytes can be counted, and documented."""
    allowed = {"is_available", "is_initialized", "get_world_size"}
    allowed |= {"DistError", "distributed_c10d", "destroy_process_group"}  # what the command line asks of a group
    for path in PACKAGE.rglob("*.py"):
        if path != PACKAGE / "collectives.py":
            assert distributed_names(path.read_text()) <= allowed, path
    assert "all_reduce" in distributed_names((PACKAGE / "collectives.py").read_text())


def test_one_version() -> None:
    version = lightning_noisy.__version__
    assert version == metadata.version("lightning-noisy") == read_setup()["metadata"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


def test_python_floor_is_the_same_everywhere() -> None:
    floor = read_setup()["options"]["python_requires"].removeprefix(">=")
    tools = (ROOT / "pyproject.toml").read_text()
    assert f'target-version = "py{floor.replace(".", "")}"' in tools
    assert f'python_version = "{floor}"' in tools


def test_every_bound_has_a_reason() -> None:
    lines = [line.strip() for line in (ROOT / "setup.cfg").read_text().splitlines()]
    bounds = [i for i, line in enumerate(lines) if re.match(r"[\w.-]+(\[\w+\])?>=", line)]
    assert len(bounds) >= 10
    for i in bounds:
        version = lines[i].split(">=")[1]
        assert lines[i - 1].startswith(f"# {version}: "), f"setup.cfg, line {i + 1}: no reason for {lines[i]}"


def test_lower_bounds_are_those_of_the_environment_that_tries_them() -> None:
    """``.ci/lower_bounds`` installs these versions; a bound that is raised here is raised there."""
    pinned = [line for line in (ROOT / "tests" / "lower_bounds.txt").read_text().splitlines() if line[0] != "#"]
    extras = read_setup()["options.extras_require"]
    bounds = [*requirements(), *filter(None, extras["test"].split("\n")), *filter(None, extras["timm"].split("\n"))]
    assert pinned == [re.sub(r"(\[\w+\])?>=", "==", bound) for bound in bounds]


@pytest.mark.parametrize(("extra", "checked"), [("cli", COMMAND_LINE), ("tune", TUNE)])
def test_commands_check_for_what_their_extra_brings(extra: str, checked: dict[str, str]) -> None:
    bounds = read_setup()["options.extras_require"][extra].split("\n")
    assert {re.sub(r"\[\w+\]", "", bound) for bound in bounds if bound} == {
        f"{name}>={oldest}" for name, oldest in checked.items()
    }


def test_nothing_but_a_search_imports_optuna() -> None:
    own = [PACKAGE / "tuning" / f"{name}.py" for name in OPTUNA]
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        if path not in own:
            assert "optuna" not in map(top, imported_by(ast.walk(tree))), path
            at_its_top = {name.removeprefix("lightning_noisy.tuning.").split(".")[0] for name in imported_by(tree.body)}
            assert not at_its_top & OPTUNA, path


def test_every_dependency_has_a_bound_and_is_used() -> None:
    names = {
        "scikit-learn": "sklearn",
        "lightning-utilities": "lightning_utilities",
        "pyyaml": "yaml",
        "pillow": "PIL",
        "tensorboard": "lightning",
    }  # its logger wants tensorboard
    source = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    imported = {top(name) for path in PACKAGE.rglob("*.py") for name in imported_modules(path.read_text())}
    for dependency in read_setup()["options"]["install_requires"].split("\n"):
        if not dependency:
            continue
        assert ">=" in dependency
        name = re.split(r"[\[>]", dependency)[0]
        if name == "jsonargparse":
            assert "LightningCLI" in source
        else:
            assert names.get(name, name) in imported, f"nothing imports {name}"
    unknown = imported - set(sys.stdlib_module_names) - {"lightning_noisy", "optuna"}  # its own test: below
    known = {names.get(re.split(r"[\[>]", d)[0], re.split(r"[\[>]", d)[0]) for d in requirements()}
    assert unknown <= known, f"not among the dependencies: {unknown - known}"


def requirements() -> list[str]:
    return [line for line in read_setup()["options"]["install_requires"].split("\n") if line]


def test_types_and_license_are_packaged() -> None:
    assert (PACKAGE / "py.typed").is_file()
    assert read_setup()["options.package_data"]["lightning_noisy"] == "py.typed"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel of a clone, its sdist, and the wheel of the sdist."""
    clone, folder = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("built")
    for path in repository_files():
        target = clone / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    files = {"wheel": build("wheel", clone, folder), "sdist": build("sdist", clone, folder)}
    with tarfile.open(files["sdist"]) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return {**files, "wheel of the sdist": build("wheel", unpacked, folder / "again")}


def build(kind: str, tree: Path, folder: Path) -> Path:
    """As pip builds it, without a place of its own for the building."""
    folder.mkdir(exist_ok=True)
    code = f"import sys; from setuptools import build_meta; print(build_meta.build_{kind}(sys.argv[1]))"
    command = [sys.executable, "-W", "ignore", "-c", code, str(folder)]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1]


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_wheel_has_the_package_and_the_recipes_and_nothing_else(built: dict[str, Path]) -> None:
    expected = {str(path.relative_to(ROOT)): path for path in repository_files() if path.is_relative_to(PACKAGE)} | {
        str(Path("lightning_noisy", path.relative_to(ROOT))): path for path in (ROOT / "configs").rglob("*.yaml")
    }
    found = {name: content for name, content in contents(built["wheel"]).items() if ".dist-info/" not in name}
    assert found.keys() == expected.keys()
    assert all(found[name] == path.read_bytes() for name, path in expected.items())
    assert any(name.endswith("licenses/LICENSE") for name in contents(built["wheel"]))
    assert sum(name.endswith(".yaml") for name in found) > 100


def test_sdist_builds_the_same_wheel(built: dict[str, Path]) -> None:
    assert contents(built["wheel of the sdist"]) == contents(built["wheel"])


@pytest.mark.slow
def test_installed_wheel_runs_the_quickstart_in_an_empty_folder(built: dict[str, Path], tmp_path: Path) -> None:
    installed, empty = tmp_path / "installed", tmp_path / "empty"
    empty.mkdir()
    install = ("pip", "install", "--no-deps", "--no-index", "--quiet", "--target", str(installed))
    done = run(*install, str(built["wheel"]))
    assert done.returncode == 0, done.stderr
    arguments = ["fit", "--config", "quickstart", "--trainer.max_epochs", "1"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "lightning_noisy", *arguments],
        cwd=empty,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in empty.iterdir()] == ["runs"]
    assert (empty / "runs" / "quickstart" / "version_0" / "config.yaml").is_file()


def test_license_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert read_setup()["metadata"]["license_expression"] == "Apache-2.0"


@pytest.mark.parametrize(
    "name",
    ["lightning_noisy", *(f"lightning_noisy.{m.name}" for m in pkgutil.iter_modules([str(PACKAGE)]) if m.ispkg)],
)
def test_public_names_have_docstrings(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    exported = getattr(module, "__all__", [])
    assert sorted(set(exported)) == sorted(exported)
    for public in exported:
        value = getattr(module, public)
        own = vars(value) if isinstance(value, type) else {"__doc__": value.__doc__}  # a class would inherit one
        assert own.get("__doc__"), f"{name}.{public} has no docstring"


def test_callbacks_have_the_base_that_both_lightnings_take() -> None:
    files = [path for path in PACKAGE.rglob("*.py") if path.name != "private_api.py"]
    assert not [path.name for path in files if "lightning.pytorch.Callback" in imported_modules(path.read_text())]


def test_imports_point_down() -> None:
    assert {room_of(path, PACKAGE) for path in PACKAGE.rglob("*.py")} <= set(LEVELS), "a new room: enter it in ROOMS"
    assert not wrong_imports(PACKAGE)


def test_pure_functions_know_nothing_but_torch_and_what_computes() -> None:
    for path in (PACKAGE / "functional").rglob("*.py"):
        others = {name.split(".")[0] for name in imported_modules(path.read_text())}
        assert others - set(sys.stdlib_module_names) <= {"torch", "numpy", "sklearn", "lightning_noisy"}, path.name


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("functional/losses.py", "from lightning_noisy.losses import DynamicsAwareLoss"),
        ("losses/base.py", "from lightning_noisy import heads"),
        ("data/module.py", "def later():\n    import lightning_noisy.state"),
        ("callbacks/selc.py", "from lightning_noisy.modules import NoisyLabelModule"),
        ("modules/module.py", "from lightning_noisy import SampleStore"),
        ("__init__.py", "from lightning_noisy.cli import main"),
    ],
)
def test_a_turned_arrow_is_found(tmp_path: Path, file: str, source: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(source)
    assert len(wrong_imports(tmp_path)) == 1


def test_nothing_names_the_machine_it_was_written_on() -> None:
    paths = re.compile("(?<![\\w.)}\\]-])/" + "(work|root|home|Users|tmp/venv)" + "\\w*(/|\\b)")
    found = []
    for path in repository_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in paths.finditer(text)]
    assert not found


@pytest.mark.parametrize("command", [("check",), ("format", "--check")], ids=" ".join)
def test_ruff_finds_nothing(command: tuple[str, ...]) -> None:
    outcome = run("ruff", *command)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_types_are_right() -> None:
    bound = next(line.removeprefix("torch>=") for line in requirements() if line.startswith("torch>="))
    if metadata.version("torch").startswith(f"{bound}."):
        pytest.skip("the oldest releases of torch and matplotlib annotate less")
    outcome = run("mypy")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
