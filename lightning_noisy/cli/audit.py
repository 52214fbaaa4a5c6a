"""``lightning-noisy audit``: from a folder, a table or features to the list of labels that are wrong."""

from __future__ import annotations

import json
import re
import shutil
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from lightning_noisy.cli.audit_settings import as_run, feature_settings, photo_settings, pretrained_settings
from lightning_noisy.cli.parser import CommandParser
from lightning_noisy.cli.start import Start
from lightning_noisy.embedding import embed_images, find_images
from lightning_noisy.errors import NoisyLabelError, check_argument, check_count, printable
from lightning_noisy.files import check_writable, written_aside
from lightning_noisy.networks.pretrained import LITE, Pretrained, network_at_hand, pretrained_network
from lightning_noisy.recipes import Settings, on_top
from lightning_noisy.tuning import Fit

_DESCRIPTION = """\
Find the labels that are probably wrong, and train a classifier: features of the images by a pretrained network, a
robust head on them, then `label_issues.csv`, `report.html` and `suggested_labels.npz` in `OUTPUT/label_issues`.
PATH is a folder with one for each class, a CSV table of paths and labels, or an .npz file with `x` and `y`.
Without any pretrained network at hand a small one is trained from scratch."""

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_FROM_SCRATCH = "No pretrained network is at hand, so a small one is trained from scratch, which finds less."


def audit(arguments: Sequence[str], fit: Fit, start: Start) -> Path:
    """Audit the labels of a data set.

    What is trained, always with early-learning regularization, is a recipe of ``own/``: a head on features, or a
    network on images, see :mod:`~lightning_noisy.cli.audit_settings`. The run is an ordinary one. Its configuration is
    written to ``OUTPUT/audit.yaml`` and printed, to be edited and run again with ``fit``.

    Args:
        arguments: Those of the command.
        fit: Trains with arguments of ``fit``.
        start: Takes back what is made where there is no first step.

    Returns:
        The folder of the report.

    Raises:
        NoisyLabelError: Nothing with labels is at the path, a pretrained network that is asked for cannot be had, or
            an output cannot be written.
    """
    options = _parser().parse_args(arguments)
    check_count(options.epochs, "epochs", optional=True)
    check_count(options.seed, "seed", least=0, most=2**32 - 1)
    path = Path(options.path)
    output = Path(options.output or Path("runs", "audit", _folder_name(path)))
    config = output / "audit.yaml"
    _check_output(output, path, config)
    start.makes(output)
    settings = _of_features(path, options) if _is_features(path) else _of_images(path, options, output)
    settings = as_run(settings, output, options.epochs, options.seed, _report(path))
    written = f"{_asked(path)}\n{yaml.dump(settings, Dumper=_Dumper, sort_keys=False)}"
    shutil.rmtree(output / "checkpoints", ignore_errors=True)  # of an audit before this one
    with written_aside(config) as file:
        file.write(written.encode())
    print(f"{config}:\n{written}", flush=True)
    fit(["--config", str(config)], start.follow)
    print(f"The same again, after a change: lightning-noisy fit --config {config}")
    return output / "label_issues"


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Quotes text that a reader of YAML might take for a number, such as a folder called 1e3."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, None if _PLAIN.fullmatch(text) else "'")


_Dumper.add_representer(str, _text)


def _folder_name(path: Path) -> str:
    """What the results of a path are called after: photos of a folder, photos-csv of a table."""
    found = path.resolve()
    name = found.name if path.is_dir() else found.name.replace(".", "-")
    safe = re.sub(r"[^\w.-]", "_", name)  # loggers replace variables
    return safe if _PLAIN.fullmatch(safe) and safe.lower() not in ("none", "null") else f"data-{safe}"


def _asked(path: Path) -> str:
    """The first line of ``audit.yaml``: whose it is."""
    return f"# lightning-noisy audit {json.dumps(str(path.resolve()))}"


