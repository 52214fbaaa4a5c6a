"""Sample selection, two networks, semi-supervised: the recipes of the methods' own codes, by method and data set."""

from tests.papers.settings import CROSS_ENTROPY, SYMMETRIC, Settings

E = 2.718281828459045
"""Base of UNICON's logarithms."""
PARTS = {
    "co_teaching": {"CoTeaching": {"ramp_epochs": 10, "exponent": 1.0}},
    "co_teaching_plus": {"CoTeachingPlus": {"ramp_epochs": 10, "exponent": 1.0, "double_softmax": True}},
    "jocor": {"JoCoR": {"ramp_epochs": 10, "exponent": 1.0}},
    "jo_src": {"JoSRC": {"final_threshold": 0.95, "temperature": 10.0, "teacher_decay": 0.99}},
    "co_ldl": {
        "CoLDL": {
            "warmup_epochs": 10,
            "drop_rate": 0.25,
            "final_drop_rate": 0.5,
            "smoothing": 0.5,
            "consistency": 0.1,
            "mix_weight": 0.3,
            "embedding_weight": 0.1,
            "mix_alpha": 0.4,
            "label_lr": 200.0 * 128 / 16,  # published for batches of 16
            **dict.fromkeys(("shared_labels", "double_softmax", "all_pairs"), True),
        }
    },
    "unicon": {
        "UNICON": {
            "base": E,
            "high_divergence": 0.7,
            "tau": 5.0,
            "contrast_weight": 0.025,
            "contrast_temperature": 0.05,
            "projection_width": 128,
            "temperature": 0.5,
        }
    },
    "sprl": {"SPRL": {"full_epochs": 30}},
    "disc": {"DISC": {"margin": 0.5, "alpha": 5.0, "initial_threshold": "samples"}},
    "sed": {"SED": {"warmup_epochs": 20, "deviations": 2.0, "clamp_logits": True, "threshold_updates": "epoch"}},
    "sure": {"SURE": {"mix_weight": 1.0, "rank_weight": 0.2, "beta": 10.0, "redraw": True}},
    "divide_mix": {"DivideMix": {"temperature": 0.5, "threshold": 0.5, "rampup_epochs": 16}},
    "elr_plus": {"ELRPlus": {"warmup_epochs": 0}},
}
"""Of each strategy what all its recipes have."""


def strategy(name, **arguments):
    """A strategy with what its recipes share and what this one has."""
    ((kind, shared),) = PARTS[name].items()
    return {kind: shared | arguments}


ADAM = {"optimizer": "Adam", "sgd": {}}
NESTEROV = {"momentum": 0.9, "nesterov": True}
HALF = {"SymmetricNoise": {"rate": 0.5}}
HALF_OF_ALL = {"SymmetricNoise": {"rate": 0.5, "include_true_class": True}}
OPEN_SET = {
    "OpenSetNoise": {"closed": {"class_path": "lightning_noisy.data.SymmetricNoise", "init_args": {"rate": 0.8}}}
}
RESNET18 = {
    "class_path": "lightning_noisy.networks.TorchvisionBackbone",
    "init_args": {"name": "resnet18", "weights": "IMAGENET1K_V1"},
}
RESNET50 = {"TorchvisionBackbone": {"name": "resnet50", "weights": "IMAGENET1K_V1"}}
INCEPTION = {"TimmBackbone": {"name": "inception_resnet_v2"}}
CNN7 = {"CNN7": {"hidden": 512}}
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
CLOTHES = {"mean": [0.6959, 0.6537, 0.6371], "std": [0.3113, 0.3192, 0.3214]}


def falling(start):
    """Co-teaching's schedule of Adam."""
    return {"LinearDecay": {"total_epochs": 200, "start_epoch": start, "final_momentum": 0.1}}


def drops(*milestones):
    """By ten."""
    return {"MultiStepLR": {"milestones": [*milestones], "gamma": 0.1}}


def cosine(epochs, **arguments):
    """To zero, or to another end."""
    return {"CosineAnnealingLR": {"T_max": epochs, **arguments}}


PLAIN = {
    "views": [{"class_path": "torchvision.transforms.v2.ConvertImageDtype"}],
    "normalization": "none",
}


