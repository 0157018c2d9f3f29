"""Cells, results, tables: what identifies them, and that nothing is lost on the way to a file."""

import csv
import io
import json
import math

import pytest

from deltavae.studies.base import Cell, Result, by_labels
from deltavae.studies.statistics import Interval, mean
from deltavae.studies.tables import Table

OPTIONS = {"data": "digits", "delta_bits": 10.0, "decoder": {"init_args": {"channels": 8}}}


def result(name: str = "a", **labels: object) -> Result:
    return Result(
        cell=Cell(name, OPTIONS, labels),
        metrics={"elbo_bpd": 3.25, "iwae_bpd": None},
        log={"step": [1.0, 2.0], "val_elbo_bpd": [None, 3.5]},
        analysis={"rows": [[1, 2], [3, 4]], "deep": {"er": {"ü": 1e-9}}},
        origin={"train_seconds": 1.5},
        val={"elbo_bpd": 3.5},
        budget="cpu",
        version=2,
    )


def test_key_follows_from_the_options_alone():
    key = Cell("a", OPTIONS).key
    assert len(key) == 12
    reordered = dict(reversed(OPTIONS.items()))
    assert Cell("a", reordered, {"method": "x"}).key == key
    assert Cell("b", OPTIONS).key == key
    assert Cell("a", {**OPTIONS, "delta_bits": 10}).key == key  # the same option in YAML
    assert Cell("a", {**OPTIONS, "seed": 1}).key != key
    deeper = {**OPTIONS, "decoder": {"init_args": {"channels": 9}}}
    assert Cell("a", deeper).key != key


def test_key_is_the_same_in_every_process_and_version():
    # Committed results are found by it.
    assert Cell("a", {"data": "digits", "seed": 0}).key == "2eb2a249d912"


@pytest.mark.parametrize("name", ["", "a b", "../a", "a/b", ".hidden", "-x", "ä"])
def test_name_of_a_cell_is_one_of_a_file(name):
    with pytest.raises(ValueError, match="name must be of letters"):
        Cell(name, OPTIONS)


@pytest.mark.parametrize("option", ["run_dir", "resume", "trust", "config"])
def test_cell_leaves_its_folder_to_the_engine(option):
    with pytest.raises(ValueError, match=f"options must not hold {option}"):
        Cell("a", {**OPTIONS, option: True})


def test_result_survives_json():
    before = result(method="ar1", seed=0)
    text = before.to_json()
    assert Result.from_json(text) == before
    assert json.loads(text)["key"] == before.cell.key
    assert '"step": [1.0, 2.0]' in text  # a line per column: files that are read and compared


@pytest.mark.parametrize("text", ["[]", "{}", '{"cell": {}}', "{", '{"key": 1, "cell": null}'])
def test_foreign_json_is_no_result(text):
    with pytest.raises(ValueError):
        Result.from_json(text)


def test_results_are_grouped_in_their_order():
    results = [result("a", m=1, s=0), result("b", m=2, s=0), result("c", m=1, s=1), result("d")]
    groups = by_labels(results, "m")
    assert {k: [r.cell.name for r in v] for k, v in groups.items()} == {
        (1,): ["a", "c"],
        (2,): ["b"],
        (None,): ["d"],
    }
    assert list(by_labels(results, "m", "s")) == [(1, 0), (2, 0), (1, 1), (None, None)]


TABLE = Table(
    columns=("method", "bits/dim", "seeds", "p"),
    rows=(
        ("a|b", Interval(3.14159265, 0.0123, 3.0, 3.3, 3), 3, 0.04999),
        ("none, at all", mean([2.5]), 1, None),
        ("missing", None, 0, math.nan),
    ),
    caption="What is shown.",
    digits={"p": 2},
)


def test_markdown_is_rounded():
    assert TABLE.markdown().splitlines() == [
        "| method | bits/dim | seeds | p |",
        "| --- | --: | --: | --: |",
        "| a\\|b | 3.142 ± 0.012 | 3 | 0.05 |",
        "| none, at all | 2.500 | 1 | – |",
        "| missing | – | 0 | – |",
        "",
        "What is shown.",
    ]


def test_csv_is_exact():
    rows = list(csv.DictReader(io.StringIO(TABLE.csv())))
    assert list(rows[0]) == ["method", "bits/dim", "bits/dim_se", "seeds", "p"]
    assert [row["method"] for row in rows] == ["a|b", "none, at all", "missing"]
    assert float(rows[0]["bits/dim"]) == 3.14159265
    assert float(rows[0]["bits/dim_se"]) == 0.0123
    assert (rows[1]["bits/dim"], rows[1]["bits/dim_se"], rows[1]["p"]) == ("2.5", "", "")
    assert (rows[2]["bits/dim"], rows[2]["bits/dim_se"], rows[2]["p"]) == ("", "", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": ("a", "a"), "rows": ()}, "columns must be different"),
        ({"columns": ("a", "b"), "rows": ((1,),)}, "rows must have 2 values each, got 1"),
        ({"columns": ("a",), "rows": (), "digits": {"b": 1}}, "digits must name columns"),
    ],
)
def test_table_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Table(**arguments)
