"""The command line: ``lightning-noisy {fit,validate,test,predict,audit,report,tune,compare,embed,doctor,recipes}``."""

from lightning_noisy.cli.command_line import main, run

__all__ = ["main", "run"]
