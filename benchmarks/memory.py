"""Tensors that a piece of code makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class TensorWatch(TorchDispatchMode):
    """Notes the largest tensor that any operation returns, and the peak of all memory it makes; views own none."""

    def __init__(self) -> None:
        super().__init__()
        self.largest: tuple[int, ...] = ()
        self.largest_elements = 0
        self.peak = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_address(tensor) for tensor in _tensors((args, kwargs))}
        returned = func(*args, **(kwargs or {}))
        for tensor in _tensors(returned):
            if _address(tensor) not in given:  # neither a view nor in place
                self._note(tensor)
        self._alive = {key: seen for key, seen in self._alive.items() if not seen[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return returned

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        elements = storage.nbytes() // tensor.element_size()
        if elements > self.largest_elements:
            self.largest, self.largest_elements = tuple(tensor.shape), elements
        self._alive[_address(tensor)] = StorageWeakRef(storage), storage.nbytes()


def measure_memory(run: Callable[[], None], batch_times_edges: int) -> dict[str, Any]:
    """Largest tensor and peak of the tensors that ``run`` makes, gradients of parameters included."""
    with TensorWatch() as watch:
        run()
    return {
        "largest_shape": list(watch.largest),
        "largest_elements": watch.largest_elements,
        "below_batch_times_edges": watch.largest_elements < batch_times_edges,
        "peak_mib": round(watch.peak / 2**20, 3),
    }


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _address(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
