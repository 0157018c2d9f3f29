"""`deltavae certify`: what it prints of a pair, its JSON, and what it refuses."""

import json
import math
import re
from inspect import isabstract
from pathlib import Path

import pytest
from command_line import run

from deltavae import latents as pairs
from deltavae.certified import StudentT
from deltavae.cli.parsing import _EPILOGS
from deltavae.latents import AR1, Latents, Matern, MeanFieldPair
from deltavae.units import bits_to_nats

NAMES = sorted(
    name
    for name, kind in vars(pairs).items()
    if isinstance(kind, type) and issubclass(kind, Latents) and not isabstract(kind)
)
OWN = {
    "GaussianMarkov": ("--n", 2, "--latents.precision", "[[0,0,1.0],[1,0,-0.99],[1,1,1.0]]"),
    "Grid": ("--n", 6, "--latents.height", 2, "--latents.width", 3),
    "MeanFieldPair": ("--latents.prior", "Logistic"),
    "Tree": ("--n", 7),
}
LOGISTIC = 0.0095116137  # nats per dimension: there is no knob
RATES = {"Standard": (), "LearnedPrior": (), "MeanFieldPair": ("--delta-nats", 18 * LOGISTIC)}


def figures(*words):
    ended = run("certify", *words, "--json")
    assert ended.status == 0, ended.err
    assert ended.err == ""
    return json.loads(ended.out)


@pytest.mark.parametrize("name", NAMES)
def test_every_pair_is_certified(name):
    rate = RATES.get(name, ("--delta-bits", 3))
    found = figures(name, "--n", 6, "--d", 3, *OWN.get(name, ()), *rate, "--starts", 3)
    assert found["pair"] == name
    assert found["proof"] == getattr(pairs, name).proof or name == "MeanFieldPair"
    assert found["proven"]
    if name == "LearnedPrior":
        assert found["numerical_minimum_bits"] is found["gap_relative"] is None
        assert found["no_search"] == "the rate has no formula to search"
        return
    assert found["no_search"] is None
    floor = found["committed_rate_bits"]
    if name == "BatchNorm":
        assert (floor, found["floor"]) == (0, "mean")
        floor = found["mean_rate_floor_bits"]
    else:
        assert (found["floor"], found["mean_rate_floor_bits"]) == ("example", None)
    wanted = {"Standard": 0.0, "Quantised": 18.0}.get(name, found["asked_rate_bits"])
    assert floor == pytest.approx(wanted, rel=1e-6)
    assert abs(found["gap_relative"]) <= 1e-6
    assert found["numerical_minimum_bits"] == pytest.approx(floor, rel=1e-6, abs=1e-9)
    nats = found["numerical_minimum_nats"]
    assert nats == pytest.approx(bits_to_nats(found["numerical_minimum_bits"]))
    assert (found["interval_bits"] is None) == (name != "MeanFieldPair")
    kind = getattr(pairs, name)
    assert kind(**found["options"]).committed_rate == found["committed_rate_nats"]


def test_options_of_the_pair_and_nats():
    words = ("--n", 6, "--d", 2, "--delta-nats", 4, "--starts", 2)
    found = figures("Matern", *words, "--latents.nu", 2.5)
    assert found["options"] == Matern.from_rate(4.0, 6, 2, nu=2.5).config()
    assert found["committed_rate_nats"] == pytest.approx(4.0, rel=1e-9)
    assert found["asked_rate_bits"] == pytest.approx(found["committed_rate_bits"], rel=1e-9)
    assert found == figures("deltavae.latents.Matern", *words, "--latents.nu=2.5")
    assert figures("Matern", *words)["options"]["nu"] == 1.5
    other = figures("Matern", *words, "--latents.nu", 2.5, "--seed", 1)
    assert other["numerical_minimum_bits"] == pytest.approx(found["numerical_minimum_bits"])


