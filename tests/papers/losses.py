"""The arguments that papers and their code give the losses, for each data set, typed a second time."""

from __future__ import annotations

from typing import Any

Setting = dict[str, Any]
"""``class_path`` and ``init_args`` of a loss, as in a configuration file, and of the ``callbacks`` that move it."""

MNIST, CIFAR10, CIFAR100 = "MNIST", "CIFAR-10", "CIFAR-100"
ANIMAL10N, CLOTHING1M, WEBVISION = "ANIMAL-10N", "Clothing1M", "WebVision"
_SYMMETRIC = ("no noise", "symmetric 0.2", "symmetric 0.4", "symmetric 0.6", "symmetric 0.8")


def _loss(name: str, *callbacks: Setting, **arguments: Any) -> Setting:
    setting: Setting = {"class_path": f"lightning_noisy.losses.{name}", "init_args": arguments}
    return {**setting, "callbacks": list(callbacks)} if callbacks else setting


def _callback(name: str, **arguments: Any) -> Setting:
    return {"class_path": f"lightning_noisy.callbacks.{name}", "init_args": arguments}


def _pair(active: Setting, passive: Setting, alpha: float, beta: float) -> Setting:
    return _loss("ActivePassiveLoss", active=active, passive=passive, alpha=alpha, beta=beta)


def _dal(q_start: float, lam_end: float = 1.0) -> Setting:
    return _loss("DynamicsAwareLoss", _callback("DALSchedule", q_start=q_start, q_end=1.5, lam_end=lam_end), q=q_start)


def _anl(alpha: float, beta: float, delta: float, **arguments: Any) -> Setting:
    return _loss("ActiveNegativeLoss", alpha=alpha, beta=beta, delta=delta, **arguments)


def _sr(base: Setting, tau: float, lam: float, p: float, rho: float, **arguments: Any) -> Setting:
    return _loss("SparseRegularization", base=base, tau=tau, lam=lam, p=p, rho=rho, **arguments)


def _nal(lam: float, **arguments: Any) -> Setting:
    return _loss("NoiseAttentionLoss", lam=lam, **arguments, label_floor=1e-4)


def _by_noise(data: str, name: str, pis: tuple[float, ...], asymmetric: dict[str, float]) -> dict[str, Setting]:
    noises = {**dict(zip(_SYMMETRIC, pis, strict=True)), **asymmetric}
    return {f"{data}, {noise}": _loss(name, pi=pi) for noise, pi in noises.items()}


_CE: Setting = {"class_path": "torch.nn.CrossEntropyLoss", "init_args": {}}
_NCE, _MAE, _RCE = _loss("NormalizedCrossEntropy"), _loss("MeanAbsoluteError"), _loss("ReverseCrossEntropy")
_FOCAL, _NFL = _loss("FocalLoss", gamma=0.5, detach=True), _loss("NormalizedFocalLoss", gamma=0.5)
_RCE_DAL = _loss("ReverseCrossEntropy", eps=1e-6)
_FROM_CE_TO_MAE = _callback("DALSchedule", q_start=0.0, q_end=1.0, target="loss.base")


def _ngce(q: float) -> Setting:
    return _loss("NormalizedGeneralizedCrossEntropy", q=q)


def _agce(a: float, q: float) -> Setting:
    return _loss("AsymmetricGeneralizedCrossEntropy", a=a, q=q)


def _aul(a: float, q: float) -> Setting:
    return _loss("AsymmetricUnhingedLoss", a=a, q=q)


def _ael(a: float) -> Setting:
    return _loss("AsymmetricExponentialLoss", a=a)


def _gce(q: float, **arguments: float) -> Setting:
    return _loss("GeneralizedCrossEntropy", q=q, **arguments)


def _sce(alpha: float, beta: float, **arguments: float) -> Setting:
    return _loss("SymmetricCrossEntropy", alpha=alpha, beta=beta, **arguments)


