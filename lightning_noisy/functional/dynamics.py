"""How each sample was learned: running figures of its confidence, margin, beliefs and predictions over epochs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_noisy.errors import NoisyLabelError

NEVER = -1
"""Epoch of what has not happened, class of what was not predicted."""
_LEAST = -100.0  # log-probability: one of minus infinity would be the mean of all epochs
_ROWS = 1 << 14  # that are worked on at once


class DynamicsTable:
    r"""Running figures over epochs, a row for each of N samples; whole epochs are added at once.

    With p the confidence in the given label in an epoch, z its logit and z' the highest other one, it keeps the count
    of epochs, means of p and of the margin z - z', the scatter of p, its slope over epochs (all by Welford's updates in
    float32, so that nothing cancels), how often the label was forgotten, how often each class was predicted, and the
    mean log-probability of each class.

    Args:
        num_samples: N.
        num_classes: K. ``votes`` and ``belief`` take 6 N K bytes, everything else 50 N.
        full: Makes a column of a shape, a value and a ``dtype``, as ``torch.full`` does in memory.
    """

    def __init__(self, num_samples: int, num_classes: int, full: Callable[..., Tensor] = torch.full) -> None:
        def filled(value: float, dtype: torch.dtype, *shape: int) -> Tensor:
            return full((num_samples, *shape), value, dtype=dtype)

        self.rows: dict[str, Tensor] = {
            "visits": filled(0, torch.int32),
            "confidence": filled(0, torch.float32),
            "scatter": filled(0, torch.float32),
            "margin": filled(0, torch.float32),
            "epoch": filled(0, torch.float32),
            "epoch_scatter": filled(0, torch.float32),
            "joint": filled(0, torch.float32),
            "final": filled(float("nan"), torch.float32),
            "forgotten": filled(0, torch.int16),
            "last_forgotten": filled(NEVER, torch.int16),
            "first_learned": filled(NEVER, torch.int16),
            "label": filled(NEVER, torch.int32),
            "right": filled(0, torch.bool),
            "prediction": filled(NEVER, torch.int32),
            "votes": filled(0, torch.int16, num_classes),
            "belief": filled(0, torch.float32, num_classes),
        }
        """The columns, each (N, ...)."""

    def add(self, epoch: int, log_probabilities: Tensor, label: Tensor) -> None:
        """Add an epoch.

        Args:
            epoch: Its number, from 0.
            log_probabilities: Of each class, (N, K); NaN in rows of samples that were not seen.
            label: Given label, (N,).
        """
        first = 0
        for likely, given in zip(torch.split(log_probabilities, _ROWS), torch.split(label, _ROWS), strict=True):
            seen = (~likely.isnan().any(dim=1)).nonzero().squeeze(1)
            self._add(epoch, first + seen, likely[seen].float(), given[seen].long())
            first += len(given)

    def _add(self, epoch: int, seen: Tensor, likely: Tensor, label: Tensor) -> None:
        """Add what some samples were taken for: their positions, log-probabilities and labels."""
        old = {name: column[seen] for name, column in self.rows.items() if name != "votes"}
        given = label.unsqueeze(1)
        now, count = likely.gather(1, given).squeeze(1).exp(), (old["visits"] + 1).float()
        others = likely.scatter(1, given, -torch.inf).amax(dim=1)
        step, time = now - old["confidence"], epoch - old["epoch"]
        mean = old["confidence"] + step / count
        middle = old["epoch"] + time / count
        predicted = likely.argmax(dim=1)
        right = predicted == label
        forgot = old["right"] & ~right
        self._write(
            seen,
            visits=old["visits"] + 1,
            confidence=mean,
            scatter=old["scatter"] + step * (now - mean),
            margin=old["margin"] + (likely.gather(1, given).squeeze(1) - others - old["margin"]) / count,
            epoch=middle,
            epoch_scatter=old["epoch_scatter"] + time * (epoch - middle),
            joint=old["joint"] + time * (now - mean),
            final=now,
            forgotten=old["forgotten"] + forgot,
            last_forgotten=torch.where(forgot, epoch, old["last_forgotten"]),
            first_learned=torch.where(right & (old["first_learned"] == NEVER), epoch, old["first_learned"]),
            label=label,
            right=right,
            prediction=predicted,
            belief=old["belief"] + (likely.clamp(min=_LEAST) - old["belief"]) / count.unsqueeze(1),
        )
        votes = self.rows["votes"]
        votes[seen, predicted] += torch.ones_like(predicted, dtype=votes.dtype)

    def beliefs(self) -> Tensor:
        """Mean log-probability of each class over the epochs, float32 (N, K); zeros where a sample was never seen.

        Their softmax is the geometric mean of an epoch's probabilities.
        """
        return self.rows["belief"]

    def figures(self) -> dict[str, Tensor]:
        """What is known of each sample, (N,): floats are NaN, and classes and epochs -1, where it was never seen.

        ``visits``, ``label`` (given), ``confidence`` (mean), ``trend`` (slope per epoch, 0 of a single one),
        ``variability`` (standard deviation), ``final_confidence``, ``margin`` (mean: the area under the margin, AUM),
        ``forgotten`` (times), ``last_forgotten`` and ``first_learned`` (epochs), ``last_prediction``,
        ``modal_prediction`` (the most frequent; of equals the last prediction, else the lowest class) and
        ``modal_share`` (of the epochs).
        """
        rows, unseen = self.rows, self.rows["visits"] == 0
        count = rows["visits"].float()
        most, lowest = rows["votes"].max(dim=1)
        last = rows["prediction"].clamp(min=0).long()
        modal = torch.where(rows["votes"].gather(1, last.unsqueeze(1)).squeeze(1) == most, last, lowest)
        floats = {
            "confidence": rows["confidence"],
            "trend": torch.where(rows["epoch_scatter"] > 0, rows["joint"] / rows["epoch_scatter"], 0.0),
            "variability": (rows["scatter"] / count).clamp(min=0).sqrt(),
            "final_confidence": rows["final"],
            "margin": rows["margin"],
            "modal_share": most / count,
        }
        return {
            "visits": rows["visits"].long(),
            "label": rows["label"].long(),
            **{name: column.masked_fill(unseen, float("nan")) for name, column in floats.items()},
            "forgotten": rows["forgotten"].long(),
            "last_forgotten": rows["last_forgotten"].long(),
            "first_learned": rows["first_learned"].long(),
            "last_prediction": rows["prediction"].long(),
            "modal_prediction": modal.masked_fill(unseen, NEVER),
        }

    def counts(self) -> tuple[Tensor, Tensor]:
        """How often each class is predicted and given, int64 (K,) each: by every sample's last visit."""
        seen, classes = self.rows["visits"] > 0, self.rows["votes"].shape[1]
        last = (self.rows[name][seen].long() for name in ("prediction", "label"))
        predicted, given = (torch.bincount(column, minlength=classes).cpu() for column in last)
        return predicted, given

    def to(self, device: torch.device | str) -> DynamicsTable:
        """Move it; returns itself."""
        self.rows = {name: column.to(device) for name, column in self.rows.items()}
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """The columns, on the CPU: where they live there already, these themselves."""
        return {name: column.cpu() for name, column in self.rows.items()}

    @classmethod
    def restored(cls, state: dict[str, Tensor]) -> DynamicsTable:
        """The table that was saved. It has its very columns: nobody else may use them.

        Raises:
            NoisyLabelError: It has other columns.
        """
        table = cls(0, 0)
        if state.keys() != table.rows.keys():
            raise NoisyLabelError("The saved training dynamics have other columns: start anew.")
        table.rows = dict(state)
        return table

    def _write(self, seen: Tensor, **columns: Tensor) -> None:
        for name, values in columns.items():
            column = self.rows[name]
            column[seen] = values.to(column)
