"""``lightning-noisy embed``: features of image files by a pretrained network."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_noisy.cli.new_images import SOME_SKIPPED
from lightning_noisy.cli.parser import CommandParser
from lightning_noisy.embedding import embed_images, find_images
from lightning_noisy.networks.pretrained import LITE, pretrained_network

_DESCRIPTION = """\
Write the features of images, by a network that was trained on ImageNet, to a .npz file; a head trains on them in
seconds: `fit --data FeaturesDataModule --data.path FILE.npz`. A run that was ended goes on where it stopped. Images
that cannot be read are left out and listed beside the file; the exit status is then 3."""


def embed(arguments: Sequence[str]) -> None:
    """Run the command.

    Args:
        arguments: Those of the command, without its name.

    Raises:
        NoisyLabelError: No images, no such network, weights that cannot be had, or a file that cannot be written.
        SystemExit: With code 3, where images could not be read.
    """
    given = _parser().parse_args(arguments)
    source = find_images(given.path, given.image_column, given.label_column)
    network, output = pretrained_network(given.model, given.weights), Path(given.output).expanduser()
    problems = embed_images(source, network, output, given.batch_size, given.num_workers)
    problems.write(output.parent, f"{output.stem}.")
    classes = "without labels" if source.class_names is None else f"{len(source.class_names)} classes"
    count = sum(map(len, source.lists.values())) - len(problems.skipped)
    print(f"Features of {count} images, {classes}: {output}", file=sys.stderr)
    if problems.skipped:
        raise SystemExit(SOME_SKIPPED)


def _parser() -> CommandParser:
    parser = CommandParser("embed", _DESCRIPTION)
    parser.add_argument("path", metavar="PATH", help="a folder with one for each class, a CSV table, or a flat folder")
    parser.add_argument("--model", default=LITE, help=f"of torchvision or timm, or {LITE}, the default")
    parser.add_argument(
        "--weights", metavar="FILE", help="state dict of the model; by default its best ImageNet weights"
    )
    parser.add_argument("--output", required=True, metavar="FILE.npz", help="what is written")
    parser.add_argument("--image_column", metavar="NAME", help="of a table (image, path, file, ...)")
    parser.add_argument("--label_column", metavar="NAME", help="of a table (label, class, target, ...)")
    parser.add_argument("--batch_size", type=int, default=64, metavar="N", help="images in a batch")
    parser.add_argument("--num_workers", type=int, default=0, metavar="N", help="processes that decode images")
    return parser
