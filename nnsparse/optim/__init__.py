"""Optimizers, which update parameters in place, and learning-rate schedules for them."""

from nnsparse.optim.adam import Adam
from nnsparse.optim.lr import LRScheduler
from nnsparse.optim.optimizer import Optimizer
from nnsparse.optim.sgd import SGD

__all__ = ["SGD", "Adam", "LRScheduler", "Optimizer"]
