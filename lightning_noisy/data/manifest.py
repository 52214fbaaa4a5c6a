"""The evidence of a run's label noise: what was asked for, what came out, and the labels themselves."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_noisy.data.backdoor import BackdoorTrigger
from lightning_noisy.data.noise import LabelNoise
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.figures import show_figure, transition_figure, write_figure
from lightning_noisy.files import written_aside
from lightning_noisy.functional.label_statistics import labels_hash, noise_rate, transition_counts
from lightning_noisy.functional.noise import as_targets, check_num_classes

MANIFEST_FILE = "noise.json"
LABELS_FILE = "noisy_labels.npz"


def build_manifest(
    clean: Tensor | None,
    noisy: Tensor,
    num_classes: int,
    noise: LabelNoise | None,
    seed: int,
    num_clean_classes: int | None = None,
    backdoor: BackdoorTrigger | None = None,
    poisoned: Tensor | None = None,
    class_names: Sequence[str] | None = None,
) -> dict[str, object]:
    """Describe the labels of a run by plain values, the same after a round trip through JSON.

    Args:
        clean: Clean labels, int64 (N,), or ``None`` where nobody knows them.
        noisy: The labels of the run, int64 (N,), values in [0, K).
        num_classes: Number of classes K, at least 2.
        noise: The noise model, or ``None`` where the data came with its noise.
        seed: The seed of the noise.
        num_clean_classes: Number C of clean classes where some images belong to none of the K; None stands for K.
        backdoor: The backdoor, or ``None`` without.
        poisoned: Which samples it has poisoned, bool (N,).
        class_names: Names of the K classes, where they are known.

    Returns:
        A dict with these entries:

        - ``noise``: the model's :meth:`~lightning_noisy.data.noise.LabelNoise.describe`, or None
        - ``seed``, ``num_samples``, ``num_classes``: integers
        - ``class_names``: a list of strings, or None
        - ``requested_rate``: the model's rate, or None
        - ``realized_rate``: fraction of wrong labels in [0, 1], those of poisoned samples included, None without clean
          labels
        - ``transition_counts``: C rows (clean class) of K integers (noisy class), None without clean labels
        - ``backdoor``: the trigger's ``describe()`` and ``num_poisoned``, or None
        - ``sha256``: the noisy labels' :func:`~lightning_noisy.functional.label_statistics.labels_hash`

    Raises:
        NoisyLabelError: Labels that are no classes, or clean and noisy labels of different shapes.
    """
    check_num_classes(num_classes)
    noisy = as_targets(noisy, num_classes, "noisy")
    attack = backdoor and {**backdoor.describe(), "num_poisoned": 0 if poisoned is None else int(poisoned.sum())}
    counts = None if clean is None else transition_counts(clean, noisy, num_classes, num_clean_classes).tolist()
    return {
        "noise": None if noise is None else noise.describe(),
        "seed": seed,
        "num_samples": len(noisy),
        "num_classes": num_classes,
        "class_names": None if class_names is None else list(class_names),
        "requested_rate": None if noise is None else noise.rate,
        "realized_rate": None if clean is None else noise_rate(clean, noisy),
        "transition_counts": counts,
        "backdoor": attack,
        "sha256": labels_hash(noisy),
    }


def show_transitions(trainer: Trainer, folder: str | Path, manifest: Mapping[str, object]) -> None:
    """Draw what became of each class, into ``figures/transition.png`` and TensorBoard (``noise/transition``).

    Nothing is drawn where nobody knows clean labels. Under several processes, call it on one of them.

    Args:
        trainer: Has the loggers.
        folder: The run's folder.
        manifest: What :func:`build_manifest` gave.
    """
    if manifest["transition_counts"] is None:
        return
    names = cast("Sequence[str] | None", manifest.get("class_names"))
    figure = transition_figure(np.array(manifest["transition_counts"]), names)
    write_figure(folder, "transition", figure)
    show_figure(trainer, "noise/transition", figure)


def write_manifest(
    folder: str | Path,
    manifest: Mapping[str, object],
    noisy: Tensor,
    clean: Tensor | None = None,
    poisoned: Tensor | None = None,
    origins: Mapping[str, Any] | None = None,
) -> None:
    """Write ``noise.json`` and ``noisy_labels.npz`` into a folder, which is made if missing.

    The archive holds int64 (N,) arrays ``noisy`` and, where known, ``clean``, under a backdoor ``poisoned``, bool (N,),
    and what ``origins`` has: ``class_names`` and the ``path`` or ``row`` of each sample. It loads with
    ``allow_pickle=False``; :class:`~lightning_noisy.data.noise.FileNoise` with ``key="noisy"`` gives the labels again,
    each to its sample. Both files are written
    aside and renamed once both are complete, so an interruption leaves the old ones. The manifest is renamed last: its
    ``sha256`` says whether the labels beside it are its own.

    Under several processes, call it on one of them.

    Args:
        folder: Where the files go.
        manifest: What :func:`build_manifest` gave for these labels.
        noisy: Noisy labels, int64 (N,).
        clean: Clean labels, int64 (N,), or ``None``.
        poisoned: Which samples a backdoor has poisoned, bool (N,), or ``None`` without one.
        origins: What :func:`~lightning_noisy.data.origins.origin_arrays` gave for the samples.

    Raises:
        NoisyLabelError: The manifest is that of other labels.
    """
    described = manifest.get("sha256"), manifest.get("realized_rate")
    if described != (labels_hash(noisy), None if clean is None else noise_rate(clean, noisy)):
        raise NoisyLabelError(
            "Expected argument `manifest` to describe the labels `noisy` and `clean`, but its hash or realized rate is "
            "that of others: build it with `build_manifest` from the same labels."
        )
    # One entry a line: counts of 1000 classes would be a million lines under `indent`.
    entries = [f"  {json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in manifest.items()]
    known = {"noisy": noisy, "clean": clean, "poisoned": poisoned}
    arrays: dict[str, Any] = {name: labels.cpu().numpy() for name, labels in known.items() if labels is not None}
    arrays |= origins or {}
    folder = Path(folder)
    with written_aside(folder / MANIFEST_FILE) as text, written_aside(folder / LABELS_FILE) as archive:
        text.write(("{\n" + ",\n".join(entries) + "\n}\n").encode())
        np.savez(archive, **arrays)
        for file in (text, archive):
            file.flush()
            os.fsync(file.fileno())
