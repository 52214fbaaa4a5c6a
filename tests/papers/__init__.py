"""What the papers say of their training, row by row."""

from tests.papers import dal, dcm, gjs, gss, nal, pmd, selc

ROWS = {**dal.ROWS, **dcm.ROWS, **gjs.ROWS, **gss.ROWS, **nal.ROWS, **pmd.ROWS, **selc.ROWS}
"""Path under configs, without suffix -> settings."""
