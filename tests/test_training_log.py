"""The training's log: whole whatever happens."""

import csv

import pytest

from deltavae.training import CSVLog, read_log


def test_disk_that_fills_while_the_log_is_written_anew_leaves_the_old_one_whole(
    tmp_path, monkeypatch
):
    path = tmp_path / "log.csv"
    for step in (5, 10):
        CSVLog(path).log_metrics({"rate_bits": 4.25 + step}, step)
    before = path.read_bytes()

    def full(writer, rows):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(csv.DictWriter, "writerows", full)
        with pytest.raises(OSError, match="No space left"):
            CSVLog(path).log_metrics({"rate_bits": 1.0}, 10)  # a resumed run writes it anew
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["log.csv"]
    CSVLog(path).log_metrics({"rate_bits": 1.0, "val_elbo_bpd": 2.0}, 10)
    assert read_log(path) == [
        {"step": 5, "rate_bits": 9.25},
        {"step": 10, "rate_bits": 1.0, "val_elbo_bpd": 2.0},
    ]
