"""Evaluation: bounds, information, probes, all of them as one flat set of metrics; uses of z."""

from deltavae.evaluation.bounds import ImportanceBounds, draw_terms, importance_bounds
from deltavae.evaluation.encodings import draw_latents, encode_images
from deltavae.evaluation.evaluate import Metrics, evaluate, warnings
from deltavae.evaluation.information import active_units, mutual_information
from deltavae.evaluation.probe import linear_probe, nearest_neighbours
from deltavae.evaluation.utilisation import (
    Ablation,
    DecodingSimilarity,
    decode_repeatedly,
    decoding_similarity,
    latent_ablation,
)

__all__ = [
    "Ablation",
    "DecodingSimilarity",
    "ImportanceBounds",
    "Metrics",
    "active_units",
    "decode_repeatedly",
    "decoding_similarity",
    "draw_latents",
    "draw_terms",
    "encode_images",
    "evaluate",
    "importance_bounds",
    "latent_ablation",
    "linear_probe",
    "mutual_information",
    "nearest_neighbours",
    "warnings",
]
