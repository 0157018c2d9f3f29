"""Why posteriors collapse: courses of trainings, and what a committed rate keeps."""

import math
from dataclasses import replace

import pytest

from deltavae.rates import committed_rate
from deltavae.studies.collapse import Collapse
from deltavae.units import nats_to_bits
from study_results import result


@pytest.fixture(scope="module")
def collapse():
    """Findings of made-up courses, and of linear VAEs that are trained."""
    log = {"step": [250.0, 500.0], "val_rate_bits": [1.0, 2.0], "val_active_units": [3.0, None]}
    log["val_mutual_information_bits"] = [0.5, 1.0]
    results = [replace(result(cell), log=log) for cell in Collapse().cells("cpu")]
    return Collapse().findings(results, "smoke")


def test_courses_are_named_by_target_and_show_the_cap(collapse):
    cells = Collapse().cells("cpu")
    betas = {cell.labels["target"] for cell in cells if cell.labels["method"] == "β-VAE"}
    assert betas == {0.03, 0.6}  # a small and a large one
    figure = collapse.figures["training"]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"β-VAE, 0.03 β", "β-VAE, 0.6 β", "δ-VAE, 10 bits", "VAE", "cap"} <= set(names)
    information = next(ax for ax in figure.axes if ax.get_title().startswith("I(x;z)"))
    (cap,) = [line for line in information.lines if line.get_label() == "cap"]
    assert cap.get_ydata()[0] == pytest.approx(math.log2(1000))
    assert "3 seeds" in collapse.text


def test_a_committed_rate_keeps_what_collapses_without_it(collapse):
    table = collapse.tables["committed-rate"]
    below, above = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    threshold = "threshold of λ_1/σ²"
    assert below["λ_1/σ²"] < below[threshold] < above["λ_1/σ²"] < 1.0
    assert below["I(x;z), bits"] == pytest.approx(0.0, abs=1e-5)
    assert below["−ELBO above the optimum, bits"] == pytest.approx(below["δ, bits"], abs=1e-5)
    assert above["I(x;z), bits"] > 1.0
    assert 0.0 < above["−ELBO above the optimum, bits"] < above["δ, bits"] - 0.1
    assert above["δ, bits"] == pytest.approx(nats_to_bits(committed_rate([0.8], 16)))
