"""What the papers say of their training, row by row."""

from tests.papers import dal, dcm, gss, nal

ROWS = {**dal.ROWS, **dcm.ROWS, **gss.ROWS, **nal.ROWS}
"""Path under configs, without suffix -> settings."""
