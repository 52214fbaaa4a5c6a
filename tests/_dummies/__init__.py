"""Small stand-ins for what tests cannot have."""

from tests._dummies.cifar10 import DummyCIFAR10
from tests._dummies.command_line import command_line_error, isolate, quiet

__all__ = ["DummyCIFAR10", "command_line_error", "isolate", "quiet"]
