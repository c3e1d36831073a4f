"""Compiled builders of plans: two counting sorts, O(nnz + n_slabs·n_out) time, no allocation.

`plan.Slabs` explains the order that they build.
"""

from __future__ import annotations

from nnsparse import jit


@jit.serial
def count_runs(indptr, columns, panels, slab, n_slabs, counts):
    """Count the nonzeros of each (panel, slab, output) into `counts` (n_slabs·n_out,), which must be zero."""
    for p in range(panels.size - 1):
        first = panels[p]
        size = panels[p + 1] - first
        for o in range(first, first + size):
            for k in range(indptr[o], indptr[o + 1]):
                counts[first * n_slabs + (columns[k] // slab) * size + o - first] += 1


@jit.serial
def order_runs(counts, panels, n_slabs, histogram, pointers, outputs, starts):
    """Sort the runs of each (panel, slab) by length: a loop whose trip count repeats is predicted (1.2x at 95 %).

    Writes pointers (n_runs + 1,), outputs (n_runs,) and, per run in unsorted order, where it starts.
    `histogram` holds max(counts) + 2 integers.
    """
    position = 0
    pointers[0] = 0
    for p in range(panels.size - 1):
        size = panels[p + 1] - panels[p]
        for s in range(n_slabs):
            base = panels[p] * n_slabs + s * size
            longest = 0
            for i in range(size):
                longest = max(longest, counts[base + i])
            for c in range(longest + 2):
                histogram[c] = 0
            for i in range(size):
                histogram[counts[base + i] + 1] += 1
            for c in range(longest + 1):
                histogram[c + 1] += histogram[c]
            for i in range(size):
                j = base + histogram[counts[base + i]]
                histogram[counts[base + i]] += 1
                outputs[j] = panels[p] + i
                pointers[j + 1] = counts[base + i]
            for j in range(base, base + size):
                i = outputs[j] - panels[p]
                starts[base + i] = position
                position += pointers[j + 1]
                pointers[j + 1] = position


@jit.serial
def fill_slabs(indptr, columns, panels, slab, n_slabs, starts, indices, positions):
    """Write the input of every nonzero within its slab, and where each canonical nonzero went; advances `starts`."""
    for p in range(panels.size - 1):
        first = panels[p]
        size = panels[p + 1] - first
        for o in range(first, first + size):
            for k in range(indptr[o], indptr[o + 1]):
                s = columns[k] // slab
                run = first * n_slabs + s * size + o - first
                indices[starts[run]] = columns[k] - s * slab
                positions[k] = starts[run]
                starts[run] += 1


@jit.serial
def transpose_csr(indptr, columns, column_pointers, rows, permutation):
    """Write the CSC view of a CSR pattern: pointers (n_in + 1, zero on entry), rows and canonical positions (nnz,)."""
    n_in = column_pointers.size - 1
    for k in range(columns.size):
        column_pointers[columns[k] + 1] += 1
    for i in range(n_in):
        column_pointers[i + 1] += column_pointers[i]
    for o in range(indptr.size - 1):
        for k in range(indptr[o], indptr[o + 1]):
            i = columns[k]
            rows[column_pointers[i]] = o
            permutation[column_pointers[i]] = k
            column_pointers[i] += 1
    for i in range(n_in, 0, -1):
        column_pointers[i] = column_pointers[i - 1]
    column_pointers[0] = 0


@jit.serial
def join_maps(permutation, forward, transposed, out):
    """Write out[transposed position] = forward position of the same nonzero."""
    for k in range(permutation.size):
        out[transposed[k]] = forward[permutation[k]]
