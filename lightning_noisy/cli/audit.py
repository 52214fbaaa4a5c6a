"""``lightning-noisy audit``: from a folder, a table or features to the list of labels that are wrong."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from lightning_noisy.cli.audit_settings import as_run, feature_settings, photo_settings, pretrained_settings
from lightning_noisy.cli.parser import CommandParser
from lightning_noisy.cli.start import Start
from lightning_noisy.embedding import embed_images, find_images
from lightning_noisy.errors import NoisyLabelError, check_argument, check_count
from lightning_noisy.files import check_writable, written_aside
from lightning_noisy.networks.pretrained import LITE, Pretrained, network_at_hand, pretrained_network
from lightning_noisy.recipes import Settings, on_top
from lightning_noisy.tuning import Fit

_DESCRIPTION = """\
Find the labels that are probably wrong, and train a classifier: features of the images by a pretrained network, a
robust head on them, then `label_issues.csv`, `report.html` and `suggested_labels.npz` in `OUTPUT/label_issues`.
PATH is a folder with one for each class, a CSV table of paths and labels, or an .npz file with `x` and `y`.
Without any pretrained network at hand a small one is trained from scratch."""

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
    output = Path(options.output or Path("runs", "audit", path.stem))
    config = output / "audit.yaml"
    check_writable(config, "output")
    start.makes(output)
    settings = _of_features(path, options) if path.suffix == ".npz" else _of_images(path, options, output)
    settings = as_run(settings, output, options.epochs, options.seed, _report(path))
    written = yaml.safe_dump(settings, sort_keys=False)
    with written_aside(config) as file:
        file.write(written.encode())
    print(f"{config}:\n{written}", flush=True)
    fit(["--config", str(config)], start.follow)
    print(f"The same again, after a change: lightning-noisy fit --config {config}")
    return output / "label_issues"


def _report(path: Path) -> dict[str, Any]:
    """What the report is called, and where its pictures are."""
    root = path if path.is_dir() else path.parent
    return {"title": path.stem} if path.suffix == ".npz" else {"title": path.stem, "image_root": str(root)}


def _of_features(path: Path, options: Namespace) -> Settings:
    images = options.finetune or options.from_scratch
    check_argument(not images, "PATH", "images for `--finetune` and `--from_scratch`", options.path)
    return feature_settings(path)


def _of_images(path: Path, options: Namespace, output: Path) -> Settings:
    """A head on their features, or a network on themselves."""
    source = find_images(options.path, options.image_column, options.label_column)
    if source.class_names is None or len(source.class_names) < 2:
        raise NoisyLabelError(
            f"'{options.path}' has no labels to audit: give a folder with one for each class, or a table with a column "
            f"'{options.label_column}'."
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
    parser.add_argument("--image_column", default="image", metavar="NAME", help="of a table (%(default)s)")
    parser.add_argument("--label_column", default="label", metavar="NAME", help="of a table (%(default)s)")
    parser.add_argument("--num_workers", type=int, metavar="N", help="processes that decode images")
    return parser
