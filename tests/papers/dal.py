"""DAL (arXiv 2303.11562): one recipe for each data set, and a loss for each row."""

from lightning_noisy.losses import PAPER_SETTINGS
from tests.papers.settings import COSINE, CROSS_ENTROPY, Settings, named, plain

DAL_ROWS = {
    "DAL": "dal",
    "GCE": "gce",
    "SCE": "sce",
    "NLNL": "nlnl",
    "BTL": "btl",
    "NCE+RCE": "nce_rce",
    "TCE": "tce",
    "NCE+AGCE": "nce_agce",
    "CE+SR": "sr",
    "JS": "js",
    "Poly-1": "poly1",
    "dynamic TCE": "dynamic_tce",
    "dynamic JS": "dynamic_js",
    "ELR+DAL": "elr_dal",
}


def dal(dataset, setting):
    """DAL, table 1 and section 5: one recipe for all losses."""
    loss = {setting["class_path"].rpartition(".")[2]: setting["init_args"]}
    method = {key: value for callback in setting.get("callbacks", []) for key, value in named(callback).items()}
    data = f"{dataset.upper()}DataModule"
    return Settings(150, "ResNet18", 128, 0.01, 1e-4, COSINE, plain(loss), method, data=data)


def dgce(q):
    """DAL without bootstrapping, a row of its table."""
    schedule = {"class_path": "DALSchedule", "init_args": {"q_start": q, "q_end": 1.5, "lam_end": 0.0}}
    return {"class_path": "DynamicsAwareLoss", "init_args": {"q": q}, "callbacks": [schedule]}


ROWS = {
    "ce/cifar10": Settings(150, "ResNet18", 128, 0.01, 1e-4, COSINE, CROSS_ENTROPY, {}),
    "ce/cifar100": dal("cifar100", {"class_path": "CrossEntropyLoss", "init_args": {}}),
    "dgce/cifar10": dal("cifar10", dgce(0.8)),
    "dgce/cifar100": dal("cifar100", dgce(0.6)),
    **{
        f"{name}/{dataset}": dal(dataset, PAPER_SETTINGS["DAL"][row][data])
        for row, name in DAL_ROWS.items()
        for dataset, data in (("cifar10", "CIFAR-10"), ("cifar100", "CIFAR-100"))
        if data in PAPER_SETTINGS["DAL"][row]
    },
}
