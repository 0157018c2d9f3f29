"""`deltavae fit` and the floor: a rate that no knob makes, and a floor that breaks."""

import pytest
from command_line import fit, run

from deltavae.training.floors import BrokenFloorError


@pytest.mark.parametrize(
    ("pair", "bits", "said"),
    [
        ("Quantised", 9, "asked for 9 bits, the nearest that Quantised can commit here is 8\n"),
        ("Quantised", 8, None),
        ("AR1", 9, None),
        ("BatchNorm", 9, None),
        ("Standard", None, None),
    ],
)
def test_a_rate_that_is_not_to_be_had_is_told_once(pair, bits, said, data, tmp_path):
    rate = () if bits is None else ("--delta-bits", bits)
    words = ("--latents", pair, *rate, "--epochs", 1, "--no-report")
    ended = fit(data, tmp_path / "run", *words)
    assert ended.status == 0, ended.err
    assert ended.err.count("asked for") == (said is not None)
    assert said is None or said in ended.err
    again = run("fit", "--run-dir", tmp_path / "run", "--resume")
    assert again.status == 0, again.err
    assert "asked for" not in again.err


def test_a_broken_floor_is_one_line_and_status_1(data, tmp_path, monkeypatch):
    def broken(latents, params, index, step):
        if step == 6:
            raise BrokenFloorError(f"step {step}: example {int(index[0])} is below the floor")

    monkeypatch.setattr("deltavae.training.floors.check_floor", broken)
    folder = tmp_path / "run"
    ended = fit(data, folder, "--delta-bits", 4, "--checkpoint-minutes", 0)
    assert ended.status == 1
    assert ended.error.startswith("step 6: example ")
    assert ended.error.endswith(f"the last good checkpoint is {folder}/checkpoints/last.ckpt")
    assert not (folder / "model.safetensors").exists()
    monkeypatch.undo()  # mended, the run goes on
    assert run("fit", "--run-dir", folder, "--resume", "--no-report").status == 0