def test_options_from_a_file(tmp_path):
    file = tmp_path / "pair.yaml"
    file.write_text("latents: {class_path: Matern, init_args: {nu: 2.5}}\nn: 4\nd: 1\n")
    found = figures("--config", file, "--delta-bits", 2, "--starts", 1)
    assert found["options"]["nu"] == 2.5


def lines(ended):
    """Heading → text, as the table has them."""
    assert (ended.status, ended.err) == (0, "")
    rows = re.split(r"^(?=\S)", ended.out, flags=re.MULTILINE)[1:]
    pairs_of = (re.split(r" {2,}", " ".join(row.split("\n", 1)[0:1]), maxsplit=1) for row in rows)
    return {heading.strip(): text.strip() for heading, text in pairs_of}


def test_the_table_says_it_in_words():
    ended = run("certify", "AR1", "--n", 8, "--d", 2, "--delta-bits", 10, "--starts", 2)
    shown = lines(ended)
    assert list(shown) == ["pair", "δ", "holds for", "proof", "search", "gap"]
    alpha = float(AR1.from_rate(bits_to_nats(10.0), 8, 2).alpha[0])
    assert f"alpha {alpha:.6g} (2×)" in shown["pair"]
    assert shown["δ"] == f"10.000000 bits = {10 * math.log(2):.6f} nats"
    assert shown["holds for"] == "every example"
    assert shown["search"].startswith(shown["δ"] + ", the least from 2 random starts")
    assert shown["gap"].endswith("of it: the search agrees")


def test_a_mean_an_interval_and_nothing_are_named_so():
    words = ("--n", 4, "--d", 2, "--starts", 1)
    mean = lines(run("certify", "BatchNorm", *words, "--delta-bits", 3))
    assert mean["floor"].startswith("3.000000 bits")
    assert mean["holds for"].startswith("the mean over a training batch")
    logistic = ("--latents.prior", "Logistic", "--delta-nats", 8 * LOGISTIC)
    interval = lines(run("certify", "MeanFieldPair", *words, *logistic))
    assert interval["within"].startswith(interval["δ"])
    nothing = lines(run("certify", "Standard", *words))
    assert nothing["holds for"] == "nothing to hold"
    shown = lines(run("certify", "LearnedPrior", *words))
    assert shown["search"] == "none: the rate has no formula to search"


def test_a_discrete_knob_shows_what_was_asked_beside_what_there_is():
    words = ("Quantised", "--n", 28, "--d", 1, "--delta-bits", 20)
    shown = lines(run("certify", *words))
    assert shown["asked"].startswith("20.000000 bits")
    assert shown["δ"].startswith("28.000000 bits")
    found = figures(*words)
    assert found["asked_rate_bits"] == pytest.approx(20, rel=1e-12)
    assert found["committed_rate_bits"] == pytest.approx(28, rel=1e-12)


def test_a_wrong_floor_is_status_1(monkeypatch):
    closed_form = AR1.from_rate.__func__

    def boastful(cls, delta, n, d, **options):
        pair = closed_form(cls, delta, n, d, **options)
        pair.committed_rate = pair.mean_rate_floor = 1.01 * pair.committed_rate
        return pair

    monkeypatch.setattr(AR1, "from_rate", classmethod(boastful))
    ended = run("certify", "AR1", "--n", 4, "--d", 1, "--delta-bits", 3, "--starts", 1)
    assert ended.status == 1
    assert "BELOW the floor" in ended.out
    assert "a rate below the floor of AR1, by 0.0099 of it: a bug" in ended.error


@pytest.fixture
def not_proven(monkeypatch):
    """What the command builds in the place of a MeanFieldPair, from a function on the line."""
    pair = MeanFieldPair.from_log_prob(StudentT(3.0).log_prob, 2, 1)
    monkeypatch.setattr(MeanFieldPair, "from_rate", lambda *_, **__: pair)
    return pair


NOT_PROVEN = (
    "MeanFieldPair",
    "--n",
    2,
    "--d",
    1,
    "--delta-nats",
    1,
    "--latents.prior",
    "StudentT",
)