def by_adam(classes, net, strategy, **further):
    """Co-teaching, and what has its optimizer: on CIFAR-100 the rate falls later."""
    given = {"noise": HALF, "data": f"CIFAR{classes}DataModule", "strategy": strategy, **ADAM, **further}
    schedule = falling({10: 80, 100: 100}[classes])
    return Settings(200, net, 128, 1e-3, 0.0, schedule, CROSS_ENTROPY, {}, **given)


def small_loss(name, net, classes, **arguments):
    """The strategies of Co-teaching's kind."""
    own = strategy(name, forget_rate=0.5, **arguments)
    return by_adam(classes, net, own, images=PLAIN)


def on_cifar(classes, epochs, net, lr, wd, schedule, strategy, **further):
    """SGD with momentum in batches of 128."""
    given = {"data": f"CIFAR{classes}DataModule", "strategy": strategy, **further}
    return Settings(epochs, net, 128, lr, wd, schedule, CROSS_ENTROPY, {}, **given)


LIKE_IMAGENET = {"normalization": "imagenet"}
WEAK, FOUR = {"views": ["weak", "weak"]}, {"views": ["weak", "weak", "strong", "strong"]}
IMAGENET_POLICY = {"class_path": "lightning_noisy.data.StrongAugment", "init_args": {"policy": "imagenet"}}
CO_LDL = on_cifar(
    100,
    110,
    CNN7,
    0.05,
    1e-5,
    {"CosineDecay": {"end_epoch": 110, "start_epoch": 10}},
    strategy("co_ldl"),
    noise=HALF,
    images=WEAK,
    sgd=NESTEROV,
)
JO_SRC = {
    "jo_src/cifar80no": Settings(
        200,
        CNN7,
        128,
        1e-3,
        0.0,
        falling(80),
        CROSS_ENTROPY,
        {},
        noise=OPEN_SET,
        data="CIFAR80NODataModule",
        images={**WEAK, **LIKE_IMAGENET},
        strategy=strategy("jo_src", warmup_epochs=10, smoothing=0.6, threshold=0.75, consistency=0.5),
        **ADAM,
    ),
    "jo_src/clothing1m": Settings(
        15,
        {"HiddenLayerBackbone": {"backbone": RESNET18, "width": 1024}},
        128,
        0.002,
        1e-4,
        cosine(15),
        CROSS_ENTROPY,
        {},
        noise={},
        data="Clothing1MDataModule",
        images={"batches_per_epoch": None, **IMAGENET, **WEAK},
        sgd=NESTEROV,
        strategy=strategy("jo_src", warmup_epochs=5, smoothing=0.7, threshold=0.9, consistency=0.4),
    ),
}


def of_images(data, epochs, net, batch, lr, wd, schedule, strategy, images, **further):
    """Noise is in the data."""
    given = {"noise": {}, "data": f"{data}DataModule", "images": images, "strategy": strategy, **further}
    return Settings(epochs, net, batch, lr, wd, schedule, CROSS_ENTROPY, {}, **given)


def divide_mix(name, warmup, lambda_u, alpha=4.0, penalty=0.0, **arguments):
    """DivideMix and UNICON."""
    return strategy(name, warmup_epochs=warmup, lambda_u=lambda_u, alpha=alpha, confidence_penalty=penalty, **arguments)


