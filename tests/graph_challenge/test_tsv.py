"""The challenge's files: round trips, any order, and what is wrong named with file and line."""

import gzip
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from nnsparse import datasets
from nnsparse.graph_challenge import (
    Layer,
    _lines,
    folder,
    network,
    read_categories,
    read_image_blocks,
    read_images,
    read_layer,
    write_categories,
    write_images,
    write_layer,
)

SEED = st.integers(0, 2**32 - 1)
VALUES = {
    "same": lambda rng, n: np.full(n, 0.0625, np.float32),
    "few": lambda rng, n: rng.choice(np.array([1, -2.5, 1e-3, 3e38, 1e-42], np.float32), n),
    "any": lambda rng, n: rng.standard_normal(n).astype(np.float32),
}


def random_layer(rng, n, density, values):
    m = sparse.random_array((n, n), density=density, format="csr", rng=rng)
    m.sort_indices()
    return Layer(m.indptr.astype(np.int64), m.indices.astype(np.int32), VALUES[values](rng, m.nnz))


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)
        assert x.dtype == y.dtype


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few lines, so that short files have many."""
    monkeypatch.setattr(_lines, "_BLOCK", 64)
    monkeypatch.setattr(_lines, "_LINES", 5)


@given(
    SEED, st.integers(1, 300), st.sampled_from([0, 0.01, 0.3, 1]), st.sampled_from(sorted(VALUES))
)
def test_a_layer_is_read_back_as_it_was_written(tmp_path_factory, seed, n, density, values):
    layer = random_layer(np.random.default_rng(seed), n, density if n < 100 else 0.01, values)
    path = tmp_path_factory.mktemp("tsv") / "n1-l1.tsv"
    if layer.values.size == 0:
        with pytest.raises(ValueError, match="at least one weight; got an empty layer"):
            write_layer(path, layer)
        return
    write_layer(path, layer)
    assert_same(read_layer(path, n), layer)


@pytest.mark.parametrize("values", sorted(VALUES))
def test_blocks_of_lines_fit_together(tmp_path, small_blocks, values):
    layer = random_layer(np.random.default_rng(1), 120, 0.02, values)
    write_layer(tmp_path / "a.tsv", layer)
    assert_same(read_layer(tmp_path / "a.tsv", 120), layer)
    write_layer(tmp_path / "a.tsv.gz", layer)
    assert_same(read_layer(tmp_path / "a.tsv.gz", 120), layer)
    packed = gzip.decompress((tmp_path / "a.tsv.gz").read_bytes())
    assert packed == (tmp_path / "a.tsv").read_bytes()


def test_the_text_of_a_layer_by_hand(tmp_path):
    path = tmp_path / "l.tsv"
    write_layer(path, Layer([0, 1, 1, 3], [2, 0, 1], [0.0625, 1, 0.1]))
    assert path.read_bytes() == b"3\t1\t6.250000e-02\n1\t3\t1.000000e+00\n2\t3\t1.000000e-01\n"


@pytest.mark.parametrize("text", [b"1.0", b"1e0\r", b"+1", b"001.000", b"1" + b".0" + b"0" * 60])
@pytest.mark.parametrize("index", [b"2", b"0002", b"000000000000000000000000000000002"])
def test_numbers_are_read_however_they_are_written(tmp_path, text, index):
    path = tmp_path / "l.tsv"
    path.write_bytes(index + b"\t3\t" + text + b"\n1\t1\t-2\n3\t" + index + b"\t1e-3")
    layer = read_layer(path, 3)
    np.testing.assert_array_equal(layer.indptr, [0, 1, 2, 3])
    np.testing.assert_array_equal(layer.indices, [0, 2, 1])
    np.testing.assert_array_equal(layer.values, np.float32([-2, 1e-3, 1]))


@pytest.mark.parametrize("name", ["l.tsv", "l.tsv.gz"])
def test_an_empty_file_is_no_layer_but_images_without_ink(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"") if name.endswith("gz") else b"")
    with pytest.raises(ValueError, match=r"l\.tsv.*, line 1: expected at least one weight; got an"):
        read_layer(path, 2)
    images = read_images(path, 5, 3)
    assert (images.shape, images.nnz) == ((3, 5), 0)


def test_a_file_with_more_lines_than_positions_is_refused_before_it_is_read_out(
    tmp_path, small_blocks
):
    path = tmp_path / "l.tsv"
    path.write_bytes(b"".join(b"%d\t%d\t1\n" % (i % 2 + 1, i // 2 % 2 + 1) for i in range(1000)))
    with pytest.raises(ValueError, match=r"line \d{1,2}: expected every position once; got more l"):
        read_layer(path, 2)


@given(SEED, st.booleans())
def test_lines_may_stand_in_any_order(tmp_path_factory, seed, same):
    rng = np.random.default_rng(seed)
    layer = random_layer(rng, 40, 0.1, "same" if same else "any")
    path = tmp_path_factory.mktemp("tsv") / "l.tsv"
    write_layer(path, layer)
    shuffled = rng.permutation(path.read_bytes().splitlines(keepends=True))
    path.write_bytes(b"".join(shuffled))
    assert_same(read_layer(path, 40), layer)


BAD = [
    (b"1\t2", r"line 2: expected row, column and value between tabs; got b'1\\t2'"),
    (b"1\t2\t3\t4", "line 2: expected row, column and value"),
    (b"1 2 3", "line 2: expected row, column and value"),
    (b"", "line 2: expected row, column and value between tabs; got b''"),
    (b"0\t2\t1", "line 2: expected a row from 1 to 7; got b'0'"),
    (b"8\t2\t1", "line 2: expected a row from 1 to 7; got b'8'"),
    (b"1\t8\t1", "line 2: expected a column from 1 to 7; got b'8'"),
    (b"1\t123456789\t1", "line 2: expected a column from 1 to 7"),
    (b"1\t" + b"9" * 5000 + b"\t1", "line 2: expected a column from 1 to 7; got b'9+'…"),
    (b"-1\t2\t1", "line 2: expected a row from 1 to 7; got b'-1'"),
    (b"1.0\t2\t1", "line 2: expected a row from 1 to 7; got b'1.0'"),
    (b"x\t2\t1", "line 2: expected a row from 1 to 7; got b'x'"),
    (b"\t2\t1", "line 2: expected a row from 1 to 7; got b''"),
    (b"1\t2\t", "line 2: expected a number as value; got b''"),
    (b"1\t2\tone", "line 2: expected a number as value; got b'one'"),
    (b"1\t2\tnan", "line 2: expected a finite float32 value; got b'nan'"),
    (b"1\t2\t-inf", "line 2: expected a finite float32 value"),
    (b"1\t2\t1e39", "line 2: expected a finite float32 value; got b'1e39'"),
    (b"1\t2\0\t1", "line 2: expected a column from 1 to 7"),
    (b"1\t2\t\xff", "line 2: expected a number as value"),
    (b"3\t3\t1", "line 2: expected every position once"),
]


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_what_is_wrong_is_named_with_file_and_line(tmp_path, bad, message):
    path = tmp_path / "bad.tsv"
    path.write_bytes(b"3\t3\t1\n" + bad + b"\n4\t4\t1\n5\t5\t1\n")
    for read in (lambda: read_layer(path, 7), lambda: read_images(path, 7, 7)):
        with pytest.raises(ValueError, match=r"bad\.tsv, " + message):
            read()


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_line_numbers_count_the_blocks_before(tmp_path, monkeypatch, bad, message):
    monkeypatch.setattr(_lines, "_BLOCK", 6000)
    path = tmp_path / "bad.tsv"
    good = b"".join(b"%d\t%d\t1\n" % (i // 700 + 1, i % 700 + 1) for i in range(4899))
    path.write_bytes(good + bad + b"\n")
    for read in (lambda: read_layer(path, 700), lambda: read_images(path, 700, 7)):
        message_ = message.replace("line 2", "line 4900").replace("to 7", r"to \d+")
        if bad in (b"8\t2\t1", b"1\t8\t1"):  # in range here
            continue
        with pytest.raises(ValueError, match=r"bad\.tsv, " + message_):
            read()


def test_a_duplicate_in_another_order_is_named_by_its_second_line(tmp_path, small_blocks):
    path = tmp_path / "l.tsv"
    lines = [f"{r}\t{c}\t{r}.5\n" for r in range(20, 0, -1) for c in (3, 1)]
    path.write_text("".join([*lines, "7\t3\t1\n", "1\t2\t1\n"]))
    message = f"line {len(lines) + 1}: expected every position once; got row 7, column 3 again"
    with pytest.raises(ValueError, match=message):
        read_layer(path, 20)
    with pytest.raises(ValueError, match=message):
        read_images(path, 20, 20)


def test_a_line_without_an_end_is_not_read_into_memory(tmp_path, small_blocks):
    (tmp_path / "l.tsv").write_bytes(b"1\t1\t1\n" + b"1" * 1000)
    with pytest.raises(ValueError, match="line 2: expected a line end"):
        read_layer(tmp_path / "l.tsv", 7)


@pytest.mark.parametrize("cut", [5, -20])
def test_a_truncated_or_false_gz_is_refused(tmp_path, cut):
    path = tmp_path / "l.tsv.gz"
    path.write_bytes(gzip.compress(b"1\t1\t1\n" * 1000)[:cut])
    with pytest.raises(ValueError, match=r"l\.tsv\.gz"):
        read_layer(path, 7)
    path.write_bytes(b"1\t1\t1\n")
    with pytest.raises(ValueError, match=r"l\.tsv\.gz is not a whole \.gz file"):
        read_layer(path, 7)


def test_a_layer_that_is_wrong_leaves_the_file_alone(tmp_path):
    path = tmp_path / "l.tsv"
    path.write_bytes(b"mine")
    with pytest.raises(ValueError, match="finite float32"):
        write_layer(path, Layer([0, 1], [0], [np.nan]))
    assert path.read_bytes() == b"mine"


# ---------------------------------------------------------------- folder


def test_a_folder_is_the_network_that_was_written_there(tmp_path):
    net = network(64, 5, bias=-0.25)
    for k, layer in enumerate(net, 1):
        write_layer(tmp_path / f"n64-l{k}.tsv{'.gz' if k == 3 else ''}", layer)
    read = folder(tmp_path, 64, 5, bias=-0.25)
    assert (read.n_neurons, read.n_layers, read.bias, read.nnz) == (64, 5, -0.25, net.nnz)
    for _ in range(2):
        for a, b in zip(read, net, strict=True):
            assert_same(a, b)


def test_a_folder_is_read_when_its_layers_are_asked_for(tmp_path):
    for k in (1, 2):
        (tmp_path / f"n64-l{k}.tsv").write_bytes(b"1\t1\t1\n" if k == 1 else b"nonsense\n")
    layers = iter(folder(tmp_path, 64, 2, bias=0))
    assert next(layers).indices.size == 1
    with pytest.raises(ValueError, match=r"n64-l2\.tsv, line 1"):
        next(layers)


def test_a_missing_file_of_a_folder_is_named_at_once(tmp_path):
    (tmp_path / "n1024-l1.tsv").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"n1024-l2\.tsv"):
        folder(tmp_path, 1024, 3)


def test_a_folder_of_another_size_needs_a_bias(tmp_path):
    (tmp_path / "n77-l1.tsv").write_bytes(b"")
    with pytest.raises(ValueError, match="bias="):
        folder(tmp_path, 77, 1)
    with pytest.raises(ValueError, match="finite bias"):
        folder(tmp_path, 77, 1, bias=np.inf)


# ---------------------------------------------------------------- images


def random_images(rng, n, n_neurons, density=0.2):
    images = sparse.random_array((n, n_neurons), density=density, format="csr", rng=rng)
    images.data[:] = 1
    return canonical(images)


def canonical(images):
    """As csr_matrix of float32 that has been sorted."""
    matrix = sparse.csr_matrix(images, dtype=np.float32)
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return matrix


def assert_equal_csr(a, b):
    assert a.shape == b.shape
    assert a.format == b.format == "csr"
    assert a.dtype == b.dtype == np.float32
    assert a.has_canonical_format
    for x, y in ((a.indptr, b.indptr), (a.indices, b.indices), (a.data, b.data)):
        np.testing.assert_array_equal(x, y)


@given(SEED, st.integers(1, 40), st.integers(1, 50), st.integers(1, 13))
def test_images_are_read_back_whole_and_in_blocks(tmp_path_factory, seed, n, n_neurons, block):
    images = random_images(np.random.default_rng(seed), n, n_neurons)
    path = tmp_path_factory.mktemp("tsv") / "images.tsv"
    write_images(path, images)
    assert_equal_csr(read_images(path, n_neurons, n), images)
    parts = list(read_image_blocks(path, n_neurons, n, block))
    assert [p.shape[0] for p in parts[:-1]] == [block] * (len(parts) - 1)
    assert_equal_csr(sparse.vstack(parts, format="csr", dtype=np.float32), images)


def test_short_blocks_of_text_give_the_same_blocks_of_images(tmp_path, small_blocks):
    images = random_images(np.random.default_rng(2), 60, 40)
    images.data[images.indptr[10] : images.indptr[35]] = 0
    images = canonical(images)
    write_images(tmp_path / "i.tsv", (images[i : i + 7] for i in range(0, 60, 7)))
    for block in (1, 4, 60, 100):
        parts = read_image_blocks(tmp_path / "i.tsv", 40, 60, block)
        for start, part in zip(range(0, 60, block), parts, strict=True):
            assert_equal_csr(part, images[start : start + block])


def test_images_in_the_order_of_their_neurons_are_sorted_but_not_streamed(tmp_path):
    images = random_images(np.random.default_rng(3), 30, 20)
    columns = images.tocsc()
    rows = columns.indices + 1
    cols = np.repeat(np.arange(20), np.diff(columns.indptr)) + 1
    for value in ("1", None):
        lines = [f"{r}\t{c}\t{value or r}\n" for r, c in zip(rows, cols, strict=True)]
        (tmp_path / "i.tsv").write_text("".join(lines))
        read = read_images(tmp_path / "i.tsv", 20, 30)
        expected = images if value else sparse.diags_array(np.arange(1, 31.0)) @ images
        assert_equal_csr(read, canonical(expected))
        with pytest.raises(ValueError, match=r"i\.tsv, line \d+: expected images in order"):
            list(read_image_blocks(tmp_path / "i.tsv", 20, 30))


def test_duplicates_and_stored_zeros_are_settled_before_images_are_written(tmp_path):
    messy = sparse.coo_matrix(([1.0, 2.0, 0.0], ([0, 0, 1], [1, 1, 0])), shape=(2, 2))
    write_images(tmp_path / "i.tsv", messy)
    assert (tmp_path / "i.tsv").read_bytes() == b"1\t2\t3\n"
    assert messy.nnz == 3


def test_images_that_cannot_be_written_are_refused(tmp_path):
    with pytest.raises(TypeError, match="sparse blocks; got ndarray"):
        write_images(tmp_path / "i.tsv", np.eye(3))
    with pytest.raises(ValueError, match="finite float32 numbers; got nan"):
        write_images(tmp_path / "i.tsv", sparse.csr_array([[np.nan]]))
    broken = sparse.csr_array(np.eye(3))
    broken.indices[1] = 99
    with pytest.raises(ValueError, match="inconsistent"):
        write_images(tmp_path / "i.tsv", broken)


@pytest.mark.parametrize("numbers", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_sizes_below_one_are_refused_at_once(tmp_path, numbers):
    with pytest.raises(ValueError, match="from 1 to"):
        read_image_blocks(tmp_path / "no such file", *numbers)


def test_images_are_streamed_in_bounded_memory(tmp_path):
    images = random_images(np.random.default_rng(4), 3000, 1024)
    write_images(tmp_path / "i.tsv", (images for _ in range(8)))
    tracemalloc.start()
    nnz = sum(b.nnz for b in read_image_blocks(tmp_path / "i.tsv", 1024, 24_000, 100))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert nnz == 8 * images.nnz
    size = (tmp_path / "i.tsv").stat().st_size
    assert size > 50e6
    assert peak < 20 * _lines._BLOCK


# ---------------------------------------------------------------- categories


def test_categories_are_read_back_in_order(tmp_path):
    write_categories(tmp_path / "c.tsv", np.array([7, 0, 59_999]))
    assert (tmp_path / "c.tsv").read_bytes() == b"1\n8\n60000\n"
    np.testing.assert_array_equal(read_categories(tmp_path / "c.tsv"), [0, 7, 59_999])
    write_categories(tmp_path / "none.tsv", [])
    assert read_categories(tmp_path / "none.tsv").size == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"1\n0\n", "line 2: expected a number of an image from 1 to 60000; got b'0'"),
        (b"1\n60001\n", "line 2: expected a number of an image from 1 to 60000"),
        (b"1\n2\tx\n", "line 2: expected a number of an image"),
        (b"1\n\n2\n", "line 2: expected a number of an image"),
        (b"5\n7\n5\n", "line 3: expected every image once; got b'5', as in line 1"),
    ],
)
def test_wrong_categories_are_named_with_their_line(tmp_path, text, message):
    (tmp_path / "c.tsv").write_bytes(text)
    with pytest.raises(ValueError, match=message):
        read_categories(tmp_path / "c.tsv")


@pytest.mark.parametrize("images", [[-1], [1, 1], [[1, 2]]])
def test_categories_that_are_no_images_are_not_written(tmp_path, images):
    with pytest.raises(ValueError, match="distinct images >= 0"):
        write_categories(tmp_path / "c.tsv", images)
    with pytest.raises(TypeError, match="integers; got float64"):
        write_categories(tmp_path / "c.tsv", [0.5])


def test_the_official_categories_of_1024_neurons_are_1812(tmp_path):
    path = datasets.data_home() / "graphchallenge" / "neuron1024-l120-categories.tsv"
    if not path.is_file():
        pytest.skip("the official categories are not in the data home")
    ids = read_categories(path)
    assert ids.size == 1812
    write_categories(tmp_path / "c.tsv", ids)
    assert (tmp_path / "c.tsv").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("value", ["1_0", " 1", "1 "])
def test_what_only_python_reads_as_a_number_is_refused(tmp_path, value):
    path = tmp_path / "layer.tsv"
    path.write_text(f"1\t1\t0.5\n2\t1\t{value}\n")
    with pytest.raises(ValueError, match="line 2: expected a number as value"):
        read_layer(path, 4)
