"""A module and the run that it takes part in."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.state import RunState


class ModuleInRun(LightningModule):
    """A LightningModule that knows the run it is trained in, and can be traced and copied outside of it."""

    def __init__(self) -> None:
        super().__init__()
        self._run: RunState | None = None

    @property
    def run(self) -> RunState:
        """The run that the module is trained in, from ``setup`` on.

        Raises:
            NoisyLabelError: No Trainer has set the module up.
        """
        if self._run is None:
            raise NoisyLabelError(
                f"{type(self).__name__} is in no run yet: steps are for a Trainer, `Trainer().fit(...)`."
            )
        return self._run

    def __dir__(self) -> list[str]:
        """All but what raises outside a run: ``torch.jit.trace`` asks for every name that is here."""
        names: list[str] = super().__dir__()  # type: ignore[no-untyped-call]
        return names if self._run is not None else [name for name in names if not self._raises(name)]

    def _raises(self, name: str) -> bool:
        """Whether it is a property that has no value yet."""
        if not isinstance(getattr(type(self), name, None), property):
            return False
        try:
            getattr(self, name)
        except Exception:  # whatever it raises: it has no value
            return True
        return False

    def __getstate__(self) -> dict[str, Any]:
        """Copies take part in no run."""
        return {**super().__getstate__(), "_run": None}
