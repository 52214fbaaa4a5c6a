"""``lightning-noisy audit``: from a folder, a table or features to the list of labels that are wrong."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Trainer

from lightning_noisy.cli.audit_settings import as_run, feature_settings
from lightning_noisy.cli.parser import CommandParser
from lightning_noisy.embedding import embed_images, find_images
from lightning_noisy.errors import NoisyLabelError, check_count
from lightning_noisy.files import check_writable, written_aside
from lightning_noisy.networks.pretrained import LITE, pretrained_network

_DESCRIPTION = """\
Find the labels that are probably wrong, and train a classifier: features of the images by a pretrained network, a
robust head on them, then `label_issues.csv`, `report.html` and `suggested_labels.npz` in `OUTPUT/label_issues`.
PATH is a folder with one for each class, a CSV table of paths and labels, or an .npz file with `x` and `y`."""


def audit(arguments: Sequence[str], fit: Callable[[list[str]], Trainer]) -> Path:
    """Audit the labels of a data set.

    The head is trained with early-learning regularization; the run is an ordinary one, whose configuration is written
    to ``OUTPUT/audit.yaml`` and printed, to be edited and run again with ``fit``. Settings follow the number of samples
    alone: below 10,000 a linear head on features with noise, above one hidden layer.

    Args:
        arguments: Those of the command.
        fit: Trains with arguments of ``fit``.

    Returns:
        The folder of the report.

    Raises:
        NoisyLabelError: Nothing with labels is at the path, or an output that cannot be written.
    """
    options = _parser().parse_args(arguments)
    check_count(options.epochs, "epochs", optional=True)
    output = Path(options.output or Path("runs", "audit", Path(options.path).stem))
    config = output / "audit.yaml"
    check_writable(config, "output")
    features = Path(options.path) if Path(options.path).suffix == ".npz" else _embedded(options, output)
    settings = as_run(feature_settings(features), output, options.epochs, options.seed, _report(Path(options.path)))
    written = yaml.safe_dump(settings, sort_keys=False)
    with written_aside(config) as file:
        file.write(written.encode())
    print(f"{config}:\n{written}", flush=True)
    fit(["--config", str(config)])
    print(f"The same again, after a change: lightning-noisy fit --config {config}")
    return output / "label_issues"


def _report(path: Path) -> dict[str, Any]:
    """What the report is called, and where its pictures are."""
    root = path if path.is_dir() else path.parent
    return {"title": path.stem} if path.suffix == ".npz" else {"title": path.stem, "image_root": str(root)}


def _embedded(options: Namespace, output: Path) -> Path:
    """The features of images, in the run's folder."""
    source = find_images(options.path, options.image_column, options.label_column)
    if source.class_names is None or len(source.class_names) < 2:
        raise NoisyLabelError(
            f"'{options.path}' has no labels to audit: give a folder with one for each class, or a table with a column "
            f"'{options.label_column}'."
        )
    features = output / "features.npz"
    network = pretrained_network(options.model, options.weights)
    problems = embed_images(source, network, features, num_workers=options.num_workers)
    problems.write(output, "")
    return features


def _parser() -> CommandParser:
    parser = CommandParser("audit", _DESCRIPTION)
    parser.add_argument("path", metavar="PATH", help="folder, CSV table or .npz file")
    parser.add_argument("--output", help="the run's folder (runs/audit/NAME)")
    parser.add_argument("--epochs", type=int, help="of the head (20)")
    parser.add_argument("--seed", type=int, default=0, help="of all draws (%(default)s)")
    parser.add_argument("--model", default=LITE, help="what embeds images, of torchvision or timm (%(default)s)")
    parser.add_argument("--weights", metavar="FILE", help="its weights; by default its best ImageNet weights")
    parser.add_argument("--image_column", default="image", metavar="NAME", help="of a table (%(default)s)")
    parser.add_argument("--label_column", default="label", metavar="NAME", help="of a table (%(default)s)")
    parser.add_argument("--num_workers", type=int, default=0, metavar="N", help="processes that decode images")
    return parser
