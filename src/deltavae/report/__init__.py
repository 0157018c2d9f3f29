"""The page of one or several runs: what was measured, what it means, and what the models draw."""

from deltavae.report.page import build_report
from deltavae.report.samples import Samples, draw_samples

__all__ = ["Samples", "build_report", "draw_samples"]
