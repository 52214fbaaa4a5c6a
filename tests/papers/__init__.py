"""What the papers say of their training, row by row."""

from tests.papers import dal, dcm, gjs, gss, nal, pmd, selc, strategies

PAPERS = (dal, dcm, gjs, gss, nal, pmd, selc, strategies)
ROWS = {path: settings for paper in PAPERS for path, settings in paper.ROWS.items()}
"""Path under configs, without suffix -> settings."""
