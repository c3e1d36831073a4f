"""When updates are due: tables worked by hand, and windows that make no sense."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnsparse.sparsify.when import At, Every, Rounds


def test_at_gives_the_nearest_steps_once():
    assert At().steps(1000) == (0,)
    assert At((0.5,)).steps(1001) == (500,)
    assert At((0.1, 0.101, 1.0)).steps(100) == (10, 100)


def test_a_single_moment_is_the_end_of_its_schedule():
    assert At((0.5,)).progress(499, 1000) == 0.0
    assert At((0.5,)).progress(500, 1000) == 1.0
    assert At().progress(0, 1000) == 1.0


def test_every_runs_from_the_beginning_of_the_window_in_steps_of_the_interval():
    assert list(Every(100).steps(350)) == [0, 100, 200, 300]
    assert list(Every(100, 0.1, 0.5).steps(1000)) == [100, 200, 300, 400, 500]
    assert list(Every(1).steps(3)) == [0, 1, 2, 3]


def test_inside_leaves_out_the_beginning_and_the_last_step_of_training():
    assert list(Every(100, inside=True).steps(300)) == [100, 200]
    assert list(Every(100, end=0.5, inside=True).steps(1000)) == [100, 200, 300, 400, 500]


def test_the_last_update_is_where_the_schedule_ends():
    when = Every(100, 0.1, 0.45)
    assert [when.progress(t, 1000) for t in when.steps(1000)] == [0.0, 1 / 3, 2 / 3, 1.0]
    assert when.progress(0, 1000) == 0.0
    assert when.progress(999, 1000) == 1.0


def test_rounds_end_the_equal_parts_of_a_window():
    assert Rounds(3, 0.2, 0.8).steps(1000) == (400, 600, 800)
    assert Rounds(3).steps(10) == (3, 6, 10)
    when = Rounds(3)
    assert [when.progress(t, 10) for t in (0, 2, 3, 5, 6, 9, 10)] == pytest.approx(
        [0, 0, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 1]
    )


@given(st.integers(1, 40), st.integers(1, 500), st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_steps_rise_within_the_training_and_progress_ends_at_one(interval, total, a, b, inside):
    whens = [Every(interval, min(a, b), max(a, b), inside), At((min(a, b),)), Rounds(interval)]
    for when in whens:
        try:
            steps = list(when.steps(total))
        except ValueError:
            continue
        assert steps == sorted(set(steps))
        assert 0 <= steps[0] <= steps[-1] <= total
        ways = [when.progress(t, total) for t in range(total + 1)]
        assert ways == sorted(ways)
        assert when.progress(steps[-1], total) == 1.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: At(()), "rising within"),
        (lambda: At((0.5, 0.5)), "rising within"),
        (lambda: At((0.5, 0.2)), "rising within"),
        (lambda: At((100,)), "Divide by the total"),
        (lambda: At((float("nan"),)), "rising within"),
        (lambda: Every(0), "every.*>= 1; got 0"),
        (lambda: Every(1.5), "every.*>= 1; got 1.5"),
        (lambda: Every(10, 0.7, 0.3), "begin <= end; got 0.7 and 0.3"),
        (lambda: Every(10, 0, 2000), "Divide by the total"),
        (lambda: Every(10, float("nan")), "window within"),
        (lambda: Rounds(0), "rounds.*>= 1; got 0"),
        (lambda: Rounds(2, 0.4, 0.4), "begin < end"),
        (lambda: Rounds(2, 0.5, 0.4), "begin <= end"),
    ],
)
def test_windows_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_window_without_a_step_is_refused():
    with pytest.raises(ValueError, match=r"no update is due: every=100 steps.*Make every smaller"):
        Every(100, inside=True).steps(100)
    with pytest.raises(ValueError, match="5 rounds do not fit into 4 steps"):
        Rounds(5).steps(4)


def test_a_schedule_is_not_squeezed_into_a_single_update():
    with pytest.raises(ValueError, match="one update only is due: every=100"):
        Every(100).steps(99)
    assert list(Every(100).steps(100)) == [0, 100]
    assert list(Every(100, 0.5, 0.5).steps(99)) == [50]  # a window of one step
    assert list(Every(100, inside=True).steps(150)) == [100]
