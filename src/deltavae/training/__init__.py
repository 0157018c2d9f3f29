"""Training on Lightning's Trainer: module, data module, checkpoints, log, and one function."""

from deltavae.training.averaging import WeightAverage
from deltavae.training.checkpoints import AtomicCheckpointIO, RunCheckpoint
from deltavae.training.compilation import compiled_training
from deltavae.training.floors import BrokenFloorError, FloorWatch, check_floor
from deltavae.training.lagging import LaggingInference
from deltavae.training.log import CSVLog, read_log
from deltavae.training.loop import DeltaVAEDataModule, Outcome, refit_prior, train
from deltavae.training.module import DeltaVAEModule, TrainingDivergedError
from deltavae.training.moments import refit_moments
from deltavae.training.validation import Validation

__all__ = [
    "AtomicCheckpointIO",
    "BrokenFloorError",
    "CSVLog",
    "DeltaVAEDataModule",
    "DeltaVAEModule",
    "FloorWatch",
    "LaggingInference",
    "Outcome",
    "RunCheckpoint",
    "TrainingDivergedError",
    "Validation",
    "WeightAverage",
    "check_floor",
    "compiled_training",
    "read_log",
    "refit_moments",
    "refit_prior",
    "train",
]
