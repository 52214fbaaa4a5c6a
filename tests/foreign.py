"""An ordinary Lightning project that knows nothing of the package, and its data."""

import torch
from lightning.pytorch import LightningModule, Trainer, strategies
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

SHARDING = [
    getattr(strategies, name)
    for name in ("FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy")
    if hasattr(strategies, name)  # the last is there since Lightning 2.4
]


class ForeignModule(LightningModule):
    def __init__(self, num_features=6, num_classes=4, dropout=0.0):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(num_features, 8), nn.ReLU(), nn.Dropout(dropout))
        self.classifier = nn.Linear(8, num_classes)
        self.criterion = nn.CrossEntropyLoss()

    def forward(self, x):
        return self.classifier(self.body(x))

    def training_step(self, batch, batch_idx):
        x, target, _ = batch
        return self.criterion(self(x), target)

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.criterion(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.9)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


class DictForeignModule(ForeignModule):
    def training_step(self, batch, batch_idx):
        return self.criterion(target=batch["y"], input=self(batch["x"]))


class DictDataset(Dataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        return {"x": self.x[index], "y": self.y[index]}


def make_tensors(num_samples=24, num_features=6, num_classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_samples, num_features, generator=generator)
    clean = x[:, :num_classes].argmax(dim=1)
    noisy = torch.randint(num_classes, (num_samples,), generator=generator)
    wrong = torch.rand(num_samples, generator=generator) < 0.4
    return x, torch.where(wrong, noisy, clean), clean


def make_loader(dataset, batch_size=8, shuffle=False):
    return DataLoader(dataset, batch_size=batch_size, shuffle=shuffle)


def make_validation_loader():
    x, _, clean = make_tensors(seed=1)
    return make_loader(TensorDataset(x, clean))


def make_trainer(folder, callbacks=(), max_epochs=2, **options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=max_epochs,
        callbacks=list(callbacks),
        **{**quiet, "devices": 1, "enable_checkpointing": False, "num_sanity_val_steps": 0, **options},
    )
