"""`from_torch`: a torch module or a state dict becomes a `Sequential` of ours."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from nnsparse.interchange.affine import Choice
from nnsparse.interchange.arrays import loaded_torch
from nnsparse.interchange.parts import assemble
from nnsparse.interchange.torch_modules import parts_of_module
from nnsparse.interchange.torch_state import Layers, parts_of_state
from nnsparse.nn.embedding import Seed
from nnsparse.nn.sequential import Sequential


def from_torch(
    source: Any,
    *,
    layers: Layers | None = None,
    sparse: bool | Collection[str] | None = None,
    max_density: float = 0.8,
    rng: Seed = None,
) -> Sequential:
    """Return a torch network as one of ours, with the same weights, bit for bit.

    Parameters
    ----------
    source : torch.nn.Module, or mapping of str to array
        A `torch.nn.Sequential` (nested too) or one layer, of Linear, ReLU, LeakyReLU, Tanh, Sigmoid, GELU, Dropout,
        BatchNorm1d, Embedding, EmbeddingBag, Flatten and Identity. Or a state dict of Linear and BatchNorm1d: of
        torch tensors, NumPy arrays or SciPy matrices, as `torch.load` or `safetensors.numpy.load_file` return it. torch
        need not be installed for that.
    layers : sequence, for a state dict only
        Names of its layers and activations in order of application, such as ["fc1", nn.Tanh(), "fc2"]. By default they
        stand in order of their numbers, else as they come, with a ReLU between every two affine layers.
    sparse : bool or names of layers, optional
        Which affine layers become `SparseLinear`: all, none, or those named as in torch ("0", "fc1"). By default those
        with a mask or with sparse storage, and those with at most `max_density` numbers that are not zero.
    max_density : float in [0, 1]
        See there. At this density and below, a sparse layer trains faster than a dense one.
    rng : numpy.random.Generator, int or None
        For the masks of Dropout.

    Returns
    -------
    Sequential
        Sharing no memory with `source`, in float32, or float64 if any weight is. Sequentials inside are laid flat;
        Flatten and Identity are left out, since activations are flat here.

    Raises
    ------
    TypeError, ValueError
        If a layer, a setting or an entry has no counterpart, or sizes do not fit: nothing is left out silently.

    Notes
    -----
    A mask (`torch.nn.utils.prune`, `torch.ao.pruning`, weight_orig and weight_mask in a state dict) gives the topology:
    weights where it is not zero, even if they are zero themselves. Without one the topology is where the numbers are
    not zero; the layout of torch's sparse tensors is kept with the zeros in it. A mask on a bias is multiplied in. A
    state dict does not say a BatchNorm1d's eps and momentum: torch's defaults 1e-5 and 0.1 are taken. float16 and
    bfloat16 become float32, exactly. Not taken over: hooks, `requires_grad`, devices. The result is in training mode if
    the module is.

    Examples
    --------
    >>> import numpy as np
    >>> state = {"0.weight": np.eye(3), "0.bias": np.zeros(3), "2.weight": np.ones((2, 3))}
    >>> from_torch(state)
    Sequential(
      (0) SparseLinear(3 -> 3, nnz=3, sparsity=0.6667)
      (1) ReLU()
      (2) Linear(3 -> 2, no bias)
    )
    """
    choice = Choice.of(sparse, max_density)
    torch = loaded_torch()
    if torch is not None and isinstance(source, torch.nn.Module):
        if layers is not None:
            raise TypeError("from_torch takes layers for a state dict only; a module knows its own")
        model = assemble(parts_of_module(source, rng), choice)
        model.train(source.training)
        return model
    if not isinstance(source, Mapping):
        raise TypeError(
            f"from_torch expects a torch.nn.Module or a state dict; got {type(source).__name__}. "
            "A file? Pass torch.load(path, weights_only=True) or safetensors.numpy.load_file(path)."
        )
    return assemble(parts_of_state(source, layers), choice)
