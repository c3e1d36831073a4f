"""The embedded reviews: the same bits each time, well formed, and neither trivial nor hopeless."""

import hashlib
import inspect
import re
from typing import Any

import numpy as np
import pytest
from scipy import optimize

from nnsparse.datasets import _phrases, _reviews, _text, imdb, reviews
from nnsparse.datasets._phrases import GRAMMAR


def write(n: int, seed: int = 0, stream: int = 0) -> tuple[np.ndarray, list[str]]:
    labels, texts = _reviews._split(n, seed, stream)
    return labels, list(texts)


def test_shapes_and_types_are_those_of_imdb() -> None:
    for (x, y), n in zip(reviews(200, 50, max_length=90), (200, 50), strict=True):
        assert x.shape == (n, 90)
        assert x.dtype == np.int32
        assert x.flags.c_contiguous
        assert 2 <= x.max() < 8_000
        assert (x[:, 0] > 0).all()
        assert y.shape == (n,)
        assert y.dtype == np.int64
    for (x, y), n in zip(reviews(200, 50, form="counts", ngrams=2), (200, 50), strict=True):
        assert x.format == "csr"
        assert x.shape == (n, 8_000)
        assert x.dtype == np.float32
        assert x.has_canonical_format
        assert len(y) == n


def test_settings_of_the_encoding_are_those_of_imdb() -> None:
    shared = {"vocabulary", "ngrams", "form", "max_length"}
    mine, other = (inspect.signature(f).parameters for f in (reviews, imdb))
    assert shared <= set(mine) & set(other)
    for name in shared - {"vocabulary"}:
        assert mine[name] == other[name]


def test_the_bits_are_the_same_on_every_machine() -> None:
    digest = hashlib.sha256()
    for stream in (0, 1):
        labels, texts = write(200, stream=stream)
        digest.update(labels.astype("<i8").tobytes() + "\n".join(texts).encode("ascii"))
    assert digest.hexdigest() == "3b2943eb5332c83d1b1b51c14e28dcdab529a0b363cc6e96d7375a769868318c"
    (x, y), (x_test, _) = reviews(200, 100, ngrams=2)
    arrays = x.astype("<i4").tobytes() + x_test.astype("<i4").tobytes() + y.astype("<i8").tobytes()
    assert (
        hashlib.sha256(arrays).hexdigest()
        == "3dd8987825035bed86a2ccff16a652e928a2f2d14f8346feae04648be2ba08fe"
    )


def test_the_same_seed_gives_the_same_data_and_another_gives_other_data() -> None:
    first, again, other = write(50, 7), write(50, 7), write(50, 8)
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1] == again[1]
    assert not set(first[1]) & set(other[1])


def test_the_test_set_has_its_own_stream_and_does_not_depend_on_the_size_of_the_other() -> None:
    assert write(30, 0, 0)[1] != write(30, 0, 1)[1]
    few, many = (reviews(n, 30, vocabulary=5_000)[1] for n in (10, 40))
    np.testing.assert_array_equal(few[1], many[1])
    np.testing.assert_array_equal((few[0] > 0).sum(1), (many[0] > 0).sum(1))


def test_how_many_numbers_are_drawn_at_a_time_does_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = write(20)[1]
    monkeypatch.setattr(_reviews, "_DRAWN", 7)
    assert write(20)[1] == texts


@pytest.mark.parametrize("n", [1, 2, 7, 123])
def test_classes_are_balanced_to_within_one_review_and_shuffled(n: int) -> None:
    (_, y), _ = reviews(n, 1)
    counts = np.bincount(y, minlength=2)
    assert counts.sum() == n
    assert abs(counts[0] - counts[1]) <= 1
    labels = write(2_000)[0]
    assert 0.45 < (labels[1:] == labels[:-1]).mean() < 0.55


def test_no_review_occurs_twice() -> None:
    texts = write(3_000)[1] + write(1_000, stream=1)[1]
    assert len(set(texts)) == len(texts)


