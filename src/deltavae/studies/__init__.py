"""The paper's tables and figures, one study each.

`base` says what a study is, `engine` runs its cells, `output` writes its page. A study is a class
in a module of its own; this list names those that come with the package. Nothing heavy is
imported here: the command line shows the list at once.
"""

from typing import NamedTuple


class Listed(NamedTuple):
    """Where a study is, and what it shows in a few words."""

    class_path: str
    summary: str


STUDIES = {
    "rate-vs-alpha": Listed(
        "deltavae.studies.rate_vs_alpha.RateVsAlpha",
        "the committed rate against α, and prior and posterior for n = 2; trains nothing",
    ),
    "rate-distortion": Listed(
        "deltavae.studies.rate_distortion.RateDistortion",
        "the δ-VAE and its rivals in the plane of rate and distortion",
    ),
    "encoder-ablation": Listed(
        "deltavae.studies.encoder_ablation.EncoderAblation",
        "anti-causal against non-causal encoder (Table 6)",
    ),
    "density": Listed(
        "deltavae.studies.density.Density",
        "bits/dim beside the same decoder without latents (Table 1)",
    ),
    "information": Listed(
        "deltavae.studies.information.Information",
        "which settings spend a committed rate on information",
    ),
    "latents-against-decoder": Listed(
        "deltavae.studies.latents_against_decoder.LatentsAgainstDecoder",
        "whether latents beat their own decoder at equal time",
    ),
    "utilisation": Listed(
        "deltavae.studies.utilisation.Utilisation",
        "what the latents are used for: probes, likeness of decodings, rows, pictures",
    ),
    "pairs": Listed(
        "deltavae.studies.pairs.Pairs",
        "pairs of posterior and prior at the same committed rate",
    ),
    "collapse": Listed(
        "deltavae.studies.collapse.Collapse",
        "why posteriors collapse: the linear VAE's closed form, the course of trainings",
    ),
}


def listing() -> str:
    """Return the studies, a line each: name and summary."""
    width = max(map(len, STUDIES))
    return "\n".join(f"{name:<{width}}  {study.summary}" for name, study in STUDIES.items())
