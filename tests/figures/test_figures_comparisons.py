"""Plots that compare methods: what is drawn is what was estimated."""

import math

import pytest

from deltavae.figures import curves, intervals, scatter_with_errors
from deltavae.studies.statistics import Interval, mean


def test_intervals_of_one_seed_have_no_bar_and_say_so():
    known, single = mean([1.0, 2.0, 4.0]), mean([0.5])
    figure = intervals({"bound": {"a": known, "b": single}}, xlabel="bits")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b (one seed)"]
    assert len(axes.containers) == 2
    bars = [container.lines[2] for container in axes.containers]
    ((segment,),) = (collection.get_segments() for collection in bars[0])
    assert sorted(segment[:, 0]) == pytest.approx([known.low, known.high])
    assert bars[1] == ()
    assert axes.containers[1].lines[0].get_xdata() == [0.5]


def test_caps_are_drawn_where_they_belong():
    point = Interval(1.0, math.nan, math.nan, math.nan, 1)
    line = {"method": ([point], [point])}
    figure = scatter_with_errors(line, line, xlabels=("I", "rate"), ylabel="y", caps=(13.3, None))
    drawn = [[n for n in ax.lines if n.get_label() == "cap"] for ax in figure.axes]
    assert [len(found) for found in drawn] == [1, 0]
    assert list(drawn[0][0].get_xdata()) == [13.3, 13.3]
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == ["method", "cap"]
    figure = curves({"rate": {"a": [([1.0], [2.0])]}, "I": {"a": []}}, "step", caps={"I": 9.0})
    drawn = [[n for n in ax.lines if n.get_label() == "cap"] for ax in figure.axes]
    assert [len(found) for found in drawn] == [0, 1]
    assert list(drawn[1][0].get_ydata()) == [9.0, 9.0]


def test_many_methods_are_told_apart_by_colour_and_line():
    figure = curves({"": {f"m{i}": [([0.0, 1.0], [0.0, float(i)])] for i in range(17)}}, "step")
    looks = {(n.get_color(), n.get_linestyle()) for n in figure.axes[0].lines}
    assert len(looks) == 17
