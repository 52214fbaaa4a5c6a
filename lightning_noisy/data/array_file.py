"""Files of arrays, read without running the code that pickles can hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from lightning_noisy.errors import NoisyLabelError

Array = np.ndarray[Any, np.dtype[Any]]

_NUMPY = "a plain array of numbers", "save numbers with `np.save` or `np.savez`, not objects"
_TORCH = "a dict of tensors", "save nothing but tensors in a dict, with `torch.save`"
_BESIDE = ("class_names", "path", "row", "given")  # what a file says of its samples is never taken for their labels
_LONGEST = 120  # characters of a reason: some repeat what is in the file


class ArrayFile:
    """The array of a ``.npy`` file, or the named ones of a ``.npz`` or ``.pt`` file (a dict of tensors).

    Args:
        path: The file; it need not be there before it is read.
        argument: What the user calls the path, for messages.
        key_argument: What the user calls the name of an array.
    """

    def __init__(self, path: str, argument: str = "path", key_argument: str = "key") -> None:
        self.path = path
        self.argument = argument
        self.key_argument = key_argument

    def error(self, wanted: str, came: str, way_out: str) -> NoisyLabelError:
        """The line that says what the file should hold."""
        return NoisyLabelError(f"Expected the file '{self.path}' to hold {wanted}, but got {came}: {way_out}.")

    @contextmanager
    def open(self, content: str) -> Iterator[Mapping[str | None, Array]]:
        """The arrays by their names, each read when it is asked for; that of a ``.npy`` file has the name None.

        Args:
            content: What the file should hold, for messages.

        Raises:
            NoisyLabelError: It is missing or cannot be read. Errors of the block count as such: do nothing but read.
        """
        path = Path(self.path).expanduser()
        if not path.is_file():
            raise self.error(content, "no such file", f"check `{self.argument}`, relative to the working directory")
        of_torch = path.suffix.lower() == ".pt"
        try:
            with _tensors(path) if of_torch else _arrays(path) as arrays:
                yield arrays
        except Exception as error:  # decoders raise nearly anything, numpy's also errors of Python's grammar
            reason = (str(error).splitlines() or [type(error).__name__])[0][:_LONGEST]
            wanted, way_out = _TORCH if of_torch else _NUMPY
            raise self.error(wanted, f"'{reason}'", way_out) from error

    def has(self, name: str) -> bool:
        """Whether it holds an array of this name."""
        with self.open("labels") as arrays:
            return name in arrays

    def pick(self, key: str | None, content: str = "labels") -> Array:
        """The labels' array: that named ``key``, or the only one.

        Args:
            key: Its name.
            content: What the file should hold, for messages.

        Raises:
            NoisyLabelError: There is none of that name, or several without a key.
        """
        with self.open(content) as arrays:
            names = [name for name in arrays if name not in _BESIDE or name == key]
            name = names[0] if key is None and len(names) == 1 else key
            if name in names:
                return arrays[name]
        if names == [None]:
            raise self.error(
                f"an array named {key!r}", "a single array without a name", f"leave out `{self.key_argument}`"
            )
        wanted = "one array" if key is None else f"an array named {key!r}"
        listed = ", ".join(repr(name) for name in names) or "no array"
        raise self.error(wanted, listed, f"set `{self.key_argument}` to the labels' name")

    def labels(
        self, array: Array, count: int, num_classes: int | None, name: str = "labels", of: str = "training sample"
    ) -> Tensor:
        """An array as labels.

        Args:
            array: What the file holds.
            count: Number of labels N.
            num_classes: Number of classes K; None sets no upper bound.
            name: What the labels are, for messages.
            of: What each belongs to.

        Returns:
            int64 (N,).

        Raises:
            NoisyLabelError: Another shape, no integers, or values outside [0, K).
        """
        if array.shape != (count,):
            wanted = f"{name}, one per {of}, shape ({count},)"
            raise self.error(wanted, f"shape {array.shape}", "take the labels of these samples")
        if array.dtype.kind not in "iu":
            raise self.error(f"integer {name}", f"dtype {array.dtype}", "save them with `.astype(np.int64)`")
        end = 2**63 if num_classes is None else num_classes
        outside = (array < 0) | (array >= end)
        if outside.any():
            first = int(outside.argmax())
            came = f"{array[first]} at position {first}"
            wanted = f"{name} in [0, {end})" if num_classes is not None else f"{name} from 0 on"
            raise self.error(wanted, came, "check `num_classes`, and that they count from 0")
        return torch.from_numpy(array.astype(np.int64))


def _arrays(path: Path) -> AbstractContextManager[Mapping[str | None, Array]]:
    loaded = np.load(path, allow_pickle=False)
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        return nullcontext({None: loaded})
    return _Members(loaded)


class _Members(dict[str | None, Any], AbstractContextManager[Mapping[str | None, Array]]):
    """Names of the members of an archive; what is no array is refused when it is asked for."""

    def __init__(self, archive: Any) -> None:
        super().__init__(dict.fromkeys(archive.files))
        self._archive = archive

    def __getitem__(self, name: str | None) -> Array:
        """A member, read anew each time."""
        member = self._archive[name]
        if not isinstance(member, np.ndarray):
            raise TypeError(f"`{name}`, which is no array")
        return member

    def __exit__(self, *_: object) -> None:
        """Close the archive."""
        self._archive.close()


def _tensors(path: Path) -> AbstractContextManager[Mapping[str | None, Array]]:
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(loaded, dict):
        raise TypeError(f"a {type(loaded).__name__}")
    return nullcontext({name: _as_array(value) for name, value in loaded.items() if isinstance(value, Tensor)})


def _as_array(tensor: Tensor) -> Array:
    """As numpy has it, which knows no bfloat16."""
    return cast(Array, (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy())
