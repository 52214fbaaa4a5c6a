"""A multi-layer perceptron on features."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.networks.batch_norm import LoneSampleBatchNorm1d


class MLP(nn.Module):
    """Fully connected layers with ReLU, for features that another model has computed.

    Each hidden layer is linear, then (with ``batch_norm``) batch normalization, ReLU, dropout. With ``hidden=()`` there
    is none: features pass unchanged, so that the head, linear or KAN, works on them directly. Weights start as torch's.
    A training batch of one sample works, see :class:`~lightning_noisy.networks.LoneSampleBatchNorm1d`.

    Shape:
        Features (B, ``in_features``) to features (B, D).

    Args:
        in_features: Size of the features that come in.
        hidden: Widths of the hidden layers, from the input on.
        dropout: Probability of dropping a unit of a hidden layer in training.
        batch_norm: Whether hidden layers are batch-normalized; their linear layers then have no bias.

    Attributes:
        num_features: Size D of the features that go out: the last hidden width, ``in_features`` without any.

    Raises:
        NoisyLabelError: A size is not positive, ``dropout`` is outside [0, 1), or features are not
            (B, ``in_features``).
    """

    def __init__(
        self, in_features: int, hidden: Sequence[int] = (512,), dropout: float = 0.0, batch_norm: bool = False
    ) -> None:
        super().__init__()
        check_count(in_features, "in_features")
        check_argument(all(width > 0 for width in hidden), "hidden", "positive ints", hidden)
        check_argument(0 <= dropout < 1, "dropout", "a float in [0, 1)", dropout)
        widths = (in_features, *hidden)
        self.in_features = in_features
        self.num_features = widths[-1]
        self.layers = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Linear(before, after, bias=not batch_norm),
                    LoneSampleBatchNorm1d(after) if batch_norm else nn.Identity(),
                    nn.ReLU(inplace=True),
                    nn.Dropout(dropout),
                )
                for before, after in pairwise(widths)
            )
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, ``in_features``) to features (B, D)."""
        shape = tuple(features.shape)
        check_argument(
            len(shape) == 2 and shape[1] == self.in_features, "features", f"of shape (B, {self.in_features})", shape
        )
        mapped: Tensor = self.layers(features)
        return mapped
