"""The report of a run that has ended, from its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_noisy.callbacks.label_issue_report import LabelIssueReport
from lightning_noisy.callbacks.training_dynamics import DYNAMICS, FACTS
from lightning_noisy.checkpoints.check import RUN_STATE, check_content, check_run_state
from lightning_noisy.checkpoints.last import ends_an_epoch
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.state import RunState


def report_of(checkpoint: Any, criterion: str | None = None) -> LabelIssueReport:
    """A :class:`LabelIssueReport` as it was when a checkpoint was written; its ``write`` writes the same files.

    Whole epochs count: of one that the checkpoint lies inside of, nothing is known.

    Args:
        checkpoint: What was loaded from a file, of a run with ``LabelIssueReport`` or ``TrainingDynamics``.
        criterion: The argument of that callback, where several look at different criteria.

    Raises:
        NoisyLabelError: It has no such state, that of several criteria, or none of a whole epoch.
    """
    check_content(checkpoint, training=True)
    check_run_state(checkpoint, needed=False)
    state = checkpoint["callbacks"].get(RUN_STATE, {"sections": {}})
    run, report = RunState(), LabelIssueReport(criterion=criterion)
    report.section.key = _key(state["sections"], criterion)
    run.load_state_dict(state)
    report.take_part(run)
    if ends_an_epoch(checkpoint):
        run.close_epoch()
    if report.dynamics.table is None:
        raise NoisyLabelError("The checkpoint was written before its first epoch had ended: take a later one.")
    return report


def _key(sections: Mapping[str, Mapping[str, Any]], criterion: str | None) -> str:
    """Of the section with training dynamics; that of a report knows the right labels as well."""
    kept = {key: section["parts"] for key, section in sections.items() if {DYNAMICS, FACTS} <= section["parts"].keys()}
    if criterion is not None:
        kept = {key: parts for key, parts in kept.items() if repr(criterion) in key}
    if not kept:
        at = "" if criterion is None else f" at `{criterion}`"
        raise NoisyLabelError(
            f"The checkpoint does not say how its samples were learned{at}: add `LabelIssueReport` to the callbacks "
            "(`--trainer.callbacks+=LabelIssueReport`), and train again."
        )
    reports = [key for key, parts in kept.items() if parts[FACTS]["title"] is not None]
    chosen = reports or list(kept)
    if len(chosen) > 1:
        raise NoisyLabelError(f"The checkpoint has the dynamics at {len(chosen)} criteria: give one as `criterion`.")
    return chosen[0]
