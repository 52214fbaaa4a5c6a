"""What is compiled, traced or exported gives eager's logits, for other batches and on adapted grids too."""

import inspect
import io
import warnings
from functools import partial

import pytest
import torch
from lightning_utilities.core.imports import RequirementCache
from torch import nn

from lightning_noisy.heads import CosineHead, DropConnectHead, DropoutHead, KANHead, LinearHead
from lightning_noisy.heads.convolution import ConvolutionHead
from lightning_noisy.modules import NoisyLabelModule
from lightning_noisy.networks import MLP

FEATURES, CLASSES = 6, 4
BATCH = ({0: torch.export.Dim("batch", min=2)},)


def adapted(**options):
    head = KANHead(FEATURES, CLASSES, scale_noise=3.0, **options)
    head.update_grid(torch.randn(40, FEATURES))
    return head


def masked(head):
    head.edge_mask = (torch.arange(CLASSES * FEATURES).view(CLASSES, FEATURES) % 3 > 0).float()
    return head


def module(head, adapt=False):
    made = NoisyLabelModule(MLP(FEATURES, hidden=(5,)), head, nn.CrossEntropyLoss(), CLASSES)
    if adapt:
        made.network.head.update_grid(torch.randn(40, 5))
    return made


MODELS = {
    "linear": lambda: LinearHead(FEATURES, CLASSES),
    "cosine": lambda: CosineHead(FEATURES, CLASSES),
    "dropout": lambda: DropoutHead(FEATURES, CLASSES),
    "drop connect": lambda: DropConnectHead(FEATURES, CLASSES),
    "masked linear": lambda: masked(LinearHead(FEATURES, CLASSES)),
    "convolution": lambda: nn.Sequential(nn.Unflatten(1, (FEATURES, 1, 1)), ConvolutionHead(FEATURES, CLASSES, 1)),
    "kan": lambda: KANHead(FEATURES, CLASSES, scale_noise=3.0),
    "kan of steps": lambda: KANHead(FEATURES, CLASSES, spline_order=0, scale_noise=3.0),
    "masked kan": lambda: masked(KANHead(FEATURES, CLASSES, scale_noise=3.0)),
    "adapted kan": adapted,
    "adapted kan of order 2, normalizing": lambda: adapted(spline_order=2, normalize=True),
    "module with a linear head": lambda: module(LinearHead),
    "module with an adapted kan": lambda: module(partial(KANHead, scale_noise=3.0), adapt=True),
}


def models(*quick):
    """All of them, of which these are not slow."""
    return pytest.mark.parametrize(
        "model",
        [pytest.param(make, id=name, marks=[] if name in quick else pytest.mark.slow) for name, make in MODELS.items()],
    )


def exported(model, x):
    return torch.export.export(model, (x,), dynamic_shapes=BATCH).module()


def traced(model, x):
    return torch.jit.trace(model, (x,))


def compiled(model, x, backend="aot_eager"):
    torch._dynamo.reset()
    return torch.compile(model, fullgraph=True, backend=backend)


def onnx_by_tracing(model, x):
    file = io.BytesIO()
    names = {"input_names": ["x"], "dynamic_axes": {"x": {0: "batch"}}}
    torch.onnx.export(model, (x,), file, dynamo=False, **names)
    return in_onnx_runtime(file.getvalue())


def onnx_by_export(model, x):
    program = torch.onnx.export(model, (x,), dynamo=True, dynamic_shapes=BATCH, verbose=False)
    return in_onnx_runtime(program.model_proto.SerializeToString())


def in_onnx_runtime(file):
    session = pytest.importorskip("onnxruntime").InferenceSession(file)
    (given,) = session.get_inputs()
    return lambda x: torch.from_numpy(session.run(None, {given.name: x.numpy()})[0])


def check(way, model):
    if way in (onnx_by_tracing, onnx_by_export):
        pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    model, example, others = model().eval(), torch.randn(5, FEATURES), 1.5 * torch.randn(9, FEATURES)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.testing.assert_close(way(model, example)(others), model(others), rtol=1e-4, atol=1e-5)


WAYS = [exported, traced, compiled, onnx_by_tracing]
if not RequirementCache("torch>=2.6"):  # export of torch 2.4 takes the grid of a KAN head for an input
    WAYS.remove(exported)


@models("kan", "module with an adapted kan")
@pytest.mark.parametrize("way", WAYS)
def test_gives_the_logits_of_eager(way, model):
    check(way, model)


@pytest.mark.skipif(
    "dynamic_shapes" not in inspect.signature(torch.onnx.export).parameters, reason="torch has no such exporter yet"
)
@models("adapted kan of order 2, normalizing")
def test_the_newer_onnx_exporter_gives_the_logits_of_eager(model):
    check(onnx_by_export, model)


@models()
def test_inductor_gives_the_logits_of_eager(model):
    check(partial(compiled, backend="inductor"), model)


@models("adapted kan")
def test_compiled_models_train_as_eager_ones(model):
    gradients = []
    for way in (lambda model, x: model, compiled):
        torch.manual_seed(0)
        head, x = model(), torch.randn(5, FEATURES, requires_grad=True)
        run = way(head, x)
        torch.manual_seed(1)
        run(x).square().sum().backward()
        gradients.append([x.grad, *(parameter.grad for parameter in head.parameters())])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_lightning_exports_a_module(tmp_path):
    model, x = MODELS["module with an adapted kan"]().eval(), torch.randn(3, FEATURES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = model.to_torchscript(tmp_path / "module.pt", method="trace", example_inputs=torch.randn(5, FEATURES))
    torch.testing.assert_close(script(x), model(x))
    torch.testing.assert_close(torch.jit.load(tmp_path / "module.pt")(x), model(x))
