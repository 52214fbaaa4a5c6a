"""Modules whose parts no checkpoint holds."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule
from typing_extensions import Self, override

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.private_api import restricted_classmethod


class NamesMissingParts(LightningModule):
    """A module that says at ``load_from_checkpoint`` which of its parts are missing."""

    @restricted_classmethod
    @override
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: N805
        """As Lightning's, with the parts by their names.

        Raises:
            NoisyLabelError: An argument of the constructor is missing.
        """
        try:
            return super().load_from_checkpoint(*args, **kwargs)
        except TypeError as error:
            if "required positional argument" not in str(error):
                raise
            name, missing = cls.__name__, str(error).partition(": ")[2].replace("'", "`")
            raise NoisyLabelError(
                f"A checkpoint holds weights and plain arguments alone, but {name} needs {missing} as well: give them "
                f"by name, `{name}.load_from_checkpoint(path, ...)`, as it was made for training."
            ) from error
