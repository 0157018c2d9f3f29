"""Evaluation: bounds, information, linear probe, and all of them as one flat set of metrics."""

from deltavae.evaluation.bounds import ImportanceBounds, draw_terms, importance_bounds
from deltavae.evaluation.encodings import encode_images
from deltavae.evaluation.evaluate import Metrics, evaluate, warnings
from deltavae.evaluation.information import active_units, mutual_information
from deltavae.evaluation.probe import linear_probe

__all__ = [
    "ImportanceBounds",
    "Metrics",
    "active_units",
    "draw_terms",
    "encode_images",
    "evaluate",
    "importance_bounds",
    "linear_probe",
    "mutual_information",
    "warnings",
]
