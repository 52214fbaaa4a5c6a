"""Whether a function runs to be recorded rather than for its result."""

from __future__ import annotations

import torch


def is_traced() -> bool:
    """Inside ``torch.compile``, ``torch.export``, ``torch.jit.trace`` or an ONNX exporter.

    What is recorded then has to be out of place and free of branches on values: the ONNX exporter that traces drops
    writes into parts of a tensor without a word.
    """
    return bool(torch.jit.is_tracing()) or torch.compiler.is_compiling()  # type: ignore[attr-defined, no-untyped-call]
