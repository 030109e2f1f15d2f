from functools import partial

import pytest

from fsat_kedro.parallel import map_clips


def square(number):
    return number**2


def fail_at(number, *, bad):
    if number == bad:
        raise ValueError(f"clip {number}")
    return number


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_results_come_in_the_order_of_the_items(n_jobs):
    results = map_clips(square, iter(range(20)), n_jobs=n_jobs, total=20, description="")
    assert list(results) == [number**2 for number in range(20)]


@pytest.mark.filterwarnings("ignore:.*have been cancelled")
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_items_are_read_a_few_ahead_of_the_results_and_no_more(n_jobs):
    read = []

    def items():
        for number in range(100_000):
            read.append(number)
            yield number

    results = map_clips(square, items(), n_jobs=n_jobs, total=100_000, description="")
    assert not read
    assert next(results) == 0
    assert 1 <= len(read) < 50_000
    results.close()


def test_nothing_gives_nothing():
    assert list(map_clips(square, [], n_jobs=1, total=0, description="")) == []


def test_an_error_in_one_clip_reaches_the_caller():
    results = map_clips(partial(fail_at, bad=3), range(9), n_jobs=2, total=9, description="")
    with pytest.raises(ValueError, match="clip 3"):
        list(results)
