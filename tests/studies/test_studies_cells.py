"""Every study's cells are trainings that fit takes."""

import copy
import math

import pytest
import torch

from deltavae.configuration import WITHOUT_LATENTS
from deltavae.run_folder import instantiate
from deltavae.studies import STUDIES
from deltavae.studies.rate_distortion import RateDistortion
from study_results import BUDGETS, specification, study_of

CELLED = [name for name in STUDIES if name != "rate-vs-alpha"]


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("name", CELLED)
def test_every_cell_is_a_training_that_fit_takes(name, budget, tmp_path):
    cells = study_of(name).cells(budget)
    assert len({cell.name for cell in cells}) == len(cells) > 0
    first = [cell for cell in cells if cell.labels["seed"] == 0]
    assert len(first) < len(cells) or budget == "smoke"
    for cell in first:
        options, spec = specification(cell, tmp_path)
        assert options["seed"] == 0
        if options["objective"] is not None:
            instantiate(copy.deepcopy(options["objective"]))
        with torch.device("meta") if budget == "paper" else torch.device("cpu"):
            arguments = spec["init_args"]
            instantiate(arguments["decoder"])
            if "encoder" in arguments:
                instantiate(arguments["encoder"])
        if "latents" in arguments and "delta_bits" in cell.options:
            latents = instantiate(arguments["latents"])
            nats = cell.options["delta_bits"] * math.log(2)
            assert max(latents.committed_rate, latents.mean_rate_floor) == pytest.approx(nats)


@pytest.mark.parametrize("name", ["utilisation", "collapse"])
def test_cells_are_those_of_rate_distortion(name):
    for budget in BUDGETS:
        keys = {cell.key for cell in RateDistortion().cells(budget)}
        cells = study_of(name).cells(budget)
        assert {cell.key for cell in cells} <= keys
        assert not [cell.name for cell in cells if cell.options["latents"] in WITHOUT_LATENTS]