PREACT, UNICON = "PreActResNet18", cosine(280, eta_min=2e-4)
FROM_320 = {"image_size": 299, "resize": 320, **WEAK}
ALL = {"batches_per_epoch": None, **WEAK}
SEMI_SUPERVISED = {  # half of a batch is labeled: it is twice the published one
    "divide_mix/cifar10": on_cifar(
        10, 300, PREACT, 0.02, 5e-4, drops(150), divide_mix("divide_mix", 10, 25.0), noise=HALF_OF_ALL, images=WEAK
    ),
    "divide_mix/cifar100": on_cifar(
        100, 300, PREACT, 0.02, 5e-4, drops(150), divide_mix("divide_mix", 30, 150.0), noise=HALF_OF_ALL, images=WEAK
    ),
    "divide_mix/webvision": of_images(
        "WebVisionMini",
        80,
        INCEPTION,
        64,
        0.01,
        5e-4,
        drops(40),
        divide_mix("divide_mix", 1, None, 0.5),
        FROM_320,
    ),
    "divide_mix/clothing1m": of_images(
        "Clothing1M",
        80,
        RESNET50,
        64,
        0.002,
        1e-3,
        drops(40),
        divide_mix("divide_mix", 1, None, 0.5, 1.0, samples_per_epoch=32000),
        ALL,
    ),
    "unicon/cifar10": on_cifar(
        10, 350, PREACT, 0.02, 5e-4, UNICON, divide_mix("unicon", 10, 30.0), noise=HALF_OF_ALL, images=FOUR
    ),
    "unicon/cifar100": on_cifar(
        100, 350, PREACT, 0.02, 5e-4, UNICON, divide_mix("unicon", 30, 30.0), noise=HALF_OF_ALL, images=FOUR
    ),
    "unicon/webvision": of_images(
        "WebVisionMini",
        120,
        INCEPTION,
        48,
        0.01,
        1e-4,
        cosine(120, eta_min=0.0),
        divide_mix("unicon", 2, None, 0.5),
        {**FROM_320, **FOUR, "crop": "random", "strong": IMAGENET_POLICY},
    ),
    "unicon/clothing1m": of_images(
        "Clothing1M",
        200,
        RESNET50,
        64,
        0.005,
        1e-3,
        cosine(100, eta_min=0.0),
        divide_mix("unicon", 1, None, 0.5, 1.0, samples_per_epoch=32000),
        {**ALL, **FOUR, "strong": IMAGENET_POLICY},
    ),
}


def elr_plus(momentum, lam, steps=0, alpha=1.0, weigh=False, decay=0.997, ramp=40000, **arguments):
    """History, penalty, mixing, averages."""
    return strategy(
        "elr_plus",
        momentum=momentum,
        lam=lam,
        rampup_steps=steps,
        alpha=alpha,
        weigh_labels=weigh,
        decay=decay,
        decay_steps=ramp,
        **arguments,
    )


ONE = {"views": ["weak"]}
ELR_PLUS = {
    "elr_plus/cifar10": on_cifar(10, 200, PREACT, 0.02, 5e-4, drops(150), elr_plus(0.7, 3.0), images=ONE),
    "elr_plus/cifar100": on_cifar(
        100, 250, PREACT, 0.02, 5e-4, drops(200), elr_plus(0.9, 7.0, steps=40000, weigh=True), images=ONE
    ),
    "elr_plus/webvision": of_images(
        "WebVisionMini",
        100,
        INCEPTION,
        32,
        0.02,
        5e-4,
        drops(50),
        elr_plus(0.7, 3.0, alpha=1.5, ramp=None),
        {"image_size": 227, "resize": 0, "crop": "random", **ONE},
    ),
    "elr_plus/clothing1m": of_images(
        "Clothing1M",
        15,
        RESNET50,
        64,
        0.002,
        1e-3,
        drops(7),
        elr_plus(0.7, 3.0, decay=0.9999, ramp=None, samples_per_epoch=192000),
        {"batches_per_epoch": None, **ONE},
    ),
}


def strong(magnitude):
    """DISC's two views; its RandAugment is near ours."""
    arguments = {"policy": "rand", "num_ops": 2, "magnitude": magnitude, "cutout": 0.15}
    return {
        "views": ["weak", "strong"],
        "strong": {"class_path": "lightning_noisy.data.StrongAugment", "init_args": arguments},
    }


def disc(warmup, momentum=0.99, hard_weight=1.0):
    """Warm-up, thresholds, weight of hard samples."""
    return strategy("disc", warmup_epochs=warmup, momentum=momentum, hard_weight=hard_weight)


REFLECT = {"padding_mode": "reflect"}
DISC = {  # without momentum
    **{
        f"disc/cifar{classes}": on_cifar(
            classes,
            200,
            "ResNet18",
            0.1,
            1e-3,
            drops(80, 160),
            disc(20),
            noise=SYMMETRIC,
            images={**strong(magnitude), **REFLECT},
            sgd={},
        )
        for classes, magnitude in ((10, 5), (100, 10))
    },
    "disc/animal10n": of_images(
        "Animal10N",
        120,
        "VGG19BN",
        64,
        0.05,
        5e-4,
        drops(50, 80),
        disc(10),
        {"padding": 8, **REFLECT, **CLOTHES, **strong(10)},
        sgd={},
    ),
    "disc/webvision": of_images(
        "WebVisionMini",
        100,
        INCEPTION,
        32,
        0.1,
        5e-4,
        drops(60, 80),
        disc(15),
        {"image_size": 224, "resize": 256, "crop": "random", "padding": 28, **REFLECT, **CLOTHES, **strong(10)},
        sgd={},
    ),
    "disc/clothing1m": of_images(
        "Clothing1M",
        100,
        RESNET50,
        32,
        0.01,
        5e-4,
        drops(50, 80),
        disc(10, 0.95),
        {"batches_per_epoch": 1000, "padding": 28, **REFLECT, **strong(10)},
        sgd={},
    ),
}


