import pytest
from matplotlib.figure import Figure

from lightning_noisy.cli import main
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.requirements import check_command_line

_SILENT = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]


def _too_old():
    try:
        check_command_line()
    except NoisyLabelError as error:
        return str(error)
    return ""


needs_command_line = pytest.mark.skipif(bool(_too_old()), reason=_too_old())


def quiet(subcommand, config, *arguments):
    """Run a subcommand without progress bar and model summary."""
    return main([subcommand, "--config", str(config), *_SILENT, *map(str, arguments)])


def isolate(monkeypatch, folder, drawn=False):
    """Work in ``folder``; what a run sets in the environment is undone at the end of the test.

    Figures stay blank unless they are to be ``drawn``, which takes most of the time of a small run.
    """
    if not drawn:
        monkeypatch.setattr(Figure, "draw", lambda figure, renderer: None)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["lightning-noisy"])
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    monkeypatch.setenv("PL_SEED_WORKERS", "0")


def command_line_error(capsys, config, *arguments, subcommand="fit"):
    """The one line with which a run refuses its input."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        quiet(subcommand, config, *arguments)
    printed = capsys.readouterr().err
    assert stop.value.code == 2
    assert "Traceback" not in printed
    lines = [line for line in printed.splitlines() if "error" in line.lower()]
    assert len(lines) == 1, printed
    assert lines[0].startswith("lightning-noisy: error: ")
    assert printed.splitlines()[-1] == lines[0]
    return lines[0].removeprefix("lightning-noisy: error: ")
