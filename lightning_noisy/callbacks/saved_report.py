"""The report of a run that has ended, from its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_noisy.callbacks.label_issue_report import LabelIssueReport
from lightning_noisy.callbacks.training_dynamics import DYNAMICS, FACTS
from lightning_noisy.checkpoints.check import NOT_LOADED, RUN_STATE, check_content, check_run_state
from lightning_noisy.checkpoints.last import ends_an_epoch
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.state import RunState


def report_of(checkpoint: Any, criterion: str | None = None) -> LabelIssueReport:
    """A :class:`LabelIssueReport` as it was when a checkpoint was written; its ``write`` writes the same files.

    Whole epochs count: of one that the checkpoint lies inside of, nothing is known.

    Args:
        checkpoint: What was loaded from a file, of a run with ``LabelIssueReport`` or ``TrainingDynamics``: that of a
            Trainer, or :meth:`NoisyLoop.state_dict`, by itself or as an entry of a mapping.
        criterion: The argument of that callback, where several look at different criteria.

    Raises:
        NoisyLabelError: It has no such state, that of several criteria, none of a whole epoch, or a broken one.
    """
    checkpoint = _of_a_trainer(checkpoint)
    check_run_state(checkpoint, needed=False)
    state = checkpoint["callbacks"].get(RUN_STATE, {"sections": {}})
    run, report = RunState(), LabelIssueReport(criterion=criterion)
    report.section.key = _key(state["sections"], criterion)
    try:
        run.load_state_dict(state)
        report.take_part(run)
        if "loops" in checkpoint and ends_an_epoch(checkpoint):
            run.close_epoch()
        if report.dynamics.table is not None:
            _check_whole(report)
    except NOT_LOADED as error:
        raise NoisyLabelError(
            f"What the checkpoint says of its samples is not whole ({type(error).__name__}: {error}): take another one."
        ) from error
    if report.dynamics.table is None:
        raise NoisyLabelError("The checkpoint was written before its first epoch had ended: take a later one.")
    return report


def _of_a_trainer(saved: Any) -> Mapping[str, Any]:
    """What a Trainer saves; the state of a loop without one in the same form."""
    entries = saved.values() if isinstance(saved, Mapping) else ()
    for state in (saved, *entries):
        if isinstance(state, Mapping) and state.keys() >= {"run", "callbacks", "batch_idx"}:
            return {"callbacks": {RUN_STATE: state["run"]}}
    check_content(saved, training=True)
    checkpoint: Mapping[str, Any] = saved
    return checkpoint


def _check_whole(report: LabelIssueReport) -> None:
    """Look for what would not fit together.

    Raises:
        ValueError: Columns of different lengths, or labels of no class.
    """
    table, facts = report.table(), report.facts
    lengths = {len(facts.samples), *map(len, (*table.values(), report.beliefs(), report.curves()))}
    lengths |= {len(known) for known in (facts.labels, facts.truth) if known is not None}
    if len(lengths) > 1:
        raise ValueError(f"columns of {min(lengths)} to {max(lengths)} samples")
    if table["label"].max(initial=-1) >= (report.dynamics.num_classes or 0):
        raise ValueError(f"a label {table['label'].max()} of {report.dynamics.num_classes} classes")


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
