"""One training of an estimator's model: `train.fit` with the objective, the recipe and the monitor."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import islice

import numpy as np

from nnsparse import nn
from nnsparse.data import DataLoader
from nnsparse.estimators.methods import first_end
from nnsparse.estimators.monitor import Monitor
from nnsparse.estimators.network import affine
from nnsparse.estimators.objective import Loss, Objective
from nnsparse.optim import Optimizer
from nnsparse.sparsify import Sparsifier
from nnsparse.sparsify.recipe import Recipe
from nnsparse.train import fit
from nnsparse.train.hooks import Update

CONVERGED, INTERRUPTED, UNFINISHED = "converged", "interrupted", "unfinished"
_DATA_BATCHES = 8  # mini-batches for recipes that look at data


@dataclass(frozen=True)
class Training:
    """What is to be done.

    Attributes
    ----------
    loader : DataLoader
    epochs : int
        At most.
    loss : (callable, float)
        The loss and by what it is multiplied.
    recipe : Recipe or None
        What moves or makes sparsity on the way; its schedule spans all epochs.
    seed : int
        Of what the recipe draws.
    """

    loader: DataLoader
    epochs: int
    loss: tuple[Loss, float]
    recipe: Recipe | None
    seed: int

    def run(
        self,
        model: nn.Sequential,
        optimizer: Optimizer,
        alpha: float,
        monitor: Monitor,
        progress: bool,
    ) -> str:
        """Train the model; return how it ended: "converged", "interrupted" (by Ctrl-C) or "unfinished".

        A recipe brings its training to an end: that counts as converged.

        Raises
        ------
        NonFiniteLossError
            If the loss is not finite.
        ValueError
            If the weights are not, at the end.
        """
        objective = Objective(*self.loss, [layer.weight for layer in affine(model)], float(alpha))
        updates: list[Update] = [objective]
        if self.recipe is not None:
            total = self.epochs * len(self.loader)
            monitor.first_end = first_end(self.recipe, total)
            updates.append(self._sparsifier(model, optimizer, self.recipe, total))
        history = fit(
            model,
            objective,
            optimizer,
            self.loader,
            epochs=self.epochs,
            updates=updates,
            callbacks=[monitor],
            progress=progress,
        )
        monitor.restore_best(model)
        if not all(np.isfinite(parameter.data).all() for parameter in model.parameters()):
            raise ValueError(
                "the training ended with weights that are not finite. Scale the features (StandardScaler), or lower "
                "learning_rate_init."
            )
        if history.interrupted:
            warnings.warn("the training was interrupted by Ctrl-C", stacklevel=5)
            return INTERRUPTED
        return CONVERGED if monitor.converged or self.recipe is not None else UNFINISHED

    def _sparsifier(
        self, model: nn.Sequential, optimizer: Optimizer, recipe: Recipe, total_steps: int
    ) -> Sparsifier:
        batches = [(x, y) for x, y, *_ in islice(self.loader.batches(0), _DATA_BATCHES)]
        return Sparsifier(
            model,
            optimizer,
            recipe,
            total_steps,
            loss_fn=self.loss[0],
            batches=batches,
            rng=self.seed,
        )
