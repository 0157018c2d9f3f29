"""Which settings spend a committed rate: verdicts on held-out images, Holm's correction."""

from collections import Counter
from dataclasses import replace

import pytest

from deltavae.studies.information import Information
from deltavae.studies.information_settings import ALONE, ZERO, again, default, reference, settings
from deltavae.studies.settings import DATA
from deltavae.studies.statistics import mean
from study_results import BUDGETS, result, rows_of


def information_results(gain):
    """Settings are better than their reference by `gain` on held-out images, by half on test."""
    results = []
    for cell in Information().cells("cpu"):
        seed, setting = cell.labels["seed"], cell.labels["setting"]
        level = 10.0 * ("dropout" in cell.labels["decoder"]) + seed + 0.001 * seed**2
        own = 0.0 if setting == reference("cpu") else gain + 0.0001 * seed
        bounds = [3.0 + level - own, 3.0 + level - own / 2]
        if setting in (ALONE, ZERO):
            one = result(cell, elbo_bpd=bounds[1])
            results.append(replace(one, val={"elbo_bpd": bounds[0]}))
            continue
        figures = {"aux_elbo_bpd": bounds[1], "mutual_information_bits": 4.0, "rate_bits": 11.0}
        one = result(cell, **figures, aux_rate_bits=5.0, elbo_bpd=9.0)
        results.append(replace(one, val={"aux_elbo_bpd": bounds[0], "elbo_bpd": 9.0}))
    return results


def test_information_is_judged_on_held_out_images_within_a_kind_of_decoder():
    findings = Information().findings(information_results(0.5), "cpu")
    for table, count in zip(findings.tables.values(), (3, 1), strict=True):
        rows = rows_of(table)
        kinds = dict.fromkeys(kind for kind, _ in rows)
        assert len(kinds) == count
        for kind in kinds:
            assert rows[kind, reference("cpu")]["difference, held out"] is None
            alone = rows[kind, ALONE]
            assert alone["difference, held out"].value == pytest.approx(-0.5, abs=1e-3)
            assert alone["difference, test"].value == pytest.approx(-0.25, abs=1e-3)
        tried = [row for (_, setting), row in rows.items() if setting != reference("cpu")]
        fewest = [row for row in tried if row["seeds"] == 3]
        largest = mean([0.5, 0.5001, 0.5002]).p_value
        assert fewest[0]["p (Holm)"] == pytest.approx(len(fewest) * largest, rel=1e-6)
        assert {row["verdict"] for row in tried} == {"better"}
        to_default = rows["GatedPixelCNN", reference("cpu")]["− default"].value
        assert to_default == pytest.approx(0.5, abs=1e-3)
        assert rows["GatedPixelCNN", "2 channels, innovations"]["− default"] is None
        assert rows["GatedPixelCNN", ALONE]["− default"].value == pytest.approx(0, abs=1e-3)
        assert rows["GatedPixelCNN", "plain units"]["I/δ ≥"] == pytest.approx(0.4)
    assert "worse: none." in findings.text
    assert "I(x;z) ≥ 0.25 δ: 4 channels (GatedPixelCNN)" in findings.text
    assert "I(x;z) ≥ 0.5 δ: none." in findings.text


def test_information_without_held_out_images_is_judged_on_test_and_says_so():
    results = [replace(one, val={}) for one in information_results(-0.5)]
    findings = Information().findings(results, "cpu")
    for table in findings.tables.values():
        tried = [row for (_, name), row in rows_of(table).items() if name != reference("cpu")]
        assert {row["verdict"] for row in tried} == {"worse"}
        assert all(row["held out"] is None for row in tried)
        assert "none were held out" in table.caption
    assert "judged on test images" in findings.text
    one_seed = [one for one in results if one.cell.labels["seed"] == 0]
    assert "no verdict" in Information().findings(one_seed, "cpu").text


def test_the_numbers_of_channels_have_twice_the_seeds_on_cifar():
    counts = Counter(
        (cell.labels["data"], cell.labels["decoder"], cell.labels["setting"])
        for cell in Information().cells("cpu")
    )
    assert {which for which, count in counts.items() if count == 6} == again("cpu")
    assert set(counts.values()) == {3, 6}
    assert {setting for _, _, setting in again("cpu")} == {
        ALONE,
        ZERO,
        "1 channel",
        "2 channels",
        "2 channels, plain units",
        "2 channels, innovations",
        "2 channels, innovations, plain units",
        "4 channels",
        "8 channels",
        "4 channels, ladder",
    }


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_default_of_fit_is_tried(budget):
    for data in DATA[budget]:
        tried = {setting for _, setting in settings(budget, data)}
        assert default(budget, data) in tried


@pytest.mark.parametrize("budget", BUDGETS)
def test_every_kind_of_decoder_has_its_reference_and_stands_alone(budget):
    cells = [cell for cell in Information().cells(budget) if cell.labels["seed"] == 0]
    assert len({cell.key for cell in cells}) == len(cells)  # no setting is another one's copy
    for kind in {cell.labels["decoder"] for cell in cells}:
        for data in {cell.labels["data"] for cell in cells}:
            of_kind = {
                cell.labels["setting"]: cell.options["decoder"]
                for cell in cells
                if (cell.labels["decoder"], cell.labels["data"]) == (kind, data)
            }
            if of_kind:
                assert of_kind[reference(budget)] == of_kind[ALONE]
