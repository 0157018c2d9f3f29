"""Made-up results of a study's cells, and what a cell builds."""

import yaml

from deltavae.cli.parsing import parse
from deltavae.cli.specified import specified_model
from deltavae.data import data_layout
from deltavae.run_folder import import_class
from deltavae.studies import STUDIES
from deltavae.studies.base import Result

BUDGETS = ("smoke", "cpu", "paper")


def study_of(name):
    return import_class(STUDIES[name].class_path)()


def specification(cell, tmp_path):
    file = tmp_path / "cell.yaml"
    file.write_text(yaml.safe_dump(dict(cell.options)))
    options = parse("fit", ["--config", str(file), "--run-dir", "r"])
    layout = data_layout(options["data"])
    shape = layout.shape
    if options["size"]:
        shape = (shape[0], options["size"], options["size"])
    return options, specified_model(options, shape, layout.levels)


def result(cell, **metrics):
    names = ("elbo_bpd", "aux_elbo_bpd", "aux_iwae_bpd", "rate_bits", "aux_rate_bits")
    more = ("mutual_information_bits", "distortion_bits", "active_units", "committed_rate_bits")
    values = dict.fromkeys((*names, *more)) | {"dims": 196, "params": 1000, "aux_params": 10}
    return Result(cell, values | metrics, {}, {}, {"train_seconds": 60.0})


def rows_of(table):
    return {tuple(row[:2]): dict(zip(table.columns, row, strict=True)) for row in table.rows}
