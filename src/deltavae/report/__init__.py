"""The page of one or several runs: what was measured, what it means, and what the models draw."""

from deltavae.report.page import build_report
from deltavae.report.samples import Samples, Sizes, draw_samples

__all__ = ["Samples", "Sizes", "build_report", "draw_samples"]
