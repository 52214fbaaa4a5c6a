"""How per-sample stores keep their rows: one object that callbacks and losses with a store take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from lightning_noisy.errors import NoisyLabelError, check_argument, check_count

DTYPES = ("float32", "float16")


@dataclass(frozen=True)
class Storage:
    r"""How a per-sample store keeps its rows. Arithmetic is float32 in any case; rows of integers stay as they are.

    With ``top_k`` a row of K probabilities is kept as its k largest entries with their classes, and as one number the
    mass outside of them, which is read as if it were spread evenly:

    .. math:: \hat t_c = t_c \;\text{ for the } k \text{ largest}, \qquad
              \hat t_c = \frac{1}{K - k} \sum_{c' \,\text{outside}} t_{c'} \;\text{ else.}

    So the sum of a row and its maximum stay, and a row whose entries outside are alike loses nothing. Each write errs
    by at most twice the mass outside, in the L1 norm.

    Args:
        dtype: ``"float32"``, or ``"float16"``: half the memory. A written entry is then rounded by at most
            :math:`2^{-11}` of itself (below 6e-5 by 3e-8), which adds up over writes: a running mean of probabilities
            with momentum 0.9 is off by .04 % in the L1 norm after 200, with 0.99 by .12 %. bfloat16 is refused: there
            it is 0.3 and 1.4 %.
        top_k: k, less than K; None keeps all K entries. A row takes 4 k + 2 bytes with float16 (6 k + 2 from 32769
            classes on).
        sharded: With W processes, whether each keeps the rows of its own samples alone, i mod W, and none are
            exchanged. It needs a :class:`~lightning_noisy.data.ShardedSampler`. Rows are exactly those that all would
            have. Checkpoints have all of them, so a run may go on with another W between epochs: rank 0 gathers them in
            its memory while one is written. One that is written as a process fails lacks the other processes' rows,
            and cannot be gone on with.
        folder: Where a file has the rows in place of the memory, as a rule on a local disk; None is the memory, or the
            accelerator's. The file has no name and goes with the process; checkpoints have the rows as always. What is
            read often stays in memory as long as there is room. Rows are the same.

    Raises:
        NoisyLabelError: An argument outside its range; where it is given to, one that the method cannot live with.

    Example::

        Trainer(callbacks=[SELC(storage=Storage(dtype="float16", top_k=64))])
    """

    dtype: str = "float32"
    top_k: int | None = None
    sharded: bool = False
    folder: str | None = None

    def __post_init__(self) -> None:
        check_argument(self.dtype in DTYPES, "dtype", f"one of {', '.join(map(repr, DTYPES))}", self.dtype)
        check_count(self.top_k, "top_k", optional=True)
        check_argument(isinstance(self.sharded, bool), "sharded", "a bool", self.sharded)
        text = self.folder is None or (isinstance(self.folder, str) and self.folder != "")
        check_argument(text, "folder", "the name of a folder, or None", self.folder)

    @property
    def chosen(self) -> dict[str, object]:
        """The arguments that differ from the plain way."""
        given = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {name: value for name, (value, default) in given.items() if value != default}


PLAIN = Storage()
"""Whole rows in float32."""


def storage_for(owner: str, given: Storage | None, unfit: Mapping[str, str]) -> Storage:
    """The storage of an owner's stores.

    Args:
        owner: Its name, for messages.
        given: What the user gave; None is the plain way.
        unfit: Arguments of :class:`Storage` that it cannot live with, and why.

    Raises:
        NoisyLabelError: One of these was given, or what was given is no :class:`Storage`.
    """
    if given is None:
        return PLAIN
    check_argument(isinstance(given, Storage), "storage", "a Storage, or None", given)
    for name, value in given.chosen.items():
        if name in unfit:
            why = unfit[name]
            raise NoisyLabelError(f"{owner} cannot keep its rows with `{name}={value!r}`, since {why}: leave it out.")
    return given
