import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from lightning_noisy.checks import DeferredChecks, check_labels, check_not_compiled
from lightning_noisy.errors import NoisyLabelError

TRUE, FALSE = torch.tensor(True), torch.tensor(False)


class OnAccelerator(torch.Tensor):
    """Says that it lies elsewhere, and counts how often values are read back."""

    reads = 0
    device = property(lambda self: torch.device("cuda", 0))

    def tolist(self):
        OnAccelerator.reads += 1
        return super().tolist()


def away(value):
    return torch.tensor(value).as_subclass(OnAccelerator)


def never():
    raise AssertionError("the message of a condition that holds was made")


# Conditions


def test_on_the_cpu_a_condition_is_looked_at_at_once():
    checks = DeferredChecks()
    checks.require(TRUE, never)

    with pytest.raises(NoisyLabelError, match=r"^wrong$"):
        checks.require(FALSE, lambda: "wrong")
    checks.settle()


def test_on_an_accelerator_conditions_wait_and_are_read_together():
    checks, OnAccelerator.reads = DeferredChecks(), 0
    checks.require(away(True), never)
    checks.require(away(False), lambda: "first")
    checks.require(away(False), never)
    assert OnAccelerator.reads == 0

    with pytest.raises(NoisyLabelError, match=r"^first$"):
        checks.settle()
    assert OnAccelerator.reads == 1


def test_what_was_reported_is_not_reported_again():
    checks = DeferredChecks()
    checks.require(away(False), lambda: "wrong")
    with pytest.raises(NoisyLabelError):
        checks.settle()

    checks.settle()
    checks.require(away(True), never)
    checks.settle()


def test_messages_are_made_when_they_are_needed():
    checks, epoch = DeferredChecks(), 1
    checks.require(away(False), lambda: f"epoch {epoch}")
    epoch = 2
    with pytest.raises(NoisyLabelError, match="epoch 2"):
        checks.settle()


def test_nothing_waits_at_first():
    OnAccelerator.reads = 0
    DeferredChecks().settle()
    assert OnAccelerator.reads == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_on_a_gpu_is_not_stopped():
    checks = DeferredChecks()
    values = torch.tensor([1.0, float("nan")], device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        checks.require(values[:1].isfinite().all(), never)
        checks.require(values.isfinite().all(), lambda: "wrong")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    with pytest.raises(NoisyLabelError, match="wrong"):
        checks.settle()


# Labels


@pytest.mark.parametrize("labels", [[0, 3], [], [3, 3, 3]])
def test_labels_inside_pass(labels):
    check_labels(torch.tensor(labels, dtype=torch.int64), 4, "labels")


@pytest.mark.parametrize(
    ("labels", "came"),
    [
        ([0, 1, 4, 0, 7], r"sample 2 has label 4 \(2 of 5 are outside\)"),
        ([0, 1, 2, -1], r"sample 3 has label -1 \(1 of 4 are outside\)"),
        ([-100], r"sample 0 has label -100 \(1 of 1 are outside\)"),
    ],
)
def test_the_first_label_outside_is_named(labels, came):
    with pytest.raises(NoisyLabelError, match=rf"^Expected my labels to lie in \[0, 4\), but {came}: mend .*\.$"):
        check_labels(torch.tensor(labels), 4, "my labels")


# Compiled modules


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Linear(3, 3), nn.Linear(3, 2)


def refused(root, module):
    with pytest.raises(NoisyLabelError, match=r"^`head` or its LightningModule is compiled, .*torch\.compile\(self\.b"):
        check_not_compiled(root, module, "head")


def test_plain_modules_pass_also_beside_a_compiled_backbone():
    root = Module()
    check_not_compiled(root, root.head, "head")
    root.backbone = torch.compile(root.backbone)
    check_not_compiled(root, root.head, "head")
    root.backbone.compile()
    check_not_compiled(root, root.head, "head")


def test_a_wrapped_head_is_refused():
    root = Module()
    root.head = torch.compile(root.head)
    refused(root, root.head)


def test_a_head_compiled_in_place_is_refused():
    root = Module()
    root.head.compile()
    refused(root, root.head)


def test_a_compiled_lightning_module_is_refused():
    root = Module()
    refused(torch.compile(root), root.head)

    root = Module()
    root.compile()
    refused(root, root.head)


def test_a_module_that_the_trainer_took_out_of_its_wrapper_is_refused():
    """`Trainer.fit(torch.compile(module))` goes on with the module itself, whose steps are compiled."""
    from lightning.pytorch.utilities.compile import from_compiled

    root = from_compiled(torch.compile(Module()))
    assert type(root) is Module
    refused(root, root.head)