def test_a_floor_that_is_not_proven_is_not_called_one(not_proven, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    shown = lines(run("certify", *NOT_PROVEN))
    doubt = "if no posterior has a lower rate: that is not proven"
    assert shown["holds for"] == f"every example, {doubt}"
    assert shown["proof"].startswith("not proven: ")
    assert shown["gap"].endswith("the search has found no lower one either")
    found = figures(*NOT_PROVEN)
    assert (found["floor"], found["proven"], found["interval_bits"]) == ("example", False, None)


def test_a_lower_rate_than_a_floor_without_a_proof_is_no_bug(not_proven):
    not_proven.committed_rate = not_proven.mean_rate_floor = 1.01 * not_proven.committed_rate
    ended = run("certify", *NOT_PROVEN, "--starts", 4)
    assert ended.status == 1
    assert ended.error.endswith("by 0.0099 of it: a floor without a proof, and too high")


def test_the_page_shows_what_is_printed(monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    page = (Path(__file__).parents[2] / "docs" / "guide" / "certificates.md").read_text()
    asked, told = re.search(
        r"```sh\ndeltavae (.*)\n```\n\n```text\n(.*?)```", page, re.DOTALL
    ).groups()
    ended = run(*asked.split())
    assert (ended.status, ended.err) == (0, "")
    on_page, printed = (
        [line.rstrip() for line in text.splitlines()] for text in (told, ended.out)
    )
    assert printed[:-1] == on_page[:-1]
    for line in (printed[-1], on_page[-1]):  # the last digits are the machine's
        gap, word = re.fullmatch(r"gap        (\S+) of it: (.*)", line).groups()
        assert abs(float(gap)) < 1e-12
        assert word == "the search agrees"


def test_help_lists_every_pair():
    assert [name for name in NAMES if not re.search(rf"\b{name}\b", _EPILOGS["certify"])] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("Matrn", "--delta-bits", 3), "PAIR: must be one of AR1, ARp"),
        (("Matrn", "--delta-bits", 3), "got Matrn: did you mean Matern?"),
        (("none", "--delta-bits", 3), "PAIR: must be one of AR1"),
        (("deltavae.model.DeltaVAE", "--delta-bits", 3), "PAIR: must be one of AR1"),
        (("--delta-bits", 3), "missing: PAIR (see deltavae certify --help)"),
        (("--seed", 1, "AR1", "--delta-bits", 3), "unexpected argument AR1: PAIR comes first"),
        (("os.PathLike", "--delta-bits", 3), 'class_path "os.PathLike" is not a class of'),
        (("AR1",), "give --delta-bits or --delta-nats: the rate that the pair is to commit"),
        (("AR1", "--delta-bits", 3, "--delta-nats", 3), "--delta-bits and --delta-nats: give one"),
        (("AR1", "--delta-bits", 0), "--delta-bits: must be above 0, got 0"),
        (("AR1", "--delta-bits", 900), "--delta-bits=900.0: delta=623.8"),
        (("AR1", "--delta-bits", 3, "--starts", 0), "--starts: must be at least 1, got 0"),
        (("AR1", "--delta-bits", 3, "--latents.nu", 2.5), "--latents.nu: no such option"),
        (("Matern", "--delta-bits", 3, "--latents.nu", 2), "nu must be one of [0.5, 1.5, 2.5]"),
        (("Grid", "--delta-bits", 3), "--n must be height · width = 4 · 4, got 8"),
        (("Standard", "--delta-bits", 3), "must be 0 for Standard, which commits no rate"),
        (("MeanFieldPair", "--delta-bits", 3), "missing: --latents.prior, which this class needs"),
    ],
)
def test_wrong_use_is_one_line(words, message):
    ended = run("certify", *words, "--n", 8, "--d", 2)
    assert ended.status == 2
    assert message in ended.error
    assert ended.err.count("\n") == 1
    assert ended.out == ""