PAPER_SETTINGS: dict[str, dict[str, dict[str, Setting]]] = {
    "GCE": {
        "GCE": {CIFAR10: _gce(0.7, eps=0.0), CIFAR100: _gce(0.7, eps=0.0)},
        "truncated GCE": {
            data: _loss("TruncatedGeneralizedCrossEntropy", q=0.7, k=0.5, warmup_epochs=39, every_n_epochs=10)
            for data in (CIFAR10, CIFAR100)
        },
    },
    "SCE": {"SCE": {CIFAR10: _sce(0.1, 1.0), CIFAR100: _sce(6.0, 0.1)}},
    "APL": {
        "FL": {MNIST: _FOCAL, CIFAR10: _FOCAL, CIFAR100: _FOCAL},
        "GCE": {MNIST: _gce(0.7), CIFAR10: _gce(0.7), CIFAR100: _gce(0.7)},
        "SCE": {MNIST: _sce(0.01, 1.0), CIFAR10: _sce(0.1, 1.0), CIFAR100: _sce(6.0, 0.1)},
        "NCE+RCE": {
            MNIST: _pair(_NCE, _RCE, 1.0, 10.0),
            CIFAR10: _pair(_NCE, _RCE, 1.0, 1.0),
            CIFAR100: _pair(_NCE, _RCE, 10.0, 0.1),
        },
        "NCE+MAE": {
            MNIST: _pair(_NCE, _MAE, 1.0, 10.0),
            CIFAR10: _pair(_NCE, _MAE, 1.0, 1.0),
            CIFAR100: _pair(_NCE, _MAE, 10.0, 1.0),
        },
        "NFL+RCE": {
            MNIST: _pair(_NFL, _RCE, 1.0, 10.0),
            CIFAR10: _pair(_NFL, _RCE, 1.0, 1.0),
            CIFAR100: _pair(_NFL, _RCE, 10.0, 0.1),
        },
        "NFL+MAE": {
            MNIST: _pair(_NFL, _MAE, 1.0, 10.0),
            CIFAR10: _pair(_NFL, _MAE, 1.0, 1.0),
            CIFAR100: _pair(_NFL, _MAE, 10.0, 1.0),
        },
        "NGCE+RCE": {
            MNIST: _pair(_ngce(0.1), _RCE, 1.0, 10.0),
            CIFAR10: _pair(_ngce(0.1), _RCE, 1.0, 1.0),
            CIFAR100: _pair(_ngce(0.7), _RCE, 10.0, 0.1),
        },
        "NGCE+MAE": {
            MNIST: _pair(_ngce(0.1), _MAE, 1.0, 10.0),
            CIFAR10: _pair(_ngce(0.1), _MAE, 1.0, 1.0),
            CIFAR100: _pair(_ngce(0.7), _MAE, 10.0, 1.0),
        },
    },
    "ALF": {
        "NCE+RCE": {
            MNIST: _pair(_NCE, _RCE, 1.0, 100.0),
            CIFAR10: _pair(_NCE, _RCE, 1.0, 1.0),
            CIFAR100: _pair(_NCE, _RCE, 10.0, 1.0),
        },
        "NCE+AGCE": {
            MNIST: _pair(_NCE, _agce(4.0, 0.2), 0.0, 1.0),
            CIFAR10: _pair(_NCE, _agce(6.0, 1.5), 1.0, 4.0),
            CIFAR100: _pair(_NCE, _agce(1.8, 3.0), 10.0, 0.1),
        },
        "NCE+AUL": {
            MNIST: _pair(_NCE, _aul(3.0, 0.1), 0.0, 1.0),
            CIFAR10: _pair(_NCE, _aul(6.3, 1.5), 1.0, 4.0),
            CIFAR100: _pair(_NCE, _aul(6.0, 3.0), 10.0, 0.015),
        },
        "NCE+AEL": {
            MNIST: _pair(_NCE, _ael(3.5), 0.0, 1.0),
            CIFAR10: _pair(_NCE, _ael(5.0), 1.0, 4.0),
            CIFAR100: _pair(_NCE, _ael(1.5), 10.0, 0.1),
        },
    },
    "SR": {
        "CE+SR": {
            MNIST: _sr(_CE, 0.1, 4.0, 0.1, 2.0, every_n_epochs=5, normalize=False),
            CIFAR10: _sr(_CE, 0.5, 1.2, 0.1, 1.03),
            f"{CIFAR100}, symmetric": _sr(_CE, 0.5, 4.0, 0.01, 1.02),
            f"{CIFAR100}, asymmetric": _sr(_CE, 0.5, 10.0, 0.01, 1.02),
        },
        "FL+SR": {
            MNIST: _sr(_FOCAL, 0.1, 4.0, 0.1, 2.0, every_n_epochs=5, normalize=False),
            CIFAR10: _sr(_FOCAL, 0.5, 1.2, 0.1, 1.03),
            f"{CIFAR100}, symmetric": _sr(_FOCAL, 0.5, 4.0, 0.01, 1.02),
            f"{CIFAR100}, asymmetric": _sr(_FOCAL, 0.5, 10.0, 0.01, 1.02),
        },
        "GCE+SR": {
            MNIST: _sr(_gce(0.01), 0.5, 3.0, 0.1, 2.0, every_n_epochs=5, normalize=False),
            CIFAR10: _sr(_gce(0.01), 0.5, 1.2, 0.1, 1.03),
            f"{CIFAR100}, symmetric": _sr(_gce(0.001), 0.5, 4.0, 0.01, 1.02),
            f"{CIFAR100}, asymmetric": _sr(_gce(0.001), 0.5, 10.0, 0.01, 1.02),
        },
    },
    "ELR": {
        "ELR": {
            f"{CIFAR10}, symmetric": _loss("EarlyLearningRegularization", lam=3.0, momentum=0.7),
            f"{CIFAR10}, asymmetric": _loss("EarlyLearningRegularization", lam=1.0, momentum=0.9),
            CIFAR100: _loss("EarlyLearningRegularization", lam=7.0, momentum=0.9),
        },
    },
    "SAT": {
        "SAT": {data: _loss("SelfAdaptiveTraining", warmup_epochs=60, momentum=0.9) for data in (CIFAR10, CIFAR100)},
    },
    "GJS": {
        "JS": {
            **_by_noise(CIFAR10, "JensenShannonLoss", (0.1, 0.7, 0.7, 0.9, 0.9), {"asymmetric": 0.3}),
            **_by_noise(CIFAR100, "JensenShannonLoss", (0.1, 0.1, 0.3, 0.5, 0.3), {"asymmetric": 0.5}),
            WEBVISION: _loss("JensenShannonLoss", pi=0.1, scaled=False),
        },
        "GJS": {
            **_by_noise(CIFAR10, "GeneralizedJensenShannonLoss", (0.5, 0.3, 0.9, 0.1, 0.1), {"asymmetric": 0.3}),
            **_by_noise(
                CIFAR100,
                "GeneralizedJensenShannonLoss",
                (0.3, 0.3, 0.5, 0.9, 0.1),
                {"asymmetric 0.2": 0.5, "asymmetric 0.4": 0.1},
            ),
            WEBVISION: _loss("GeneralizedJensenShannonLoss", pi=0.1, scaled=False),
        },
    },
    "PENCIL": {
        "PENCIL": {
            CIFAR10: _loss(
                "PencilLoss", alpha=0.4, beta=0.1, label_lr=600.0, warmup_epochs=70, fixed_from_epoch=200, scale=10.0
            ),
        },
    },
    "NAL": {
        "NAL": {
            CIFAR10: _nal(0.5),
            CIFAR100: _nal(10.0),
            ANIMAL10N: _nal(0.5),
            CLOTHING1M: _nal(50.0, beta=0.1),
            WEBVISION: _nal(50.0, beta=0.1),
        },
        "RNAL": {CIFAR10: _nal(0.5, beta=0.1), CIFAR100: _nal(10.0, beta=0.1)},
        "NAL, confidence": {
            CIFAR10: _nal(0.5, attention="confidence"),
            CIFAR100: _nal(10.0, attention="confidence"),
        },
        "SCE+NAL": {CIFAR10: _pair(_nal(0.5), _RCE, 0.1, 1.0), CIFAR100: _pair(_nal(10.0), _RCE, 6.0, 0.1)},
    },
    "ANL": {
        "ANL-CE": {
            MNIST: _anl(1.0, 1.0, 1e-6),
            CIFAR10: _anl(5.0, 5.0, 5e-5),
            CIFAR100: _anl(10.0, 1.0, 5e-7),
            WEBVISION: _anl(20.0, 1.0, 5e-6),
        },
        "ANL-FL": {
            MNIST: _anl(1.0, 1.0, 1e-6, base="focal"),
            CIFAR10: _anl(5.0, 5.0, 5e-5, base="focal"),
            CIFAR100: _anl(10.0, 1.0, 5e-7, base="focal"),
        },
        "ANL-CE-ER": {CIFAR10: _anl(5.0, 5.0, 5e-5, lam=2.0), CIFAR100: _anl(10.0, 1.0, 5e-7, lam=0.01)},
        "GCE": {WEBVISION: _gce(0.7)},
        "SCE": {WEBVISION: _sce(10.0, 1.0)},
        "NCE+RCE": {WEBVISION: _pair(_NCE, _RCE, 50.0, 0.1)},
        "NCE+AGCE": {WEBVISION: _pair(_NCE, _agce(2.5, 3.0), 50.0, 0.1)},
    },
    "DAL": {
        "DAL": {CIFAR10: _dal(0.8), CIFAR100: _dal(0.6), ANIMAL10N: _dal(0.6), WEBVISION: _dal(0.4)},
        "GCE": {CIFAR10: _gce(0.9, eps=1e-6), CIFAR100: _gce(0.7, eps=1e-6)},
        "DGCE": {
            CIFAR10: _dal(0.8, lam_end=0.0),
            CIFAR100: _dal(0.6, lam_end=0.0),
            ANIMAL10N: _dal(0.6, lam_end=0.0),
            WEBVISION: _dal(0.4, lam_end=0.0),
        },
        "SCE": {
            CIFAR10: _sce(0.1, 10.0, eps=1e-6),
            CIFAR100: _sce(6.0, 1.0, eps=1e-6),
            ANIMAL10N: _sce(6.0, 1.0, eps=1e-6),
            WEBVISION: _sce(10.0, 1.0, eps=1e-6),
        },
        "NLNL": {
            CIFAR10: _loss("NegativeLearning", num_negatives=1),
            CIFAR100: _loss("NegativeLearning", num_negatives=110),
        },
        "BTL": {
            CIFAR10: _loss("BiTemperedLogisticLoss", t1=0.7, t2=3.0, eps=1e-6),
            CIFAR100: _loss("BiTemperedLogisticLoss", t1=0.7, t2=1.5, eps=1e-6),
        },
        "NCE+RCE": {
            CIFAR10: _pair(_NCE, _RCE_DAL, 1.0, 0.1),
            CIFAR100: _pair(_NCE, _RCE_DAL, 10.0, 0.1),
            ANIMAL10N: _pair(_NCE, _RCE_DAL, 10.0, 0.1),
            WEBVISION: _pair(_NCE, _RCE_DAL, 50.0, 0.1),
        },
        "TCE": {CIFAR10: _loss("TaylorCrossEntropy", order=3), CIFAR100: _loss("TaylorCrossEntropy", order=18)},
        "NCE+AGCE": {
            CIFAR10: _pair(_NCE, _agce(6.0, 1.5), 1.0, 0.4),
            CIFAR100: _pair(_NCE, _agce(3.0, 3.0), 10.0, 0.1),
            ANIMAL10N: _pair(_NCE, _agce(1e-5, 0.7), 0.0, 1.0),
            WEBVISION: _pair(_NCE, _agce(1e-5, 0.5), 0.0, 1.0),
        },
        "CE+SR": {
            CIFAR10: _sr(_CE, 0.5, 1.5, 0.1, 1.02, eps=1e-6),
            CIFAR100: _sr(_CE, 0.5, 8.0, 0.01, 1.02, eps=1e-6),
            ANIMAL10N: _sr(_CE, 0.5, 8.0, 0.01, 1.02, eps=1e-6),
            WEBVISION: _sr(_CE, 0.5, 2.0, 0.01, 1.02, eps=1e-6),
        },
        "JS": {
            CIFAR10: _loss("JensenShannonLoss", pi=0.9, eps=1e-6),
            CIFAR100: _loss("JensenShannonLoss", pi=0.5, eps=1e-6),
            ANIMAL10N: _loss("JensenShannonLoss", pi=0.5, eps=1e-6),
            WEBVISION: _loss("JensenShannonLoss", pi=0.1, eps=1e-6),
        },
        "Poly-1": {
            CIFAR10: _loss("Poly1CrossEntropy", epsilon=10.0),
            CIFAR100: _loss("Poly1CrossEntropy", epsilon=2.0),
        },
        "dynamic TCE": {
            CIFAR100: _loss(
                "TaylorCrossEntropy",
                _callback("ParameterSchedule", target="loss.order", start=20.0, end=1.0),
                order=20,
            ),
        },
        "dynamic JS": {
            CIFAR100: _loss(
                "JensenShannonLoss",
                _callback("ParameterSchedule", target="loss.pi", start=0.0, end=1.0),
                pi=0.0,
                eps=1e-6,
            ),
        },
        "ELR": {CIFAR100: _loss("EarlyLearningRegularization", lam=7.0, momentum=0.9)},
        "ELR+DAL": {
            CIFAR100: _loss(
                "EarlyLearningRegularization",
                _FROM_CE_TO_MAE,
                lam=7.0,
                momentum=0.9,
                base=_loss("DynamicsAwareLoss", q=0.0),
            ),
        },
        "GJS": {CIFAR100: _loss("GeneralizedJensenShannonLoss", pi=0.1)},
        "GJS+DAL": {
            CIFAR100: _loss(
                "GeneralizedJensenShannonLoss", _FROM_CE_TO_MAE, pi=0.1, base=_loss("DynamicsAwareLoss", q=0.0)
            ),
        },
    },
}
"""Paper -> loss -> data set, with the noise where it matters -> arguments."""
