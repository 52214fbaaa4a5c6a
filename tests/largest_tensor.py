"""How much memory a computation asks for at once."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class LargestTensor(TorchDispatchMode):
    """Counts the elements of the largest tensor that any operation makes, the backward pass included.

    What is written in place was there before.
    """

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = {id(leaf) for leaf in args}
        made = [leaf for leaf in tree_flatten(result)[0] if isinstance(leaf, torch.Tensor) and id(leaf) not in given]
        self.elements = max(self.elements, *(leaf.numel() for leaf in made), 0)
        return result
