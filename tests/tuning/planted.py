"""A ``fit`` whose accuracies are planted: it trains nothing, and does what a Trainer would."""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import torch


def joined(arguments):
    """Arguments of the form ``--name value`` as ``--name=value``."""
    words = iter(arguments)
    return [word if "=" in word else f"{word}={next(words)}" for word in words]


def searched(arguments):
    """The values of ``a`` and ``b``."""
    last = dict(word.split("=", 1) for word in joined(arguments))  # the last of a name counts
    return float(last["--a"]), float(last.get("--b", 0))


def hill(a, b):
    return 0.5 - abs(a - 2) / 10 + b / 100


class Planted:
    """Accuracies are a function of the values of ``a`` and ``b``; the clean ones are the opposite.

    Args:
        score: The function.
        stop_at: The call that is interrupted.
    """

    def __init__(self, score=hill, stop_at=None):
        self.score, self.stop_at, self.calls = score, stop_at, []

    def __call__(self, arguments, attach):
        if len(self.calls) == self.stop_at:
            raise KeyboardInterrupt
        self.calls.append([word for word in arguments if not word.startswith("--trainer.logger")])
        last = dict(word.split("=", 1) for word in joined(arguments))
        score = torch.tensor(self.score(*searched(arguments)))
        noisy = {"val/acc": score, "val/acc_top5": 1 - score} if last["--data.val_fraction"] != "0" else {}
        metrics = {"test/acc": 1 - score, "val/loss": 1 - score, **noisy}
        folder = Path(last["--trainer.logger.save_dir"], last["--trainer.logger.name"])
        return SimpleNamespace(callback_metrics=metrics, loggers=[None], log_dir=f"{folder}/")


class Epochs:
    """A run of epochs, each with an accuracy, that a callback may stop.

    Args:
        curve: Values of ``a`` and ``b`` -> the accuracies.
        errors: Values of ``a`` -> the error of the second epoch.
    """

    def __init__(self, curve, errors=None):
        self.curve, self.errors, self.calls = curve, errors or {}, []

    def __call__(self, arguments, attach):
        values = searched(arguments)
        self.calls.append(values)
        accuracies = self.curve(*values)
        trainer = SimpleNamespace(world_size=1, callbacks=[], loggers=[], log_dir=None, callback_metrics={})
        trainer.sanity_checking, trainer.state = False, SimpleNamespace(fn="fit")
        trainer.max_epochs, trainer.should_stop = len(accuracies), False
        attach(trainer)
        for trainer.current_epoch, accuracy in enumerate(accuracies):
            for callback in trainer.callbacks:
                callback.on_train_batch_end(trainer)
            if trainer.current_epoch == 1 and values[0] in self.errors:
                raise self.errors[values[0]]
            trainer.callback_metrics["val/acc"] = torch.tensor(accuracy)
            for callback in trainer.callbacks:
                callback.on_validation_end(trainer, None)
            if trainer.should_stop:
                break
        return trainer


class Recorded(Planted):
    """Planted accuracies for workers that are processes: what they run stands in a file.

    Args:
        path: The file; a line for each run.
        seconds: How long a run takes.
        blocks_at: The value of ``a`` whose run never ends.
    """

    def __init__(self, path, seconds=0.02, blocks_at=None):
        super().__init__()
        self.path, self.seconds, self.blocks_at = Path(path), seconds, blocks_at

    def __call__(self, arguments, attach):
        final = arguments[-1] == "0"
        with self.path.open("a") as file:
            file.write(json.dumps([os.getpid(), *searched(arguments), final]) + "\n")
        time.sleep(600 if searched(arguments)[0] == self.blocks_at else self.seconds)
        return super().__call__(arguments, attach)

    def runs(self):
        """Process, values, and whether it was on all data, of each run."""
        return [tuple(json.loads(line)) for line in self.path.read_text().splitlines()] if self.path.exists() else []
