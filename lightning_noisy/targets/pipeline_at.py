"""The pipeline at a project's criterion."""

from __future__ import annotations

from torch import nn

from lightning_noisy.checks import check_not_compiled
from lightning_noisy.data.batch import IndexKey
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.state import RunState
from lightning_noisy.targets.criterion import find_criterion
from lightning_noisy.targets.pipeline import TargetPipeline


def pipeline_at(
    run: RunState, root: nn.Module, name: str | None, index_key: IndexKey = None, check_labels: bool = True
) -> TargetPipeline:
    """The run's pipeline at a criterion, made now if there is none.

    Args:
        run: The run.
        root: The LightningModule.
        name: The criterion's name, see :func:`~lightning_noisy.targets.find_criterion`.
        index_key: Where a member reads the index; None goes with the others.
        check_labels: Whether labels are held to those of the samples; not if one member says so.

    Raises:
        NoisyLabelError: There is no such module, it is compiled, or another member reads the index elsewhere.
    """
    place = find_criterion(root, name)
    check_not_compiled(root, place.module, place.name)
    there = (member for member in run.listeners if isinstance(member, TargetPipeline) and place.same(member.place))
    pipeline = next(there, None) or TargetPipeline(run, place, root)
    if index_key is not None and pipeline.index_key not in (None, index_key):
        raise NoisyLabelError(
            f"Two callbacks at `{place.name}` read the index at {pipeline.index_key!r} and at {index_key!r}: give one "
            "`index_key`."
        )
    pipeline.index_key = pipeline.index_key if index_key is None else index_key
    pipeline.check_labels &= check_labels
    if isinstance(pipeline.index_key, (int, str)):
        run.index_keys.add(str(pipeline.index_key))
    return pipeline
