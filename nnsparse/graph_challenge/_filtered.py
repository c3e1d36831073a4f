"""Inference with the filter: images that have died leave, and the living ones are packed together.

The first layers are a funnel (`kernels.challenge_filter`) through which the images stream; what lives behind it is few
enough to go on together, layer after layer, packed anew when it pays. So every layer is made once, unless more images
live than memory holds: then those at hand go on to the end, and the stream continues.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from nnsparse import jit
from nnsparse.kernels import challenge, challenge_filter

from ._job import LANES, STACK, Array, Ints, Job, allocate, chosen, first_lanes, used_lanes, width
from ._reading import Piece, count_of
from ._stacks import Quads, quads
from ._supply import Supply

DEPTH = 12  # layers of the funnel
TILES = 64  # tiles that a worker takes from the stream at a time
SPAN = 4  # layers behind the funnel, or behind a packing, until the next look at what has died; then twice as many
_WASTE = 0.1  # of the lanes; from there on tiles are packed anew


@dataclass
class Group:
    """Images in tiles: x (any number of tiles, n, LANES) and ids (n_tiles, LANES).

    `place`, `used` and `alive` say of each tile where in x it lies, how many lanes it has and which of them live;
    `spare` are tiles of x for what comes out, one per thread.
    """

    x: Array
    ids: Ints
    place: Ints
    spare: Ints
    used: Ints
    alive: Ints

    def packed(self) -> Group:
        """Return the living images in new tiles."""
        count = chosen(self.alive).sum(axis=1)
        before = np.concatenate(([0], np.cumsum(count)))
        used = used_lanes(int(before[-1]))
        starts = LANES * np.arange(used.size)
        origin = np.searchsorted(before, starts, "right") - 1
        place, spare = np.split(np.arange(used.size + jit.get_num_threads()), [used.size])
        x = allocate((place.size + spare.size, *self.x.shape[1:]))
        ids = np.empty((used.size, LANES), np.int64)
        challenge_filter.repack(LANES)(
            self.x, self.place, self.alive, self.ids, before, origin, x, ids
        )
        return Group(x, ids, place, spare, used, first_lanes(used))

    @property
    def wasteful(self) -> bool:
        """Whether so many have died that packing pays."""
        return self.living <= (1 - _WASTE) * LANES * (len(self.alive) - 1)

    @property
    def living(self) -> int:
        """How many images live."""
        return int(chosen(self.alive).sum())

    @property
    def categories(self) -> Ints:
        """The images that live."""
        return self.ids[chosen(self.alive)]


class Funnel:
    """The first layers, the images that wait for each of them, and those that have passed them all."""

    def __init__(self, job: Job, stack: Quads, keep: int) -> None:
        self.job, self.stack = job, stack
        self.depth = depth = stack.n_layers
        threads = jit.get_num_threads()
        queues = 2 * depth * job.tile_bytes
        # The queues of all workers get at most a quarter of the memory.
        self.workers = workers = max(1, min(threads, job.memory // 4 // queues))
        most = job.limit()
        # Behind the funnel: tiles for what has passed, and as many for packing it anew.
        fixed = keep + workers * queues + threads * job.tile_bytes
        unit = 2 * workers * job.tile_bytes
        least = depth + 4
        room = min(
            job.capacity(unit, least, fixed, "weights and tiles"),
            max(least, -(-most // (LANES * workers)) + depth),
        )
        self.room = room
        self.rows = min(most, workers * LANES * min(TILES, room // 4))
        self.x = allocate((workers, 2 * depth + room, job.network.n_neurons, LANES))
        self.ids = np.empty((workers, 2 * depth + room, LANES), np.int64)
        self.state = np.zeros((workers, depth + 1, 2), np.int64)
        self.live = np.zeros((workers, depth), np.int64)

    @property
    def full(self) -> bool:
        """Whether there may be no room for what another piece of images leaves."""
        held = self.state[:, 1:, 0].sum(axis=1)
        return bool((held + -(-self.rows // self.workers) > self.room * LANES).any())

    def push(self, piece: Piece, number: int, flush: bool = False) -> None:
        """Lead images, the first of which has this number, into the funnel; `flush`: and all that wait through it."""
        challenge_filter.funnel(LANES, width())(
            *self.stack.arrays, *self.job.scalars, *piece, number, self.x, self.ids, self.state,
            self.live, flush,
        )  # fmt: skip

    def take(self) -> Group:
        """Return the images that have passed, and make room for others."""
        used = [used_lanes(int(count)) for count in self.state[:, -1, 0]]
        self.state[:, -1, 0] = 0
        tiles = self.x.shape[1]
        place = np.concatenate(
            [w * tiles + 2 * self.depth + np.arange(u.size) for w, u in enumerate(used)]
        )
        x, ids = self.x.reshape(-1, *self.x.shape[2:]), self.ids.reshape(-1, LANES)[place]
        lanes = np.concatenate(used)
        return Group(x, ids, place, place[:0], lanes, first_lanes(lanes)).packed()


def filtered(job: Job) -> Supply[Quads]:
    """Lead all images through all layers, without those that have died; return where the layers came from."""
    keep = job.memory // 8
    depth = min(DEPTH, job.network.n_layers)
    prepare = partial(quads, reorder=job.reorder)
    supply = Supply(job.network, job.watch, prepare, head=depth, size=STACK, keep=keep)
    funnel = Funnel(job, supply.first(), keep)
    piece = None
    with job.bar(f"layers 1 to {depth}", "image", count_of(job.images)) as bar:
        for piece in job.pieces(funnel.rows):
            if funnel.full:
                _finish(job, supply, _take(job, funnel, supply))
            with job.watch.measure("inference"):
                funnel.push(piece, job.n_images - piece.rows)
            bar.update(piece.rows)
        if piece is not None:
            with job.watch.measure("inference"):
                funnel.push(piece._replace(rows=0), job.n_images, flush=True)
    group = _take(job, funnel, supply)
    job.rows[:depth] += funnel.live.sum(axis=0)
    del funnel  # its memory
    _finish(job, supply, group)
    return supply


def _take(job: Job, funnel: Funnel, supply: Supply[Quads]) -> Group:
    with job.watch.measure("inference"):
        group = funnel.take()
    job.saw(funnel.x.nbytes + group.x.nbytes + supply.nbytes)
    return group


def _finish(job: Job, supply: Supply[Quads], group: Group) -> None:
    """Lead images that have passed the funnel through the other layers."""
    advance = challenge.advance(LANES, width())
    number, last, span = supply.first().n_layers, job.network.n_layers, SPAN
    with job.bar(f"layers {number + 1} to {last}", "layer", last - number) as bar:
        for stack in supply.stacks(1):
            layer = 0
            while layer < stack.n_layers:
                stop = min(stack.n_layers, layer + span)
                with job.watch.measure("inference"):
                    rows = np.zeros((stop - layer, group.place.size), np.int64)
                    advance(
                        *stack.arrays, layer, stop, *job.scalars, group.x, group.place, group.spare,
                        group.used, group.alive, True, rows,
                    )  # fmt: skip
                    span *= 2
                    if group.wasteful:
                        group, span = group.packed(), SPAN
                job.rows[number + layer : number + stop] += rows.sum(axis=1)
                bar.update(stop - layer)
                layer = stop
            number += stack.n_layers
    with job.watch.measure("inference"):
        job.categories.append(group.categories)
