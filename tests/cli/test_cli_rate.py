"""`deltavae rate`: the golden numbers, round trips, and what it refuses."""

import json
import math

import pytest
from command_line import run


def rates(*words):
    ended = run("rate", *words, "--json")
    assert ended.status == 0, ended.err
    assert ended.err == ""
    return json.loads(ended.out)


@pytest.mark.parametrize(
    ("d", "alpha", "bits"), [(8, "0.5:0.95", 79.447), (64, "0.5:0.99", 666.629)]
)
def test_ladder_commits_the_published_rate(d, alpha, bits):
    found = rates("--n", 32, "--d", d, "--alpha", alpha)
    assert round(found["committed_rate_bits"], 3) == bits
    assert found["committed_rate_nats"] == pytest.approx(bits * math.log(2), abs=1e-3)
    low, high = map(float, alpha.split(":"))
    assert found["alpha"] == pytest.approx(
        [low + (high - low) * k / (d - 1) for k in range(d)], rel=1e-12
    )


def test_rate_of_one_channel_by_hand():
    # (n − 2)/2 ln(1 + α²) − ½ ln(1 − α²), and σ² = 1 − α² at the ends, (1 − α²)/(1 + α²) inside.
    found = rates("--n", 5, "--d", 1, "--alpha=-0.6")
    by_hand = 1.5 * math.log(1.36) - 0.5 * math.log(0.64)
    assert found["committed_rate_nats"] == pytest.approx(by_hand, rel=1e-12)
    assert found["minimiser_sigma_ends"] == pytest.approx([0.8], rel=1e-12)
    assert found["marginal_information"] == pytest.approx([6.08 / (0.4 * 3.2)], rel=1e-12)
    assert found["minimiser_sigma_inside"] == pytest.approx([math.sqrt(0.64 / 1.36)], rel=1e-12)


def test_bits_and_nats_lead_back_to_themselves():
    in_bits = rates("--n", 32, "--d", 8, "--delta-bits", 80)
    in_nats = rates("--n", 32, "--d", 8, "--delta-nats", repr(80 * math.log(2)))
    assert in_bits["committed_rate_bits"] == pytest.approx(80, rel=1e-9)
    assert in_bits["alpha"] == pytest.approx(in_nats["alpha"], rel=1e-12)
    assert len(set(in_bits["alpha"])) == 1
    again = rates("--n", 32, "--d", 8, "--alpha", repr(in_bits["alpha"][0]))
    assert again["committed_rate_bits"] == pytest.approx(80, rel=1e-9)


def test_ladder_is_scaled_until_it_commits_the_rate():
    found = rates("--n", 32, "--d", 8, "--alpha", "0.5:0.95", "--delta-bits", 40)
    assert found["committed_rate_bits"] == pytest.approx(40, rel=1e-9)
    scale = [math.atanh(a) / math.atanh(0.5 + 0.45 * k / 7) for k, a in enumerate(found["alpha"])]
    assert scale == pytest.approx([scale[0]] * 8, rel=1e-9)
    assert scale[0] < 1


def test_table_for_people_has_the_numbers_of_the_json():
    found = rates("--n", 32, "--d", 2, "--delta-bits", 20)
    shown = run("rate", "--n", 32, "--d", 2, "--delta-bits", 20)
    assert shown.status == 0
    assert "20.000000 bits = 13.862944 nats (n = 32, d = 2)" in shown.out
    assert shown.out.count(f"{found['alpha'][0]:.9f}") == 2
    assert f"{found['minimiser_sigma_inside'][0]:.9f}" in shown.out
    assert f" {found['marginal_information'][0]:.1f}\n" in shown.out
    assert "–" in run("rate", "--n", 2, "--d", 1, "--alpha", 0.5).out  # nothing inside two steps


def test_negative_ladder_needs_no_equals_sign():
    found = rates("--n", 4, "--d", 2, "--alpha", "-0.9:-0.5")
    assert found["alpha"] == [-0.9, -0.5]
    assert found == rates("--n", 4, "--d", 2, "--alpha=-0.9:-0.5")


def test_options_from_a_file(tmp_path):
    file = tmp_path / "rate.yaml"
    file.write_text('n: 32\nd: 8\nalpha: "0.5:0.95"\n')
    assert rates("--config", file) == rates("--n", 32, "--d", 8, "--alpha", "0.5:0.95")
    assert rates("--config", file, "--d", 4)["d"] == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--delta-bits", "0"), "--delta-bits: must be above 0, got 0"),
        (("--delta-bits", "-3"), "--delta-bits: must be above 0, got -3"),
        (("--delta-bits", "nan"), "--delta-bits: must be above 0, got nan"),
        (("--delta-bits", "inf"), "--delta-bits: must be above 0, got inf"),
        (("--delta-bits", "many"), "--delta-bits: must be a number above 0, got many"),
        (("--delta-nats", "-1"), "--delta-nats: must be above 0, got -1"),
        (("--alpha", "1"), "--alpha must be A or LO:HI with every |alpha| < 1, LO ≤ HI, got 1"),
        (("--alpha", "-1:0.5"), "with every |alpha| < 1, LO ≤ HI, got -1:0.5"),
        (("--alpha", "0.9:0.5"), "with every |alpha| < 1, LO ≤ HI, got 0.9:0.5"),
        (("--alpha", "0.1:0.2:0.3"), "--alpha must be A or LO:HI"),
        (("--alpha", "high"), "--alpha must be A or LO:HI"),
        ((), "give --delta-bits, --delta-nats or alpha"),
        (("--delta-bits", "1", "--delta-nats", "1"), "--delta-bits and --delta-nats: give one"),
        (("--n", "0", "--alpha", "0.5"), "--n: must be at least 1, got 0"),
        (("--d", "0", "--alpha", "0.5"), "--d: must be at least 1, got 0"),
        (("--d", "2.5", "--alpha", "0.5"), "--d: must be a whole number at least 1, got 2.5"),
        (("--n", "1", "--delta-bits", "3"), "must be at least 2 to commit a rate, got 1"),
    ],
)
def test_wrong_use_is_one_line(words, message):
    ended = run("rate", "--n", 32, "--d", 8, *words)
    assert ended.status == 2
    assert message in ended.error
    assert ended.err.count("\n") == 1
    assert ended.out == ""


@pytest.mark.parametrize("ladder", [(), ("--alpha", "0.5:0.9")])
def test_rate_out_of_reach_names_the_smallest_d_that_carries_it(ladder):
    ended = run("rate", "--n", 32, "--d", 8, "--delta-bits", 1000, *ladder)
    assert ended.status == 2
    assert "--delta-bits=1000.0" in ended.error
    smallest = int(ended.error.rpartition(" ")[2])
    for d, status in ((smallest - 1, 2), (smallest, 0)):
        assert run("rate", "--n", 32, "--d", d, "--delta-bits", 1000, *ladder).status == status
