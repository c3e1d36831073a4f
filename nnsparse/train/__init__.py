"""Training: a loop around a model, its record, and what may take part in it."""

from nnsparse.train.callbacks import EarlyStopping
from nnsparse.train.evaluation import Evaluation, evaluate
from nnsparse.train.fit import fit
from nnsparse.train.health import NonFiniteLossError, check_finite
from nnsparse.train.history import Epoch, History
from nnsparse.train.hooks import (
    Callback,
    EffectBeforeStep,
    EndCallback,
    GradientReducer,
    ReplacingUpdate,
    StepCallback,
    TrainState,
    Update,
)
from nnsparse.train.logs import CSVLog, JSONLinesLog, SparsityLog

__all__ = [
    "CSVLog",
    "Callback",
    "EarlyStopping",
    "EffectBeforeStep",
    "EndCallback",
    "Epoch",
    "Evaluation",
    "GradientReducer",
    "History",
    "JSONLinesLog",
    "NonFiniteLossError",
    "ReplacingUpdate",
    "SparsityLog",
    "StepCallback",
    "TrainState",
    "Update",
    "check_finite",
    "evaluate",
    "fit",
]
