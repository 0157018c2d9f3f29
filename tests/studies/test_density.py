"""Density: bounds beside the exact figure, measured beside printed."""

from deltavae.studies.density import Density
from study_results import result


def test_density_compares_with_the_exact_figure_of_the_same_seed():
    results = []
    for cell in Density().cells("cpu"):
        alone = cell.labels["method"] == "z = 0"
        figures = {"elbo_bpd": 3.0 + cell.labels["seed"] + (0.0 if alone else 0.2)}
        if not alone:
            figures |= {"aux_elbo_bpd": figures["elbo_bpd"] - 0.15, "aux_iwae_bpd": None}
        results.append(result(cell, **figures))
    findings = Density().findings(results, "cpu")
    assert "≤ 2.83" in findings.tables["printed-by-the-paper"].markdown()
    assert "2.83" not in findings.tables["measured"].markdown()
    assert set(findings.figures) == {"differences"}
