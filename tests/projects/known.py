"""The projects: how each makes its module and its batches, as its own documents do it, on data of a few kilobytes."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Sampler

CLASSES, SAMPLES, BATCH_SIZE = 4, 40, 8


@dataclass(frozen=True)
class Project:
    """A project's module, and the data that it learns from."""

    module: Callable[[], Any]
    """Makes the LightningModule."""
    samples: list[Any]
    """The training set, as the project's loader takes it."""
    head: str | None
    """The last linear layer, None where it is of a class that cannot be masked."""
    library: str = "lightning.pytorch"
    """The Lightning that the project imports."""
    loader: Callable[..., Any] = DataLoader
    """The loader that the project uses."""


def given_labels() -> Tensor:
    """Labels (N,), a third of them wrong."""
    generator = torch.Generator().manual_seed(1)
    return torch.where(
        torch.rand(SAMPLES, generator=generator) < 1 / 3,
        torch.randint(CLASSES, (SAMPLES,), generator=generator),
        torch.arange(SAMPLES) % CLASSES,
    )


def images(channels: int, size: int) -> Tensor:
    """Noise with a bright row for each clean class, (N, channels, size, size)."""
    pixels = torch.randn(SAMPLES, channels, size, size, generator=torch.Generator().manual_seed(2))
    pixels[torch.arange(SAMPLES), :, torch.arange(SAMPLES) % CLASSES] += 2
    return pixels


class Order(Sampler[int]):
    """Another permutation in each epoch, which does not depend on anything else."""

    def __init__(self) -> None:
        self.set_epoch(0)

    def __len__(self) -> int:
        return SAMPLES

    def __iter__(self) -> Any:
        return iter(self.permutation(self.epoch).tolist())

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    @staticmethod
    def permutation(epoch: int) -> Tensor:
        return torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(100 + epoch))


def torchgeo() -> Project:
    trainers = importlib.import_module("torchgeo.trainers")
    samples = [{"image": image, "label": label} for image, label in zip(images(3, 64), given_labels(), strict=True)]
    return Project(lambda: trainers.ClassificationTask("resnet10t", num_classes=CLASSES), samples, "model.fc")


def torch_uncertainty() -> Project:
    routines = importlib.import_module("torch_uncertainty.routines")
    lenet = importlib.import_module("torch_uncertainty.models.classification").lenet

    def module() -> Any:
        model = lenet(1, CLASSES, dropout_rate=0.2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        return routines.ClassificationRoutine(
            model, CLASSES, nn.CrossEntropyLoss(), num_bins_calibration_error=5, optim_recipe=optimizer
        )

    return Project(module, list(zip(images(1, 28), given_labels(), strict=True)), "model.fc3")


def lightly() -> Project:
    benchmarking = importlib.import_module("lightly.utils.benchmarking")

    def module() -> Any:
        backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU())
        return benchmarking.FinetuneClassifier(backbone, 256, 0.1, 12, CLASSES, topk=(1,))

    samples = list(zip(images(1, 8), given_labels(), [f"{i}.png" for i in range(SAMPLES)], strict=True))
    return Project(module, samples, "classification_head", "pytorch_lightning")


def pytorch_tabular() -> Project:
    tabular = importlib.import_module("pytorch_tabular")
    config = importlib.import_module("pytorch_tabular.config")
    models = importlib.import_module("pytorch_tabular.models")
    names = [f"x{i}" for i in range(6)]
    frame = importlib.import_module("pandas").DataFrame(images(1, 8)[:, 0, :6, 0].numpy(), columns=names)
    frame["y"] = given_labels().numpy()
    table = tabular.TabularModel(
        data_config=config.DataConfig(target=["y"], continuous_cols=names),
        model_config=models.CategoryEmbeddingModelConfig(task="classification", layers="16-12", dropout=0.1),
        optimizer_config=config.OptimizerConfig(),
        trainer_config=config.TrainerConfig(max_epochs=1, accelerator="cpu", load_best=False),
        verbose=False,
    )
    data = table.prepare_dataloader(train=frame, validation=frame)
    return Project(lambda: table.prepare_model(data), data.train_dataset, "head.layers.0", "pytorch_lightning")


