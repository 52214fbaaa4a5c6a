"""A teacher is the moving average of its student's weights; what its batch normalization works with is an option."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.optim.swa_utils import get_ema_multi_avg_fn as ema

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.heads import LinearHead
from lightning_noisy.networks import Classifier, SmallCNN, Teacher

IMAGES = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def make_student() -> Classifier:
    torch.manual_seed(0)
    return Classifier(SmallCNN(width=2, num_features=4), LinearHead, 3)


def learn(student: nn.Module) -> None:
    """A step that moves weights and running statistics."""
    student(IMAGES.to(next(student.parameters()).dtype))
    with torch.no_grad():
        for weight in student.parameters():
            weight += torch.randn(weight.shape)


def floats(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items() if value.is_floating_point()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("statistics", ["batch", "copied", "averaged"])
def test_it_is_the_recursion_over_several_steps(statistics: Any, dtype: torch.dtype) -> None:
    student = make_student().to(dtype)
    teacher = Teacher(student, 0.9, statistics)
    expected = {name: value.numpy().copy() for name, value in floats(student).items()}
    parameters = {name for name, _ in student.named_parameters()}
    for decay in (0.9, 0.9, 0.5, 0.0, 1.0):
        learn(student)
        teacher.decay = decay
        teacher.update(student)
        for name, value in floats(student).items():
            averaged = name in parameters or statistics == "averaged"
            share = decay if averaged else 0.0
            expected[name] = share * expected[name] + (1 - share) * value.numpy()
    for name, value in floats(teacher.module).items():
        assert value.dtype == dtype
        np.testing.assert_allclose(value.numpy(), expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


def normalized_by(teacher: Teacher) -> str:
    """Whether what it says of an image depends on the others in the batch."""
    whole, part = teacher.outputs(IMAGES).logits[:2], teacher.outputs(IMAGES[:2]).logits
    return "running statistics" if torch.allclose(whole, part, atol=1e-5) else "the batch"


@pytest.mark.parametrize(
    ("statistics", "training"),
    [("batch", "the batch"), ("copied", "running statistics"), ("averaged", "running statistics")],
)
def test_what_it_normalizes_by_in_training_and_evaluation(statistics: Any, training: str) -> None:
    owner = nn.ModuleDict({"student": make_student()})
    owner["teacher"] = teacher = Teacher(owner["student"], 0.9, statistics)  # type: ignore[arg-type]
    learn(owner["student"])
    teacher.update(owner["student"])
    assert normalized_by(teacher) == training  # as made, its student in train mode
    for mode, expected in ((True, training), (False, "running statistics"), (True, training)):
        owner.train(mode)
        assert normalized_by(teacher) == expected
        assert owner["student"].training == mode


def test_no_gradient_reaches_it_and_it_is_apart_from_its_student() -> None:
    student = make_student()
    teacher = Teacher(student, 0.5)
    assert not any(weight.requires_grad for weight in teacher.parameters())
    assert not teacher.outputs([IMAGES, IMAGES]).logits.requires_grad
    before = floats(teacher)
    learn(student)
    assert all(torch.equal(value, before[name]) for name, value in floats(teacher).items())
    assert all(weight.requires_grad for weight in student.parameters())


def test_a_copy_follows_its_own_student_and_a_loaded_one_goes_on() -> None:
    pair = nn.ModuleDict({"student": make_student()})
    pair["teacher"] = Teacher(pair["student"], 0.8, "averaged")  # type: ignore[arg-type]
    twin = copy.deepcopy(pair)
    loaded = nn.ModuleDict({"student": make_student()})
    loaded["teacher"] = Teacher(loaded["student"], 0.8, "averaged")  # type: ignore[arg-type]
    twin["teacher"].decay = 0.3
    for own in (pair, twin):
        torch.manual_seed(1)
        learn(own["student"])
        own["teacher"].update(own["student"])
    assert pair["teacher"].decay == 0.8
    weight = "module.head.weight"
    assert not torch.equal(pair["teacher"].state_dict()[weight], twin["teacher"].state_dict()[weight])
    loaded.load_state_dict(pair.state_dict())
    for own in (pair, loaded):
        torch.manual_seed(2)
        learn(own["student"])
        own["teacher"].update(own["student"])
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in pair.state_dict().items())


@pytest.mark.parametrize(
    ("options", "name"), [({"decay": 1.1}, "decay"), ({"decay": -0.1}, "decay"), ({"statistics": "none"}, "statistics")]
)
def test_arguments_outside_their_range(options: dict[str, Any], name: str) -> None:
    with pytest.raises(NoisyLabelError, match=f"`{name}`"):
        Teacher(make_student(), **{"decay": 0.9, **options})


@pytest.mark.parametrize("statistics", ["batch", "averaged"])
def test_an_update_reads_nothing_back_from_an_accelerator(statistics: Any) -> None:
    student = make_student().to("meta")  # a device whose values cannot be read
    teacher = Teacher(student, 0.9, statistics).to("meta")
    with pytest.raises(RuntimeError, match="meta"):
        bool(teacher.n_averaged)
    teacher.update(student)


def test_its_state_is_that_of_torch_s_average() -> None:
    student = make_student()
    teacher, reference = (
        Teacher(student, 0.9, "averaged"),
        AveragedModel(student, multi_avg_fn=ema(0.9), use_buffers=True),
    )
    reference.n_averaged.fill_(1)
    for _ in range(3):
        learn(student)
        teacher.update(student)
        reference.update_parameters(student)
    assert list(teacher.state_dict()) == list(reference.state_dict())
    assert all(torch.equal(value, teacher.state_dict()[name]) for name, value in reference.state_dict().items())
