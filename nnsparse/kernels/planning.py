"""Compiled builders of plans: counting sorts, O(nnz + n_slabs·n_out) time, no allocation; and moves between patterns.

`plan.Slabs` and `plan.Quads` explain the orders that they build. A slab has 2**shift inputs.
"""

from __future__ import annotations

import numpy as np

from nnsparse import jit
from nnsparse.simd import item, put


@jit.serial
def count_runs(indptr, columns, panels, shift, n_slabs, counts):
    """Count the nonzeros of each (panel, slab, output) into `counts` (n_slabs·n_out,), which must be zero."""
    for p in range(panels.size - 1):
        first = panels[p]
        size = panels[p + 1] - first
        for o in range(first, first + size):
            last, count, base = -1, 0, first * n_slabs + o - first
            for k in range(np.int64(indptr[o]), np.int64(indptr[o + 1])):
                s = item(columns, k) >> shift
                # not read back from memory: 1.9x at 1000², 95 %
                count = count + 1 if s == last else 1
                put(counts, base + s * size, count)
                last = s


@jit.serial
def order_runs(counts, panels, n_slabs, histogram, pointers, outputs, starts):
    """Sort the runs of each (panel, slab) by length: a loop whose trip count repeats is predicted (1.2x at 95 %).

    Writes pointers (n_runs + 1,), outputs (n_runs,) and, per run in unsorted order, where it starts; returns the most
    nonzeros of one panel and slab. `histogram` holds max(counts) + 2 integers.
    """
    position, most = 0, 0
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
            before = position
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
            most = max(most, position - before)
    return most


@jit.serial
def fill_slabs(indptr, columns, panels, shift, n_slabs, counts, starts, indices, positions):
    """Write the input of every nonzero within its slab, and where each canonical nonzero went, run by run."""
    for p in range(panels.size - 1):
        first = panels[p]
        size = panels[p + 1] - first
        for o in range(first, first + size):
            k = np.int64(indptr[o])
            for s in range(n_slabs):
                run = first * n_slabs + s * size + o - first
                start, n = item(starts, run), item(counts, run)
                for i in range(n):
                    put(indices, start + i, item(columns, k + i) - (s << shift))
                    put(positions, k + i, start + i)
                k += n


@jit.serial
def count_quads(indptr, columns, panels, shift, n_slabs, masks, counts):
    """Count the inputs of each (panel, slab, quad of outputs, mask) into `counts` (n_blocks, 15), zero on entry.

    `masks` (n_in,) uint8 is scratch, zero on entry and afterwards.
    """
    for p in range(panels.size - 1):
        first, last = panels[p], panels[p + 1]
        quads = (last - first + 3) // 4
        for q in range(quads):
            top = first + 4 * q
            for r in range(min(4, last - top)):
                for k in range(indptr[top + r], indptr[top + r + 1]):
                    masks[columns[k]] |= 1 << r
            for k in range(indptr[top], indptr[min(last, top + 4)]):
                mask = masks[columns[k]]
                if mask > 0:
                    j = first // 4 * n_slabs + (columns[k] >> shift) * quads + q
                    counts[j, mask - 1] += 1
                    masks[columns[k]] = 0


@jit.serial
def point_quads(counts, bits, starts, firsts):
    """Write where the values and where the inputs of each block start; bits[m] is the number of ones of mask m + 1."""
    value, entry = 0, 0
    starts[0] = firsts[0] = 0
    for j in range(counts.shape[0]):
        for m in range(bits.size):
            value += counts[j, m] * bits[m]
            entry += counts[j, m]
        starts[j + 1] = value
        firsts[j + 1] = entry


@jit.serial
def fill_quads(
    indptr, columns, panels, shift, n_slabs, counts, bits, starts, firsts, masks, slots, cursors,
    indices, positions,
):  # fmt: skip
    """Write the inputs of every block within its slab, and where each canonical nonzero went.

    Scratch: `masks` (n_in,) uint8, zero on entry; `slots` (n_in,) and `cursors` (n_slabs, 15, 2), any content.
    """
    for p in range(panels.size - 1):
        first, last = panels[p], panels[p + 1]
        quads = (last - first + 3) // 4
        for q in range(quads):
            top = first + 4 * q
            for s in range(n_slabs):
                j = first // 4 * n_slabs + s * quads + q
                value, entry = starts[j], firsts[j]
                for m in range(bits.size):
                    cursors[s, m, 0] = value
                    cursors[s, m, 1] = entry
                    value += counts[j, m] * bits[m]
                    entry += counts[j, m]
            for r in range(min(4, last - top)):
                for k in range(indptr[top + r], indptr[top + r + 1]):
                    masks[columns[k]] |= 1 << r
            for r in range(min(4, last - top)):
                for k in range(indptr[top + r], indptr[top + r + 1]):
                    column = columns[k]
                    below = masks[column] & ((1 << r) - 1)
                    if below == 0:  # the first output that uses this input
                        s, m = column >> shift, masks[column] - 1
                        slots[column] = cursors[s, m, 0]
                        indices[cursors[s, m, 1]] = column - (s << shift)
                        cursors[s, m, 0] += bits[m]
                        cursors[s, m, 1] += 1
                        positions[k] = slots[column]
                    else:
                        positions[k] = slots[column] + bits[below - 1]
            for k in range(indptr[top], indptr[min(last, top + 4)]):
                masks[columns[k]] = 0


