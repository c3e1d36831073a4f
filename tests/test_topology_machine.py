"""A state machine: whatever is done to a sparse layer's topology, in any order, a plain model says what comes out."""

import io

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from scipy import sparse

from nnsparse import Topology, optim, tensor
from nnsparse.nn.linear import SparseLinear
from nnsparse.plan import plans_built

SEEDS = st.integers(0, 2**32 - 1)
SIDES = st.sampled_from([1, 2, 3, 7, 16, 17, 33, 130])
SHARES = st.sampled_from([0.0, 0.05, 0.3, 0.7, 1.0])


def positions(topology):
    """Return the positions of a topology as a set of pairs, by its rows and columns."""
    rows, columns = topology.coo()
    return set(zip(rows.tolist(), columns.tolist(), strict=True))


class Machine(RuleBasedStateMachine):
    """A layer and its optimizer beside a dict: position -> bits of value and momentum."""

    @initialize(n_out=SIDES, n_in=SIDES, share=SHARES, seed=SEEDS)
    def begin(self, n_out, n_in, share, seed):
        self.shape = n_out, n_in
        start = Topology.random(self.shape, density=share, rng=seed)
        self.layer = SparseLinear(n_in, n_out, topology=start, rng=seed)
        self.optimizer = optim.SGD(self.layer.parameters(), lr=0.01, momentum=0.9)
        self.note()

    def note(self):
        """Take over what the layer holds into the plain model."""
        weight = self.layer.weight
        momentum = weight.buffers.get("momentum")
        values = weight.canonical()
        state = np.zeros_like(values) if momentum is None else weight.canonical(momentum)
        where = zip(*(a.tolist() for a in weight.topology.coo()), strict=True)
        pairs = zip(values.view(np.uint32), state.view(np.uint32), strict=True)
        self.model = dict(zip(where, pairs, strict=True))
        self.has_momentum = momentum is not None

    def move(self, topology, fill=0.0):
        """Move the layer, and the model by the plain rule: survivors as they are, newcomers filled."""
        self.layer.weight.move_to(topology, fill)
        new = np.float32(fill).view(np.uint32), np.float32(0).view(np.uint32)
        self.model = {place: self.model.get(place, new) for place in positions(topology)}

    # ------------------------------------------------------------ operations

    @rule(share=SHARES, seed=SEEDS, fill=st.sampled_from([0.0, -0.0, 1.5, float("inf")]))
    def go_anywhere(self, share, seed, fill):
        self.move(Topology.random(self.shape, density=share, rng=seed), fill)

    @rule(share=SHARES, seed=SEEDS)
    def prune(self, share, seed):
        own = self.layer.weight.topology
        keep = np.random.default_rng(seed).random(own.nnz) < share
        rows, columns = (a[keep] for a in own.coo())
        pruned = Topology.from_coo(self.shape, rows[::-1], columns[::-1])
        assert pruned.issubset(own)
        self.move(pruned)

    @rule(share=SHARES, seed=SEEDS)
    def grow(self, share, seed):
        own = self.layer.weight.topology
        free = own.shape[0] * own.shape[1] - own.nnz
        grown = own.random_free(round(share * free), seed)
        assert not positions(grown) & set(self.model)
        self.move(own | grown, 0.25)

    @rule(share=SHARES, seed=SEEDS)
    def drop_and_grow(self, share, seed):
        own, rng = self.layer.weight.topology, np.random.default_rng(seed)
        kept = own - Topology.random(self.shape, density=share, rng=rng)
        free = own.shape[0] * own.shape[1] - own.nnz
        self.move(kept | own.random_free(min(free, own.nnz - kept.nnz), rng))

    @rule(name=st.sampled_from(["__or__", "__and__", "__sub__", "__xor__"]), share=SHARES, seed=SEEDS)  # fmt: skip
    def combine(self, name, share, seed):
        own, other = self.layer.weight.topology, Topology.random(self.shape, density=share, rng=seed)  # fmt: skip
        wanted = getattr(set(self.model), name)(positions(other))
        combined = getattr(own, name)(other)
        assert positions(combined) == wanted
        self.move(combined)

    @rule(kind=st.sampled_from(["csr", "csc", "coo", "lil", "dok", "bsr"]))
    def through_scipy(self, kind):
        weight = self.layer.weight
        matrix = weight.topology.to_scipy(np.ones(weight.topology.nnz)).asformat(kind)
        self.move(Topology.from_scipy(matrix))

    @rule()
    def transpose_twice(self):
        own = self.layer.weight.topology
        assert positions(own.T) == {(column, row) for row, column in self.model}
        again = own.T.T
        assert again == own
        self.move(again)

    @rule()
    def through_dense(self):
        """Only weights that are not zero come back, and the optimizer begins anew."""
        dense = self.layer.to_dense()
        self.layer = SparseLinear.from_dense(dense)
        self.optimizer = optim.SGD(self.layer.parameters(), lr=0.01, momentum=0.9)
        kept = {k: v for k, v in self.model.items() if v[0] & 0x7FFFFFFF}
        assert set(kept) == positions(self.layer.weight.topology)
        values = dict(zip(kept, (v[0] for v in kept.values()), strict=True))
        self.note()
        assert {k: v[0] for k, v in self.model.items()} == values

    @rule(share=SHARES, seed=SEEDS)
    def save_and_load(self, share, seed):
        """Into a layer with another topology, through a file."""
        file, layer = io.BytesIO(), SparseLinear(*self.shape[::-1], density=share, rng=seed)
        optimizer = optim.SGD(layer.parameters(), lr=1.0, momentum=0.5)
        np.savez(file, **self.layer.state_dict())
        layer.load_state_dict(np.load(io.BytesIO(file.getvalue())))
        optimizer.load_state_dict(self.optimizer.state_dict())
        self.layer, self.optimizer = layer, optimizer

    @precondition(lambda self: all(np.isfinite(self.layer.weight.data)))
    @rule(seed=SEEDS, batch=st.sampled_from([1, 5, 70]))
    def train(self, seed, batch):
        """One step, checked against SciPy before it is taken."""
        n_out, n_in = self.shape
        rng, weight = np.random.default_rng(seed), self.layer.weight
        x, d = (rng.standard_normal((batch, n)).astype(np.float32) for n in (n_in, n_out))
        matrix = sparse.csr_array(
            (weight.canonical().astype(np.float64), weight.topology.indices, weight.topology.indptr),
            shape=self.shape,
        )  # fmt: skip
        before = plans_built()
        inputs = tensor(x, requires_grad=True)
        out = self.layer(inputs)
        out.backward(d)
        self.layer(x)
        assert plans_built() - before <= 1, "a plan was built twice"
        assert self.layer.bias is not None
        close = {"rtol": 1e-4, "atol": 1e-3}
        np.testing.assert_allclose(out.numpy(), x @ matrix.T + self.layer.bias.data, **close)
        np.testing.assert_allclose(inputs.grad, d @ matrix, **close)
        wanted = (d.T @ x)[weight.topology.coo()]
        np.testing.assert_allclose(weight.canonical(weight.grad), wanted, **close)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.note()

    # ------------------------------------------------------------ what always holds

    @invariant()
    def canonical(self):
        topology = self.layer.weight.topology
        indptr, indices = topology.csr()
        assert topology == Topology(self.shape, indptr, indices)  # which checks every number
        assert hash(topology) == hash(Topology.from_coo(self.shape, *topology.coo()))
        assert indptr.dtype == indices.dtype == np.int32
        assert not indptr.flags.writeable
        assert topology.nnz == len(self.model)
        assert topology.is_full == (topology.nnz == np.prod(self.shape))

    @invariant()
    def bit_for_bit(self):
        expected, had = self.model, self.has_momentum
        self.note()
        found, self.has_momentum = self.model, had
        assert found == expected
        weight = self.layer.weight
        assert weight.data.flags.carray
        assert not weight.data.size or weight.data.ctypes.data % 64 == 0
        dense = np.zeros(self.shape, np.float32)
        for place, (value, _) in expected.items():
            dense.view(np.uint32)[place] = value
        np.testing.assert_array_equal(weight.to_dense(), dense)


Machine.TestCase.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)
TestTopologyMachine = Machine.TestCase


def test_the_machine_would_notice_a_lost_value():
    machine = Machine()
    machine.begin(7, 16, 0.3, 0)
    machine.grow(0.3, 1)
    machine.bit_for_bit()
    machine.layer.weight.data[3] += 1
    with pytest.raises(AssertionError):
        machine.bit_for_bit()
