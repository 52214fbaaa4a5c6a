"""Ranked labels for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from lightning_noisy.reports import LabelIssues, NoiseRate

HOSTILE = ("=1+1", '<script>alert("a")</script>', "c,\"d'\n@e\r=f")


def four(**changes: Any) -> LabelIssues:
    """Four samples of three classes, two of them wrong, one doubted."""
    if isinstance(changes.get("truth"), list):
        changes["truth"] = np.array(changes["truth"])
    arguments: dict[str, Any] = {
        "samples": np.array(["a.png", "b.png", "c.png", "d.png"]),
        "kind": "path",
        "class_names": ("cat", "dog", "horse"),
        "given": np.array([0, 0, 1, 2]),
        "suggested": np.array([0, 2, 1, 0]),
        "score": np.array([0.1, 0.9, 0.9, 0.5]),
        "cut": 0.5,
        "noise_rate": NoiseRate(0.5, 0.25, 0.75),
        "marked": {"contradicting duplicate": np.array([False, False, True, True])},
    }
    return LabelIssues(**{**arguments, **changes})


def hostile() -> LabelIssues:
    """The same with names that would run where they are not escaped."""
    samples = np.array(["=cmd|'/c calc'!A0", "-2+3", "</style><img src=x onerror=alert(1)>", 'two\nlines, a "quote"'])
    return four(samples=samples, class_names=HOSTILE, marked={"@flag": np.array([True, True, False, False])})
