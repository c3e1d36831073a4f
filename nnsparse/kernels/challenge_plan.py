"""Compiled preparation of stacks of layers: what is wrong with them, and the order that `simd_quads.quad` wants.

A stack is some layers of n neurons, each by output: indptr (n_layers, n + 1), each from 0 on, indices and values of all
layers one after the other, and `bases` (n_layers + 1,), where each layer starts. A quad are four outputs that follow
each other in the `order` (n_layers, n) of a layer, the last one of a layer perhaps fewer; quad j belongs to layer
j // quads. Outputs that have inputs in common share the loads of these, so a good order has them in one quad.
"""

from __future__ import annotations

from numba import get_thread_id, prange

from nnsparse import jit
from nnsparse.simd import item, put
from nnsparse.simd_quads import MASKS

# Faults: an input out of range, not ascending, a weight not finite
FINE, RANGE, ORDER, FINITE = range(4)
_NONE = 2**62  # behind every input


@jit.parallel
def find_faults(indptr, indices, values, bases, faults):
    """Write into faults (n_layers, n) uint8 what is wrong with the inputs of each output; pointers must be right."""
    n = indptr.shape[1] - 1
    for row in prange(faults.size):
        layer = row // n
        o = row - layer * n
        fault, last = FINE, -1
        for k in range(bases[layer] + indptr[layer, o], bases[layer] + indptr[layer, o + 1]):
            i, v = item(indices, k), item(values, k)
            if fault == FINE:
                if i < 0 or i >= n:
                    fault = RANGE
                elif i <= last:
                    fault = ORDER
                elif v - v != 0:
                    fault = FINITE
            last = i
        faults[layer, o] = fault


@jit.inline
def _input(indices, k, end):
    """Return the input at position k, or one behind all others if the run ends there."""
    return item(indices, k) if k < end else _NONE


@jit.inline
def _run(indptr, bases, order, quads, j, r):
    """Return where the run of the r-th output of quad j starts and ends; empty if the layer has no more outputs."""
    layer = j // quads
    place = 4 * (j - layer * quads) + r
    if place >= order.shape[1]:
        return 0, 0
    o = order[layer, place]
    return bases[layer] + indptr[layer, o], bases[layer] + indptr[layer, o + 1]


@jit.inline
def _mixed(i, factor):
    """Return 31 bits of a number that looks random."""
    mixed = (i + 1) * factor
    mixed = (mixed ^ (mixed >> 29)) * factor
    return (mixed >> 31) & (2**31 - 1)


@jit.parallel
def sharing_keys(indptr, indices, bases, keys):
    """Write keys (n_layers, n) int64 by which outputs that have inputs in common become neighbours.

    A key is two minima of random numbers, one drawn for each input. Two outputs agree in one with the share of inputs
    that they have in common, so outputs with the same inputs have the same key.

    Source: A. Broder, "On the resemblance and containment of documents", 1997.
    """
    n = indptr.shape[1] - 1
    for row in prange(keys.size):
        layer = row // n
        o = row - layer * n
        first = second = 2**31 - 1
        for k in range(bases[layer] + indptr[layer, o], bases[layer] + indptr[layer, o + 1]):
            i = item(indices, k)
            first = min(first, _mixed(i, 0x2545F4914F6CDD1D))
            second = min(second, _mixed(i, 0x1B873593CC9E2D51))
        keys[layer, o] = (first << 31) | second


@jit.parallel
def count_masks(indptr, indices, bases, order, counts):
    """Count into counts (n_quads, 15), zero on entry, the inputs of each quad by the set of outputs that use them."""
    n = indptr.shape[1] - 1
    quads = (n + 3) // 4
    for j in prange(counts.shape[0]):
        a, a_end = _run(indptr, bases, order, quads, j, 0)
        b, b_end = _run(indptr, bases, order, quads, j, 1)
        c, c_end = _run(indptr, bases, order, quads, j, 2)
        d, d_end = _run(indptr, bases, order, quads, j, 3)
        i0, i1 = _input(indices, a, a_end), _input(indices, b, b_end)
        i2, i3 = _input(indices, c, c_end), _input(indices, d, d_end)
        while True:
            i = min(min(i0, i1), min(i2, i3))
            if i == _NONE:
                break
            mask = -1
            if i0 == i:
                mask += 1
                a += 1
                i0 = _input(indices, a, a_end)
            if i1 == i:
                mask += 2
                b += 1
                i1 = _input(indices, b, b_end)
            if i2 == i:
                mask += 4
                c += 1
                i2 = _input(indices, c, c_end)
            if i3 == i:
                mask += 8
                d += 1
                i3 = _input(indices, d, d_end)
            counts[j, mask] += 1


@jit.parallel
def order_masks(
    indptr, indices, values, bases, order, counts, bits, starts, firsts, cursors, inputs, weights
):
    """Write inputs (n_entries,) and weights (nnz,) of all quads, by mask; starts and firsts are where each quad begins.

    `bits` (15,) are the outputs of each mask, `cursors` (n_threads, 2, 15) int64 is scratch.
    """
    n = indptr.shape[1] - 1
    quads = (n + 3) // 4
    for j in prange(counts.shape[0]):
        t = get_thread_id()
        entry, weight = firsts[j], starts[j]
        for m in range(MASKS):
            cursors[t, 0, m] = entry
            cursors[t, 1, m] = weight
            entry += counts[j, m]
            weight += counts[j, m] * bits[m]
        a, a_end = _run(indptr, bases, order, quads, j, 0)
        b, b_end = _run(indptr, bases, order, quads, j, 1)
        c, c_end = _run(indptr, bases, order, quads, j, 2)
        d, d_end = _run(indptr, bases, order, quads, j, 3)
        i0, i1 = _input(indices, a, a_end), _input(indices, b, b_end)
        i2, i3 = _input(indices, c, c_end), _input(indices, d, d_end)
        while True:
            i = min(min(i0, i1), min(i2, i3))
            if i == _NONE:
                break
            mask = (i0 == i) + 2 * (i1 == i) + 4 * (i2 == i) + 8 * (i3 == i) - 1
            put(inputs, cursors[t, 0, mask], i)
            cursors[t, 0, mask] += 1
            k = cursors[t, 1, mask]
            if i0 == i:
                put(weights, k, item(values, a))
                k += 1
                a += 1
                i0 = _input(indices, a, a_end)
            if i1 == i:
                put(weights, k, item(values, b))
                k += 1
                b += 1
                i1 = _input(indices, b, b_end)
            if i2 == i:
                put(weights, k, item(values, c))
                k += 1
                c += 1
                i2 = _input(indices, c, c_end)
            if i3 == i:
                put(weights, k, item(values, d))
                k += 1
                d += 1
                i3 = _input(indices, d, d_end)
            cursors[t, 1, mask] = k
