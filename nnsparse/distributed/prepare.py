"""What is done to a model before several ranks train it: layers that cannot be, dropout's draws, a rehearsed step."""

from __future__ import annotations

import copy

import numpy as np

from nnsparse.data import DataLoader
from nnsparse.nn.dropout import Dropout
from nnsparse.nn.module import Module
from nnsparse.nn.normalization import BatchNorm1d
from nnsparse.optim.optimizer import Optimizer
from nnsparse.train.evaluation import LossFunction

# Generators for which jumping ahead and drawing can change places, as `part_again` has it. With Philox and MT19937 they
# cannot: a jump forgets, or moves, what they have in store.
_JUMPING = np.random.PCG64, np.random.PCG64DXSM


def refuse_batch_norm(model: Module, size: int) -> None:
    """Refuse layers whose output for a sample depends on the others of its mini-batch.

    Raises
    ------
    ValueError
        Naming the layer.
    """
    for name, module in model.named_modules():
        if isinstance(module, BatchNorm1d):
            raise ValueError(
                f"DataParallel on {size} ranks expects a model without BatchNorm1d; got one at {name!r}. Each rank "
                "would normalise by its own samples, so their weights would come apart. Leave it out, or train on one "
                "rank."
            )


def part_dropout(model: Module, rank: int) -> None:
    """Let each rank draw other masks: r jumps ahead on rank r.

    Raises
    ------
    ValueError
        If a generator cannot; the message names the layer.
    """
    ahead: dict[int, np.random.Generator] = {}
    layers = {module: name for name, module in model.named_modules() if isinstance(module, Dropout)}
    for module, name in layers.items():  # each once, wherever it stands in the model
        bits = module.rng.bit_generator
        if not isinstance(bits, _JUMPING):
            raise ValueError(
                f"DataParallel expects a generator that can jump ahead at any time in the Dropout at {name!r}, such "
                f"as np.random.default_rng(0), PCG64; got {type(bits).__name__}."
            )
        if rank and id(bits) not in ahead:
            ahead[id(bits)] = np.random.Generator(bits.jumped(rank))
        module.rng = ahead.get(id(bits), module.rng)


def part_again(model: Module, rank: int) -> None:
    """Part dropout's draws anew after rank 0's generators were given to all ranks: each goes on where its own were.

    In place, so call it after `part_dropout` only: from then on the generators of ranks above 0 are the model's own.
    """
    seen: set[int] = set()
    for module in model.modules():
        if rank and isinstance(module, Dropout) and id(module.rng) not in seen:
            seen.add(id(module.rng))
            bits = module.rng.bit_generator
            assert isinstance(bits, _JUMPING)
            bits.state = bits.jumped(rank).state


def rehearse(
    model: Module, loss_fn: LossFunction, optimizer: Optimizer, loader: DataLoader
) -> None:
    """Make a training step on copies, so that all it needs is compiled; nothing if there are no samples."""
    batch = next(iter(loader.batches(loader.epoch)))
    if not len(batch[1]):
        return
    twin, trainer = copy.deepcopy((model, optimizer))
    loss = loss_fn(twin(batch[0]), *batch[1:])
    trainer.zero_grad()
    loss.backward()
    trainer.step()