def transformers() -> Project:
    """Its models compute their loss themselves, from `labels`; the module is what one writes around them."""
    library = importlib.import_module("transformers")
    config = library.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    config.num_labels = CLASSES

    class TextClassifier(importlib.import_module("lightning.pytorch").LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = library.BertForSequenceClassification(config)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self.model(**batch).loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", self.model(**batch).loss)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=1e-3)

    words = torch.randint(1, 30, (SAMPLES, 7), generator=torch.Generator().manual_seed(3))
    words[:, 1] = torch.arange(SAMPLES) % CLASSES
    attended = torch.ones_like(words)
    columns = zip(words, attended, given_labels(), strict=True)
    samples = [{"input_ids": x, "attention_mask": m, "labels": y} for x, m, y in columns]
    return Project(TextClassifier, samples, "model.classifier")


def graphs() -> list[Any]:
    """Random graphs whose number of nodes tells the clean class."""
    graph = importlib.import_module("torch_geometric.data").Data
    generator = torch.Generator().manual_seed(4)
    samples = []
    for clean, label in zip(torch.arange(SAMPLES) % CLASSES, given_labels(), strict=True):
        nodes = 4 + int(clean)
        edges = torch.randint(nodes, (2, 2 * nodes), generator=generator)
        samples.append(graph(x=torch.randn(nodes, 6, generator=generator), edge_index=edges, y=label.unsqueeze(0)))
    return samples


def torch_geometric() -> Project:
    """Its examples are modules with a functional loss, on batches of graphs."""
    geometric = importlib.import_module("torch_geometric.nn")

    class GraphClassifier(importlib.import_module("lightning.pytorch").LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.body = geometric.GIN(6, 12, num_layers=2, dropout=0.1)
            self.classifier = nn.Linear(12, CLASSES)

        def forward(self, data: Any) -> Tensor:
            features = self.body(data.x, data.edge_index)
            return self.classifier(geometric.global_add_pool(features, data.batch))

        def training_step(self, data: Any, batch_idx: int) -> Tensor:
            return F.cross_entropy(self(data), data.y)

        def validation_step(self, data: Any, batch_idx: int) -> None:
            self.log("val_loss", F.cross_entropy(self(data), data.y), batch_size=data.num_graphs)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=0.01)

    loader = importlib.import_module("torch_geometric.loader").DataLoader
    return Project(GraphClassifier, graphs(), "classifier", loader=loader)


def torch_geometric_graphgym() -> Project:
    """Its own LightningModule, whose loss is ``F.nll_loss`` of log-probabilities."""
    configuration = importlib.import_module("torch_geometric.graphgym.config")
    builder = importlib.import_module("torch_geometric.graphgym.model_builder")
    options = configuration.cfg
    configuration.set_cfg(options)
    options.merge_from_list(["dataset.task_type", "classification", "dataset.task", "graph", "gnn.head", "graph"])
    options.merge_from_list(["dataset.node_encoder", False, "dataset.edge_encoder", False, "gnn.dim_inner", 8])
    options.merge_from_list(["share.dim_in", 6, "share.dim_out", CLASSES, "model.loss_fun", "cross_entropy"])
    loader = importlib.import_module("torch_geometric.loader").DataLoader
    return Project(lambda: builder.GraphGymModule(6, CLASSES, options), graphs(), None, loader=loader)


KNOWN = {
    "torchgeo": torchgeo,
    "torch_uncertainty": torch_uncertainty,
    "lightly": lightly,
    "pytorch_tabular": pytorch_tabular,
    "transformers": transformers,
    "torch_geometric": torch_geometric,
    "torch_geometric_graphgym": torch_geometric_graphgym,
}
"""By their name."""

NEEDED = {name: [name] for name in KNOWN} | {"torch_geometric_graphgym": ["torch_geometric", "yacs"]}
"""What has to be importable for each."""