def _check_output(output: Path, path: Path, config: Path) -> None:
    """Refuse a folder whose files would be mixed with others, before anything is written.

    Raises:
        NoisyLabelError: It lies inside of the data, has the audit of other data, or cannot be written.
    """
    is_text = not any("\udc80" <= character <= "\udcff" for character in str(path.resolve()))  # of no UTF-8 bytes
    check_argument(is_text, "PATH", "a path in UTF-8: rename it", printable(path))
    inside = path.is_dir() and output.resolve().is_relative_to(path.resolve())
    wanted = f"a folder outside of '{printable(path)}', whose folders are classes"
    check_argument(not inside, "output", wanted, str(output))
    if config.is_file():
        first = config.read_text(errors="replace").partition("\n")[0]
        if first != _asked(path):
            raise NoisyLabelError(
                f"'{output}' has an audit of other data ({printable(first.removeprefix('# lightning-noisy audit '))}): "
                "give another `--output`."
            )
    check_writable(config, "output")


def _is_features(path: Path) -> bool:
    return path.suffix.lower() == ".npz"


def _report(path: Path) -> dict[str, Any]:
    """What the report is called, and where its pictures are."""
    root, title = (path, path.resolve().name) if path.is_dir() else (path.parent, path.stem)
    place = str(root) if root.is_absolute() else f"./{root}"  # which is no null, whatever the folder is called
    return {"title": title} if _is_features(path) else {"title": title, "image_root": place}


def _of_features(path: Path, options: Namespace) -> Settings:
    images = options.finetune or options.from_scratch
    check_argument(not images, "PATH", "images for `--finetune` and `--from_scratch`", options.path)
    return feature_settings(path)


def _of_images(path: Path, options: Namespace, output: Path) -> Settings:
    """A head on their features, or a network on themselves."""
    source = find_images(options.path, options.image_column, options.label_column)
    if source.class_names is None or len(source.class_names) < 2:
        classes = "no labels" if source.class_names is None else "a single class"
        raise NoisyLabelError(
            f"'{printable(path)}' has {classes} to audit: give a folder with one for each class, or a table with a "
            "column of labels."
        )
    network = _network(options)
    if network is not None and not options.finetune:
        features = output / "features.npz"
        embed_images(source, network, features, num_workers=options.num_workers or 0).write(output, "")
        return feature_settings(features)
    recipe = "own/photos-from-scratch" if network is None else "own/photos"
    columns = options.image_column, options.label_column
    settings = photo_settings(recipe, path, columns, len(source.class_names))
    if options.num_workers is not None:
        settings = on_top(settings, {"data": {"num_workers": options.num_workers}})
    return settings if network is None else on_top(settings, pretrained_settings(network, options.weights))


def _network(options: Namespace) -> Pretrained | None:
    """The one that is asked for, or one that is at hand; None where there is none, which is said, and from scratch."""
    asked = options.model is not None or options.weights is not None
    if options.from_scratch:
        check_argument(not asked, "from_scratch", "without `--model` and `--weights`", True)
        return None
    try:
        network = pretrained_network(options.model or LITE, options.weights) if asked else network_at_hand()
    except NoisyLabelError as error:
        if asked or options.finetune:
            raise
        print(f"{_FROM_SCRATCH} {error}")
        return None
    print(f"Pretrained network: {network.name}")
    return network


def _parser() -> CommandParser:
    parser = CommandParser("audit", _DESCRIPTION)
    parser.add_argument("path", metavar="PATH", help="folder, CSV table or .npz file")
    parser.add_argument("--output", help="the run's folder (runs/audit/NAME)")
    parser.add_argument("--epochs", type=int, help="how often each sample is seen (20 for a head on features)")
    parser.add_argument("--seed", type=int, default=0, help="of all draws (%(default)s)")
    whole = parser.add_mutually_exclusive_group()
    whole.add_argument("--finetune", action="store_true", help="train the whole pretrained network, not a head on it")
    whole.add_argument("--from_scratch", action="store_true", help="train a small network, without a pretrained one")
    parser.add_argument("--model", help=f"what embeds images, of torchvision or timm ({LITE}, else resnet18)")
    parser.add_argument("--weights", metavar="FILE", help="its weights; by default its best ImageNet weights")
    parser.add_argument("--image_column", metavar="NAME", help="of a table (image, path, file, ...)")
    parser.add_argument("--label_column", metavar="NAME", help="of a table (label, class, target, ...)")
    parser.add_argument("--num_workers", type=int, metavar="N", help="processes that decode images")
    return parser
