"""Which labels are probably wrong: as a table, a page, and files for other tools."""

from lightning_noisy.reports.exports import write_cleanlab, write_fiftyone, write_label_studio
from lightning_noisy.reports.label_issues import LabelIssues, NoiseRate
from lightning_noisy.reports.page import write_page
from lightning_noisy.reports.table import write_table

__all__ = [
    "LabelIssues",
    "NoiseRate",
    "write_cleanlab",
    "write_fiftyone",
    "write_label_studio",
    "write_page",
    "write_table",
]