@jit.serial
def transpose_csr(indptr, columns, column_pointers, rows, permutation):
    """Write the CSC view of a CSR pattern: pointers (n_in + 1, zero on entry), rows and canonical positions (nnz,)."""
    n_in = column_pointers.size - 1
    for k in range(columns.size):
        column_pointers[item(columns, k) + 1] += 1
    for i in range(n_in):
        column_pointers[i + 1] += column_pointers[i]
    for o in range(indptr.size - 1):
        for k in range(np.int64(indptr[o]), np.int64(indptr[o + 1])):
            i = item(columns, k)
            j = item(column_pointers, i)
            put(rows, j, o)
            put(permutation, j, k)
            put(column_pointers, i, j + 1)
    for i in range(n_in, 0, -1):
        column_pointers[i] = column_pointers[i - 1]
    column_pointers[0] = 0


@jit.serial
def join_maps(permutation, forward, transposed, out):
    """Write out[transposed position] = forward position of the same nonzero."""
    for k in range(permutation.size):
        put(out, item(transposed, k), item(forward, item(permutation, k)))


# ---------------------------------------------------------------- moves between patterns


@jit.serial
def find_positions(indptr, columns, other_indptr, other_columns, places, out):
    """Write where each position of a CSR pattern stands in another of the same shape, (nnz,); -1 where it lacks it.

    Scratch: places (n_in,) int64. O(nnz + other nnz + n_in), without a branch that depends on the columns.
    """
    places[:] = -1
    for row in range(indptr.size - 1):
        first = np.int64(other_indptr[row])
        for j in range(first, np.int64(other_indptr[row + 1])):
            put(places, item(other_columns, j), j)
        for k in range(np.int64(indptr[row]), np.int64(indptr[row + 1])):
            j = item(places, item(columns, k))
            put(out, k, j if j >= first else -1)  # what an earlier row left is less than `first`


@jit.serial
def join_moves(origin, before, after, source, newcomers):
    """Write source[after[k]] = before[origin[k]], and after[k] into `newcomers` where origin[k] < 0; return how many.

    `before`, not empty, and `after` lead from two canonical orders to those of the values; the others are (nnz,).
    """
    n = 0
    for k in range(origin.size):
        j, place = item(origin, k), item(after, k)
        put(source, place, item(before, max(j, 0)))
        put(newcomers, n, place)
        n += j < 0
    return n


@jit.serial
def select_positions(indptr, columns, mask, chosen_indptr, chosen):
    """Write the CSR pattern, (n_out + 1,) and (n + 1,), of the n positions where `mask`, (nnz,) uint8, is 1."""
    n = 0
    chosen_indptr[0] = 0
    for row in range(indptr.size - 1):
        for k in range(np.int64(indptr[row]), np.int64(indptr[row + 1])):
            put(chosen, n, item(columns, k))
            n += item(mask, k)
        chosen_indptr[row + 1] = n


@jit.serial
def merge_patterns(indptr, columns, other_indptr, other_columns, both_indptr, both):
    """Write the CSR pattern, (n_out + 1,) and (n,), of the positions of two patterns; n = nnz + other nnz suffices."""
    n = 0
    both_indptr[0] = 0
    for row in range(indptr.size - 1):
        i, i_end = np.int64(indptr[row]), np.int64(indptr[row + 1])
        j, j_end = np.int64(other_indptr[row]), np.int64(other_indptr[row + 1])
        while i < i_end and j < j_end:
            a, b = item(columns, i), item(other_columns, j)
            put(both, n, min(a, b))
            i += a <= b
            j += b <= a
            n += 1
        while i < i_end:
            put(both, n, item(columns, i))
            i += 1
            n += 1
        while j < j_end:
            put(both, n, item(other_columns, j))
            j += 1
            n += 1
        both_indptr[row + 1] = n
