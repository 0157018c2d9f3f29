"""The encoder ablation takes its differences seed by seed."""

import pytest

from deltavae.studies.encoder_ablation import EncoderAblation
from study_results import result


def test_encoder_ablation_takes_differences_seed_by_seed():
    results = [
        result(
            cell,
            elbo_bpd=3.0 + cell.labels["seed"] - 0.1 * (cell.labels["encoder"] == "anti-causal"),
            aux_elbo_bpd=3.0,
            rate_bits=19.6,
            aux_rate_bits=9.8,
        )
        for cell in EncoderAblation().cells("cpu")
    ]
    findings = EncoderAblation().findings(results, "cpu")
    rows = [row for row in findings.tables["differences"].rows if row[0] == "AR(1) prior"]
    assert len(rows) == 4
    for row in rows:
        assert row[2].value == pytest.approx(-0.1)
        assert row[2].error == pytest.approx(0.0, abs=1e-12)
    assert "(0.100)" in findings.tables["bounds"].markdown()
    assert EncoderAblation().findings(results[:1], "cpu").tables["bounds"].rows
