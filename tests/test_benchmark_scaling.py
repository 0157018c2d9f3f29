"""The benchmark of the rate against n, at a size that says nothing."""

import importlib
import json
import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
scaling = importlib.import_module("scaling")


def test_every_pair_is_timed_at_every_size(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "KEPT", tmp_path / "rate.json")
    monkeypatch.setattr(scaling, "PLOT", tmp_path)
    monkeypatch.setattr(scaling, "pin", lambda: None)
    monkeypatch.setattr(sys, "argv", ["scaling.py", "--largest", "128"])
    scaling.main()
    kept = json.loads((tmp_path / "rate.json").read_text())
    assert set(kept["seconds"]) == set(scaling.PAIRS)
    assert list(kept["seconds"]["grid"]) == ["64", "128"]
    assert list(kept["seconds"]["tree"]) == ["127", "255"]
    assert all(time > 0 for times in kept["seconds"].values() for time in times.values())
    assert (tmp_path / "scaling-rate.svg").read_text().startswith("<?xml")


def test_exponents_are_those_of_the_large_sizes():
    cubic = {n: 1e-12 * n**3 for n in (1 << 14, 1 << 15, 1 << 16)}
    fitted = scaling.exponents({"cubic": {64: 1.0, **cubic}, "short": {64: 1.0, 1 << 14: 2.0}})
    assert fitted["cubic"] == pytest.approx(3.0, abs=1e-9)
    assert math.isnan(fitted["short"])
