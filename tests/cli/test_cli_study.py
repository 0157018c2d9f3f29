"""The command `study`: what it shows, how it ends, how wrong use ends."""

import pytest
from command_line import Text, run

from fake_studies import Failing, Rates, write_result


@pytest.fixture
def out(tmp_path):
    """A folder with the results of one study, and no runs."""
    for cell in Rates().cells("smoke"):
        write_result(tmp_path / "out", "rates", cell)
    return tmp_path / "out"


def test_command_shows_progress_and_pages(out):
    words = ("study", "fake_studies.Rates", "--trust", "--budget", "smoke", "--out", out)
    ended = run(*words)
    assert (ended.status, ended.out) == (0, "")
    assert ended.err.splitlines() == ["cells 2/2", f"page: {out / 'rates' / 'README.md'}"]


def test_terminal_shows_one_line_that_moves(out, monkeypatch):
    monkeypatch.setattr(Text, "isatty", lambda self: True)
    ended = run("study", "fake_studies.Rates", "--trust", "--budget", "smoke", "--out", out)
    assert (ended.status, ended.out) == (0, "")
    assert "cells 2/2" in ended.err
    assert ended.err.splitlines()[-1].endswith(f"page: {out / 'rates' / 'README.md'}")


def test_command_ends_with_1_and_names_what_failed(out):
    write_result(out, "failing", Failing().cells("smoke")[1])
    words = ("study", "fake_studies.Failing", "--trust", "--budget", "smoke", "--out", out)
    ended = run(*words)
    assert ended.status == 1
    assert "deltavae: --delta-bits: must be above 0, got -1.0" in ended.err
    last = ended.err.splitlines()[-1]
    assert last.startswith("deltavae: failed cells: wrong (")
    assert "cells 1/2" in ended.err
    assert f"page: {out / 'failing' / 'README.md'}" in ended.err


def test_command_ends_with_1_where_a_page_cannot_be_made(out):
    for cell in Rates().cells("smoke"):
        write_result(out, "bad-findings", cell)
    words = ("study", "fake_studies.BadFindings", "--trust", "--budget", "smoke", "--out", out)
    ended = run(*words)
    assert ended.status == 1
    assert "bad-findings: RuntimeError: nothing to be found here" in ended.err
    assert ended.err.splitlines()[-1] == "deltavae: no page of bad-findings"


def test_another_budget_in_one_folder_is_refused(out):
    ended = run("study", "fake_studies.Rates", "--trust", "--budget", "cpu", "--out", out)
    assert ended.status == 2
    assert "2bits.json is a result of the budget smoke, got the budget cpu" in ended.error


def test_command_lists_the_studies():
    ended = run("study")
    assert ended.status == 0
    assert "rate-vs-alpha " in ended.out
    assert "rate-vs-alpha " in run("study", "--help").out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("rate-vs-alpha",), "--out: missing"),
        (("rate-vs-alph", "--out", "x"), "NAME: unknown study rate-vs-alph"),
        (("fake_studies.Rates", "--out", "x"), "is not a class of deltavae"),
        (("deltavae.model.DeltaVAE", "--out", "x"), "is not a deltavae.studies.base.Study"),
        (("rate-vs-alpha", "--out", "x", "--jobs", "0"), "must be at least 1, got 0"),
        (("rate-vs-alpha", "--out", "x", "--budget", "huge"), "--budget"),
        (("information", "--out", "x", "--cells", "*-seed7"), "cells: no cell is named *-seed7"),
    ],
)
def test_wrong_use_is_one_line(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = run("study", *words)
    assert ended.status == 2
    assert message in ended.error
    assert list(tmp_path.iterdir()) == []
