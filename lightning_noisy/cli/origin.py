"""Where an exception arose: in a file of the user's, in a library that was called with the user's value, or here."""

from __future__ import annotations

import inspect
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

IN_WORKER = "Original Traceback"
"""So begins what a loader's worker hands on, in the message of the error."""

_COMMAND_LINE = Path(__file__).resolve().parent
_PACKAGE = _COMMAND_LINE.parent
_FRONT = {Path(__file__).stem, "command_line", "errors", "start", "making", "private_api"}
_STANDARD = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))
_LIBRARIES = {
    "PIL", "fsspec", "jsonargparse", "lightning", "lightning_fabric", "lightning_utilities", "matplotlib", "numpy",
    "pytorch_lightning", "scipy", "sklearn", "tensorboard", "timm", "torch", "torchmetrics", "torchvision", "yaml",
}  # fmt: skip


@dataclass(frozen=True)
class Origin:
    """Where an exception arose.

    Args:
        users: File and line of the user's that is nearest to it, None where only libraries and this package took part.
        in_library: Whether a library raised it, called by this package alone.
        argument: What of the user's the library was called with, in words; None where it was this package's own doing.
    """

    users: str | None
    in_library: bool
    argument: str | None

    @classmethod
    def of(cls, error: BaseException) -> Origin:
        """From the tracebacks of an exception and its causes."""
        places = list(_places(error))
        own = [place for place in places if place.owner != "library"]
        nearest = own[-1] if own else None
        if nearest is not None and nearest.owner == "user":
            return cls(f"'{nearest.file}', line {nearest.line}", False, None)
        in_library = bool(places) and places[-1].owner == "library"
        return cls(None, in_library, _argument(places) if in_library else None)

    @property
    def ours(self) -> bool:
        """Whether this package is to blame."""
        return self.users is None and self.argument is None


@dataclass(frozen=True)
class _Place:
    """A frame of a traceback; those of a loader's worker are known by file and line alone."""

    file: Path
    line: int
    frame: FrameType | None = None

    @property
    def owner(self) -> str:
        """Whose code it is: that of the "user", of a "library" or of this "package"."""
        if _PACKAGE in self.file.parents:
            return "package"
        if str(self.file).startswith("<") or self._top in _LIBRARIES:  # code that was made of a string
            return "library"
        standard = self._installed is None and any(folder in self.file.parents for folder in _STANDARD)
        return "library" if standard else "user"

    @property
    def _installed(self) -> str | None:
        """The package of an installed file."""
        for folder in ("site-packages", "dist-packages"):
            if folder in self.file.parts:
                return self.file.parts[self.file.parts.index(folder) + 1]
        return None

    @property
    def _top(self) -> str | None:
        """The package whose code it is."""
        return self._installed if self.frame is None else str(self.frame.f_globals.get("__name__")).partition(".")[0]

    @property
    def front(self) -> bool:
        """Whether it is the command line, whose calls carry what the user gave."""
        return self.file.parent == _COMMAND_LINE and self.file.stem in _FRONT

    @property
    def module(self) -> nn.Module | None:
        """The network, layer or criterion that it computes."""
        owner = None if self.frame is None else self.frame.f_locals.get("self")
        return owner if isinstance(owner, nn.Module) and self.frame.f_code.co_name == "forward" else None  # type: ignore[union-attr]


def causes(error: BaseException) -> list[BaseException]:
    """An error and what it was raised from; jsonargparse wraps those of constructors."""
    chain = [error]
    while chain[-1].__cause__ is not None and chain[-1].__cause__ not in chain:
        chain.append(chain[-1].__cause__)
    return chain


def _places(error: BaseException) -> Iterator[_Place]:
    """From the outermost to the innermost."""
    last = causes(error)[-1]
    traceback = last.__traceback__
    while traceback is not None:
        yield _Place(Path(traceback.tb_frame.f_code.co_filename), traceback.tb_lineno, traceback.tb_frame)
        traceback = traceback.tb_next
    if IN_WORKER in str(last):
        for file, line in re.findall(r'File "(.+)", line (\d+)', str(last)):
            yield _Place(Path(file), int(line))


def _argument(places: list[_Place]) -> str | None:
    """What the user gave to the library that raised."""
    front = max(i for i, place in enumerate(places) if place.front or i == 0)
    beyond = [place for place in places[front + 1 :] if place.owner == "package"]
    owners = [place.frame.f_locals.get("self") for place in places if place.frame is not None]
    root = next((owner for owner in owners if isinstance(owner, LightningModule)), None)
    part = None if root is None else _part(root, places)
    if part is not None:
        return part
    if any("/torchvision/transforms/" in place.file.as_posix() for place in places):
        return "A transform that `data` names or makes cannot take the images"
    if beyond:
        return None
    return "`trainer`" if any(isinstance(owner, Trainer) for owner in owners) else "The arguments cannot be used"


def _part(root: LightningModule, places: list[_Place]) -> str | None:
    """The argument of the module whose network or criterion was called, and the shape that it was called with."""
    names = {module: name for name, module in root.named_modules() if name}
    given = set(inspect.signature(type(root)).parameters)
    for place in places:
        name = names.get(place.module, "").rpartition(".")[2]
        if place.module is not None and name in given:
            return f"`model.{name}` ({type(place.module).__name__}) cannot take {_input(place.frame)}"
    return None


def _input(frame: FrameType | None) -> str:
    first = next((value for value in frame.f_locals.values() if isinstance(value, Tensor)), None) if frame else None
    return "this batch" if first is None else f"a batch of shape {tuple(first.shape)}"
