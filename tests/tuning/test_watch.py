"""What a trial says of itself, and when it stops."""

from types import SimpleNamespace

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.tuning.watch import TrialWatch


class Rising(BoringModel):
    """Accuracy .1 in the first epoch, .2 in the second, ..."""

    def validation_step(self, batch, batch_idx):
        self.log("val/acc", (self.current_epoch + 1) / 10)


def run(tmp_path, watch):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    short = {"max_epochs": 4, "limit_train_batches": 1, "limit_val_batches": 1, "enable_checkpointing": False}
    trainer = Trainer(default_root_dir=tmp_path, **quiet, **short)
    watch.attach(trainer)
    trainer.fit(Rising())
    trainer.validate(trainer.lightning_module, verbose=False)
    return trainer


@pytest.mark.parametrize(("stop_at", "epochs"), [(0, 1), (2, 3), (3, 4), (9, 4)])
def test_each_epoch_is_reported_and_a_run_is_stopped_before_its_last(tmp_path, stop_at, epochs):
    told = []

    def report(epoch, score):
        told.append((epoch, score))
        return epoch == stop_at

    watch = TrialWatch(report, "val/acc", prunes=True)
    assert not watch.began
    trainer = run(tmp_path, watch)
    assert told == [(epoch, pytest.approx((epoch + 1) / 10)) for epoch in range(epochs)]
    assert trainer.current_epoch == epochs
    assert watch.began
    assert watch.stopped == (epochs < 4)


def test_an_accuracy_that_is_not_logged_ends_the_first_epoch(tmp_path):
    watch = TrialWatch(lambda epoch, score: pytest.fail("reported"), "val/acc_top5", prunes=False)
    with pytest.raises(NoisyLabelError, match=r"^Expected argument `monitor` to be a noisy validation accuracy \(v"):
        run(tmp_path, watch)


def test_a_trainer_of_several_processes_is_not_watched_nor_stopped():
    trainer = SimpleNamespace(world_size=2, callbacks=[])
    TrialWatch(lambda epoch, score: False, "val/acc", prunes=False).attach(trainer)
    assert trainer.callbacks == []
    with pytest.raises(NoisyLabelError, match=r"^`--pruner` stops runs of one process: give `--trainer\.devices 1`"):
        TrialWatch(lambda epoch, score: False, "val/acc", prunes=True).attach(trainer)
