"""The contract of a loss: what the base checks, once for all of them."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from lightning_noisy import functional, losses
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses import NoisyLabelLoss


class Hard(NoisyLabelLoss):
    def losses(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(logits, target, reduction="none")


class Soft(Hard):
    soft_targets = True


class Known(NoisyLabelLoss):
    """Two keywords, one of them with a default; says which it got."""

    def losses(
        self, logits: torch.Tensor, target: torch.Tensor, epoch: int, features: torch.Tensor | None = None
    ) -> torch.Tensor:
        return torch.full(target.shape, float(epoch)) + (0 if features is None else features)


class Open(NoisyLabelLoss):
    requires = ("index",)

    def losses(self, logits: torch.Tensor, target: torch.Tensor, **context: Any) -> torch.Tensor:
        return context["index"] * 1.0


LOGITS = torch.zeros(3, 3)  # square, so that a wrong shape could broadcast
LABELS, ROWS = torch.tensor([0, 1, 2]), torch.eye(3)


def kinds(root: type[NoisyLabelLoss] = NoisyLabelLoss) -> Iterator[type[NoisyLabelLoss]]:
    for kind in root.__subclasses__():
        yield kind
        yield from kinds(kind)


def test_forward_is_the_base_s_and_final() -> None:
    own = {kind for kind in kinds() if kind.__module__.startswith("lightning_noisy.")}
    exported = {kind for kind in vars(losses).values() if isinstance(kind, type) and kind is not NoisyLabelLoss}
    assert len(exported) == 38
    assert exported <= own
    assert not [kind.__name__ for kind in own if kind.forward is not NoisyLabelLoss.forward]
    assert "@final" in inspect.getsource(NoisyLabelLoss.forward)  # Python 3.10 has no `__final__`
    assert not [kind.__name__ for kind in own if "_check_context" in vars(kind) or "_check_batch" in vars(kind)]


def test_every_loss_spells_its_keywords_out() -> None:
    for kind in kinds():
        parameters = inspect.signature(kind.losses).parameters
        is_open = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        written = not inspect.isabstract(kind) and not kind.__module__.startswith("tests.")
        assert not is_open or hasattr(kind, "own_requires") or not written, kind


@pytest.mark.parametrize(
    ("loss", "target"), [(Hard(), LABELS), (Soft(), LABELS), (Soft(), ROWS), (Soft(), ROWS.double())]
)
def test_accepted_targets(loss: NoisyLabelLoss, target: torch.Tensor) -> None:
    assert loss(LOGITS, target).shape == ()


@pytest.mark.parametrize("loss", [Hard(), Soft()])
@pytest.mark.parametrize(
    "target", [LABELS.float(), LABELS.int(), LABELS[:2], LABELS[:, None], ROWS.long(), ROWS[:, :2], ROWS[:2]]
)
def test_refused_targets(loss: NoisyLabelLoss, target: torch.Tensor) -> None:
    with pytest.raises(NoisyLabelError) as caught:
        loss(LOGITS, target)
    wanted = "int64 labels (B,)" + (" or floating-point targets (B, K)" if loss.soft_targets else "")
    assert str(caught.value) == (
        f"{type(loss).__name__} expects {wanted} for its logits of shape (3, 3), but got a {target.dtype} target of "
        f"shape {tuple(target.shape)}."
    )


def test_a_soft_target_names_the_way_out() -> None:
    with pytest.raises(NoisyLabelError) as caught:
        Hard()(LOGITS, ROWS)
    assert str(caught.value) == (
        "Hard expects int64 labels (B,) for its logits of shape (3, 3), but got a torch.float32 target of shape (3, "
        "3): give labels (`target.argmax(dim=1)`) or use a loss with `soft_targets = True`."
    )


@pytest.mark.parametrize("logits", [torch.zeros(3), torch.zeros(3, 3, 2), torch.zeros(3, 3).long()])
def test_refused_logits(logits: torch.Tensor) -> None:
    with pytest.raises(NoisyLabelError) as caught:
        Hard()(logits, LABELS)
    assert str(caught.value) == (
        f"Hard expects floating-point logits (B, K), but got a {logits.dtype} tensor of shape {tuple(logits.shape)}."
    )


def test_keywords_are_those_of_the_signature() -> None:
    assert Known.requires == ("epoch", "features")
    assert Known()(LOGITS, LABELS, epoch=2).item() == 2.0
    assert Known()(LOGITS, LABELS, epoch=0).item() == 0.0
    assert Known()(LOGITS, LABELS, epoch=2, features=None).item() == 2.0
    assert Known()(LOGITS, LABELS, epoch=2, features=torch.ones(3)).item() == 3.0
    assert Open()(LOGITS, LABELS, index=LABELS).item() == 1.0


def test_a_subclass_with_other_keywords_requires_those() -> None:
    class Less(Known):
        def losses(self, logits: torch.Tensor, target: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
            return index * 1.0

    class Same(Known):
        pass

    assert (Less.requires, Same.requires) == (("index",), ("epoch", "features"))
    assert Less()(LOGITS, LABELS, index=LABELS).item() == 1.0


@pytest.mark.parametrize(
    ("loss", "context", "message"),
    [
        (Known(), {}, "Known expects `epoch`, the number of the epoch, from 0, but got None: pass `epoch=...`"),
        (Known(), {"epoch": None}, "Known expects `epoch`, the number of the epoch, from 0, but got None: pass"),
        (Open(), {}, "Open expects `index`, the positions (B,) of the samples in the training set, but got None: pass"),
        (
            Known(),
            {"epoch": 0, "index": LABELS, "views": ()},
            "Known was called with `index`, `views`, but the keywords that it takes are `epoch`, `features`: leave",
        ),
        (Hard(), {"epoch": 0}, "Hard was called with `epoch`, but the keywords that it takes are none: leave"),
        (Open(), {"index": LABELS, "epoch": 0}, "Open was called with `epoch`, but the keywords that it takes are"),
    ],
)
def test_refused_keywords(loss: NoisyLabelLoss, context: dict[str, Any], message: str) -> None:
    with pytest.raises(NoisyLabelError) as caught:
        loss(LOGITS, LABELS, **context)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_losses_that_are_not_one_for_each_sample_are_refused() -> None:
    class Mean(NoisyLabelLoss):
        def losses(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(logits, target)

    with pytest.raises(NoisyLabelError) as caught:
        Mean()(LOGITS, LABELS)
    assert str(caught.value) == (
        "Mean.losses returned a tensor of shape () for a batch of 3: wanted (3,), the loss of each sample."
    )


def test_reductions() -> None:
    each = torch.tensor([0.0, 1.0, 5.0])
    assert torch.equal(Open("none")(LOGITS, LABELS, index=each), each)
    assert Open("mean")(LOGITS, LABELS, index=each).item() == 2.0
    assert Open("sum")(LOGITS, LABELS, index=each).item() == 6.0
    with pytest.raises(NoisyLabelError, match=r"^Expected argument `reduction` to be 'mean', 'sum' or 'none', but"):
        Open("all")


def test_a_loss_without_values_of_samples() -> None:
    class Whole(Hard):
        sample_values = False

    assert Whole("sum")(LOGITS, LABELS).item() == pytest.approx(3 * Whole()(LOGITS, LABELS).item())
    with pytest.raises(NoisyLabelError) as caught:
        Whole("none")
    assert str(caught.value) == (
        "Whole has one value for a batch and none for each sample: use it with reduction='mean', without selection of "
        "samples."
    )


def test_a_loss_has_to_write_losses() -> None:
    class Old(NoisyLabelLoss):
        pass

    with pytest.raises(TypeError, match="losses"):
        Old()


NOUNS = {
    "Bootstrapping",
    "Classifier",
    "Correction",
    "Entropy",
    "Error",
    "Information",
    "Learning",
    "Optimization",
    "Regularization",
    "Training",
}
"""Last words that name a method without the word loss."""


def test_names_end_in_loss_where_the_method_has_no_noun_of_its_own() -> None:
    for name in {kind.__name__ for kind in kinds()} & set(losses.__all__):
        last = [word for word in NOUNS if name.removesuffix("Loss").endswith(word)]
        assert name.endswith("Loss") != bool(last), name


NO_FUNCTION = {
    "active_passive": "a sum of losses",
    "base": "the contract",
    "gradient_weight": "what any loss weighs",
    "class_weights": "class weights of torch's criterion under soft targets",
    "paper_settings": "published arguments",
    "positive_learning": "cross entropy with weights from a table",
    "sample_losses": "the losses of samples of any criterion",
    "soft_losses": "any criterion of soft targets",
    "self_adaptive_training": "cross entropy with targets and weights from a table",
    "staged": "a choice of losses",
}
"""Files of losses without one of functions."""

NO_CLASS = {
    "contrastive": "a term of UNICON",
    "correctness_ranking": "a term of SURE",
    "divergence": "a term of JoCoR",
    "probabilities": "what many losses share",
    "smoothing": "targets of Jo-SRC and Co-LDL",
}
"""Files of functions without one of losses."""


def public_files(package: ModuleType) -> set[str]:
    return {module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_")}


def test_function_and_class_of_a_method_have_one_file_name() -> None:
    of_classes, of_functions = public_files(losses), public_files(functional.losses)
    assert of_classes - of_functions <= set(NO_FUNCTION)
    assert of_functions - of_classes == set(NO_CLASS)


@pytest.mark.parametrize("name", sorted(public_files(losses) - set(NO_FUNCTION)))
def test_a_class_uses_the_functions_of_its_file(name: str) -> None:
    used = vars(importlib.import_module(f"lightning_noisy.losses.{name}"))
    there = vars(importlib.import_module(f"lightning_noisy.functional.losses.{name}"))
    own = {key for key, value in there.items() if inspect.isfunction(value) and value.__module__.endswith(f".{name}")}
    assert own & set(used), name
