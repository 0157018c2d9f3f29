"""The first study: the paper's figures, from closed forms."""

import csv
import io

import pytest

from deltavae.studies.rate_vs_alpha import RateVsAlpha


@pytest.fixture(scope="module")
def findings():
    study = RateVsAlpha()
    assert study.cells("cpu") == []
    return study.findings([], "cpu")


def rows(table):
    return list(csv.DictReader(io.StringIO(table.csv())))


def test_rates_are_the_golden_values(findings):
    table = rows(findings.tables["printed-by-the-paper"])
    computed = [float(row["δ computed here"]) for row in table]
    assert computed == pytest.approx([0.144, 0.511, 1.164, 79.447, 666.629], abs=6e-4)
    printed = [row["δ printed by the paper"] for row in table]
    assert printed == ["", "", "1.17", "79.44", "666.6"]
    for row in table:
        if row["δ printed by the paper"]:
            difference = float(row["δ computed here"]) - float(row["δ printed by the paper"])
            assert abs(difference) < 0.03


def test_one_channel_commits_more_with_n_and_alpha(findings):
    table = rows(findings.tables["committed-rate"])
    assert [float(row["α"]) for row in table] == [0.5, 0.8, 0.95, 0.99]
    nats = [[float(row[f"n = {n}, nats"]) for n in (2, 8, 16)] for row in table]
    # n = 2 at α = 0.8: −½ ln 0.36; every further step adds ½ ln 1.64.
    assert nats[1] == pytest.approx(
        [0.5108256, 0.5108256 + 3 * 0.4946962, 0.5108256 + 7 * 0.4946962]
    )
    assert all(row == sorted(row) for row in nats)
    assert nats == sorted(nats)


def test_figure_has_the_paper_s_panels(findings):
    figure = findings.figures["rate-vs-alpha"]
    assert [axes.get_xlabel() for axes in figure.axes[:5]] == ["α", "z₁", "z₁", "z₁", "z₁"]
