"""Pairs of posterior and prior are compared with AR(1), seed by seed."""

from dataclasses import replace

import pytest

from deltavae.studies.pairs import RATE, REFERENCE, Pairs
from study_results import result


def test_pairs_are_compared_with_ar1_seed_by_seed_on_held_out_images():
    gains = {"grid": 0.3, "tree": -0.2, "z = 0": 0.1}
    results = []
    for cell in Pairs().cells("cpu"):
        pair, seed = cell.labels["pair"], cell.labels["seed"]
        bound = 3.0 + seed - gains.get(pair, 0.0) + 0.001 * seed * (pair != REFERENCE)
        figures = {"elbo_bpd": bound, "committed_rate_bits": 0.0, "distortion_bits": 600.0}
        if pair != "z = 0":
            spent = {"tree": 0.5}.get(pair, 5.0)
            figures |= {"distortion_bits": 596.0 + seed / 10, "aux_rate_bits": spent}
            floor = 0.0 if pair.startswith("batch") else RATE["cpu"]
            figures |= {"aux_elbo_bpd": bound + 0.5, "committed_rate_bits": floor}
            figures |= {"mutual_information_bits": 7.0, "mutual_information_cap_bits": 13.3}
        held_out = dict.fromkeys(("elbo_bpd", "aux_elbo_bpd"), bound)
        results.append(replace(result(cell, **figures), val=held_out))
    findings = Pairs().findings(results, "cpu")
    table = findings.tables["pairs"]
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert rows[REFERENCE]["− AR(1)"] is rows[REFERENCE]["verdict"] is None
    for pair, gain in gains.items():
        assert rows[pair]["− AR(1)"].value == pytest.approx(0.001 - gain)
        assert rows[pair]["verdict"] == ("worse" if gain < 0 else "better")
    assert rows["quantised"]["verdict"] == "level"
    assert rows["grid"]["saved, bits"].value == pytest.approx(3.9)
    assert rows["grid"]["saved per aux bit"] == pytest.approx(3.9 / 5)
    assert rows["tree"]["saved per aux bit"] is rows["z = 0"]["saved, bits"] is None
    assert rows["grid"]["I/δ ≥"] == pytest.approx(0.5)
    assert rows["batch-normalised μ"]["I/δ ≥"] is rows["z = 0"]["I/δ ≥"] is None
    assert rows["z = 0"]["auxiliary bound"].value == pytest.approx(3.0 + 1 - 0.1 + 0.001)
    assert rows["tree"]["auxiliary bound"].value == pytest.approx(3.5 + 1 + 0.2 + 0.001)
    assert set(findings.figures) == {"pairs"}
    assert Pairs().findings(results[:1], "cpu").tables["pairs"].rows