def sed(threshold, weight, decay, consistency=1.0):
    """The momenta and the teacher's."""
    return strategy(
        "sed",
        threshold_momentum=threshold,
        weight_momentum=weight,
        teacher_decay=decay,
        consistency=consistency,
    )


STRONG = {"views": ["weak", "strong"], **LIKE_IMAGENET}


def of_sed(lr, final_lr, strategy, **data):
    """The rates of its scripts."""
    schedule = {"CosineDecay": {"end_epoch": 100, "start_epoch": 20, "final_lr": final_lr}}
    given = {"images": STRONG, "sgd": NESTEROV, "strategy": strategy, **data}
    return Settings(100, CNN7, 128, lr, 5e-4, schedule, CROSS_ENTROPY, {}, **given)


MOSTLY = {"noise": {"SymmetricNoise": {"rate": 0.8}}, "data": "CIFAR100DataModule"}
OUTSIDERS = {"noise": OPEN_SET, "data": "CIFAR80NODataModule"}


def sure(epochs, start, constant_lr, net, batch, lr, data, images=None, **averages):
    """SAM, a cosine to a constant rate, averaged weights."""
    schedule = {"total_epochs": epochs, "start_epoch": start, "constant_lr": constant_lr}
    return Settings(
        epochs,
        net,
        batch,
        lr,
        5e-4,
        {"CosineToConstant": schedule},
        CROSS_ENTROPY,
        {"AveragedWeights": {"start_epoch": start, **averages}},
        noise={},
        head={"CosineHead": {}},
        data=data,
        images=images or {},
        optimizer="SAM",
        strategy=strategy("sure"),
    )


ROWS = {
    **{f"co_teaching/cifar{classes}": small_loss("co_teaching", "CNN9", classes) for classes in (10, 100)},
    "co_teaching_plus/cifar10": small_loss("co_teaching_plus", "LeNet", 10, warmup_epochs=20),
    "co_teaching_plus/cifar100": small_loss("co_teaching_plus", "CNN7", 100, warmup_epochs=5),
    "jocor/cifar10": small_loss("jocor", "CNN7", 10, agreement=0.9),
    "jocor/cifar100": small_loss("jocor", "CNN7", 100, agreement=0.85),
    "decoupling/cifar10": by_adam(10, "ResNet18", {"Decoupling": {"warmup_epochs": 0}}, images=ONE),
    "co_ldl/cifar100": CO_LDL,
    "co_ldl/cifar80no": CO_LDL._replace(**OUTSIDERS),
    **{
        f"sprl/cifar{classes}": by_adam(
            classes,
            "ResNet18",
            strategy("sprl", warmup_epochs=20, resistance=10.0, ramp_epochs=None),
            images={"normalization": "none"},
        )
        for classes in (10, 100)
    },
    **JO_SRC,
    **SEMI_SUPERVISED,
    **ELR_PLUS,
    **DISC,
    "sed/cifar100": of_sed(0.01, 5e-5, sed(0.999, 0.99, 0.95), **MOSTLY),
    "sed/cifar80no": of_sed(0.05, 5e-4, sed(0.95, 0.85, 0.99), **OUTSIDERS),
    "sure/animal10n": sure(200, 120, 0.05, {"VGG19BN": {"dropout": 0.2}}, 128, 0.1, "Animal10NDataModule"),
    "sure/clothing1m": sure(
        100,
        60,
        0.005,
        RESNET50,
        32,
        0.01,
        "Clothing1MDataModule",
        {"crop": "resized", "batches_per_epoch": 1000, **IMAGENET},
        refresh_batches=1000,
    ),
}
