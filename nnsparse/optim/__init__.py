"""Optimizers, which update parameters in place, learning-rate schedules for them, and gradient clipping."""

from nnsparse.optim.adam import Adam
from nnsparse.optim.clipping import clip_grad_norm
from nnsparse.optim.lr import LRScheduler
from nnsparse.optim.optimizer import Optimizer
from nnsparse.optim.sgd import SGD

__all__ = ["SGD", "Adam", "LRScheduler", "Optimizer", "clip_grad_norm"]