def test_reviews_look_like_text_with_breaks_sentences_and_no_symbol_left() -> None:
    texts = write(500)[1]
    for text in texts:
        assert text.isascii()
        assert not set(text) & set("{}_|")
        assert text[0].isupper() or text[1].isupper()  # two letters may be swapped
        assert "  " not in text
        assert 6 <= len(re.findall(r"[.!](?: |<br /><br />)", text)) <= 16
    assert any("<br />" in text for text in texts)
    lengths = [len(_text.tokenise(text)) for text in texts]
    assert 60 < np.mean(lengths) < 120
    assert max(lengths) < 256


def test_every_symbol_of_the_grammar_is_defined_used_and_ends() -> None:
    used = {s for texts in GRAMMAR.values() for text in texts for s in re.findall(r"{(.*?)}", text)}
    starts = {"aside", "favour", "complaint", "even_so", "even_though"}
    assert used | starts == set(GRAMMAR)
    assert not used & starts
    finished: set[str] = set()
    for _ in GRAMMAR:  # symbols whose every text is made of finished ones
        finished |= {
            symbol
            for symbol, texts in GRAMMAR.items()
            if all(set(re.findall(r"{(.*?)}", text)) <= finished for text in texts)
        }
    assert finished == set(GRAMMAR)


def test_praise_and_blame_are_mirror_images() -> None:
    assert len(GRAMMAR["praise"]) == len(GRAMMAR["blame"])
    assert not set(GRAMMAR["praise"]) & set(GRAMMAR["blame"])
    assert len(GRAMMAR["enjoyed"]) == len(GRAMMAR["endured"])
    for well, ill in (("good", "bad"), ("favour", "complaint"), ("even_so", "even_though")):
        assert tuple(map(_phrases._mirrored, GRAMMAR[ill])) == GRAMMAR[well]
        assert GRAMMAR[ill] != GRAMMAR[well]


def test_negation_turns_an_opinion_round() -> None:
    for text in GRAMMAR["good"]:
        assert ("{blame}" in text) == ("{not}" in text)
        assert ("{praise}" in text) == ("{not}" not in text)
    hate = {"hate", "dislike", "regret", "hated", "disliked"}
    for text in GRAMMAR["enjoyed"]:
        negated = text.split()[0] in ("did", "didn't", "never")
        assert (text.split()[-1] in hate) == negated


@pytest.mark.parametrize(
    "name", ["n_train", "n_test", "seed", "vocabulary", "ngrams", "max_length"]
)
@pytest.mark.parametrize("value", [1.0, "1", None, True])
def test_an_argument_that_is_no_integer_is_refused(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"reviews expects an integer {name}; got "):
        reviews(**{"n_train": 1, "n_test": 1, name: value})


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [
        ("n_train", 0, 1),
        ("n_test", -3, 1),
        ("seed", -1, 0),
        ("vocabulary", 0, 3),
        ("ngrams", 3, 1),
        ("max_length", 0, 1),
    ],
)
def test_an_argument_out_of_range_is_refused(name: str, value: int, least: int) -> None:
    with pytest.raises(ValueError, match=rf"reviews expects {name} from {least} to .* got {value}"):
        reviews(**{"n_train": 1, "n_test": 1, name: value})


def test_numpy_integers_are_integers() -> None:
    (x, _), _ = reviews(np.int32(3), np.uint8(2), seed=np.int64(5))
    assert len(x) == 3


def linear_accuracy(ngrams: int) -> float:
    """Test accuracy of logistic regression on counts, with a small penalty on the weights."""
    (x, y), (x_test, y_test) = reviews(form="counts", ngrams=ngrams)
    signs = 2 * y - 1

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margins = signs * (x @ w)
        slopes = -signs / (1 + np.exp(margins))
        value = np.logaddexp(0, -margins).sum() + 5 * w @ w
        return float(value), x.T @ slopes + 10 * w

    start = np.zeros(x.shape[1])
    w = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 40}).x
    return float(((x_test @ w > 0) == y_test).mean())


@pytest.mark.slow
def test_a_linear_model_is_right_often_and_bigrams_help() -> None:
    words, bigrams = linear_accuracy(1), linear_accuracy(2)
    assert 0.82 < words < 0.87
    assert 0.89 < bigrams < 0.94
