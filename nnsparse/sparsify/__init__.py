"""Making and moving sparsity: pruning, pruning at initialisation, dynamic sparse training.

A recipe (`agp(0.9)`, `rigl(0.95)`) says what, a `Sparsifier` does it beside a training:

>>> from nnsparse import nn, optim, sparsify
>>> model = sparsify.prunable(nn.mlp([784, 300, 10], rng=0))
>>> optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
>>> sparsifier = sparsify.Sparsifier(model, optimizer, sparsify.agp(0.9), total_steps=6000)

In the training loop, `sparsifier.step()` follows `optimizer.step()`; or pass `train.fit(..., updates=[sparsifier])`.
The parts of recipes are in the modules `criteria`, `saliency`, `flow` (scores), `growth`, `fan_in`, `shares`
(layer-wise counts), `units`, `schedules`, `when` and `effects`.
"""

from nnsparse.sparsify import (
    criteria,
    effects,
    fan_in,
    flow,
    growth,
    plots,
    saliency,
    schedules,
    shares,
    units,
    when,
)
from nnsparse.sparsify.compact import compact
from nnsparse.sparsify.context import Context, Target, targets
from nnsparse.sparsify.dynamic import granet, rigl, set_, snfs, sr_ste, srigl, top_kast
from nnsparse.sparsify.effects import harden
from nnsparse.sparsify.group_lasso import GroupLasso
from nnsparse.sparsify.holding import Crossover, hold
from nnsparse.sparsify.n_m import n_m_topology, pack_2_4, unpack_2_4
from nnsparse.sparsify.neurons import neuron_norms, remove_neurons
from nnsparse.sparsify.plots import plot_densities, plot_mask, plot_schedule
from nnsparse.sparsify.prepare import prunable, swap
from nnsparse.sparsify.recipe import Recipe
from nnsparse.sparsify.recipes import (
    agp,
    grasp,
    group_lasso,
    iterative,
    lottery_ticket,
    magnitude,
    n_m,
    neurons,
    obd,
    one_cycle,
    one_shot,
    random,
    snip,
    synflow,
)
from nnsparse.sparsify.report import LayerReport, Record, Report
from nnsparse.sparsify.sparsifier import Sparsifier
from nnsparse.sparsify.update import EmptyLayerWarning

__all__ = [
    "Context",
    "Crossover",
    "EmptyLayerWarning",
    "GroupLasso",
    "LayerReport",
    "Recipe",
    "Record",
    "Report",
    "Sparsifier",
    "Target",
    "agp",
    "compact",
    "criteria",
    "effects",
    "fan_in",
    "flow",
    "granet",
    "grasp",
    "group_lasso",
    "growth",
    "harden",
    "hold",
    "iterative",
    "lottery_ticket",
    "magnitude",
    "n_m",
    "n_m_topology",
    "neuron_norms",
    "neurons",
    "obd",
    "one_cycle",
    "one_shot",
    "pack_2_4",
    "plot_densities",
    "plot_mask",
    "plot_schedule",
    "plots",
    "prunable",
    "random",
    "remove_neurons",
    "rigl",
    "saliency",
    "schedules",
    "set_",
    "shares",
    "snfs",
    "snip",
    "sr_ste",
    "srigl",
    "swap",
    "synflow",
    "targets",
    "top_kast",
    "units",
    "unpack_2_4",
    "when",
]
