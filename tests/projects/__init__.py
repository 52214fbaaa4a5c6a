"""Modules of other projects, untouched, with the callbacks of this package: what is importable is run."""
