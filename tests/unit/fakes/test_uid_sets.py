"""UidSet against sets of Python."""

import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakemail.uids import NONE, UID_MAX, UidSet

#: Few enough numbers that sets touch, overlap and leave holes.
NUMBERS = st.integers(min_value=1, max_value=40)
SPANS = st.lists(st.tuples(NUMBERS, st.integers(0, 12)), max_size=8)
PLAIN = SPANS.map(lambda spans: {each for low, more in spans for each in range(low, low + more + 1)})
#: Intervals of which some meet the largest number that there is.
RANGES = st.lists(
    st.tuples(st.integers(1, UID_MAX), st.integers(0, 3)).map(lambda pair: (pair[0], min(sum(pair), UID_MAX)))
)


def made(numbers):
    return UidSet.single(numbers)


def well_formed(uids):
    """Ascending intervals that neither touch nor overlap."""
    ranges = list(uids.ranges())
    assert all(low <= high for low, high in ranges)
    assert all(before[1] + 1 < after[0] for before, after in itertools.pairwise(ranges))
    return uids


@given(PLAIN)
def test_a_set_holds_what_it_was_made_of_in_order(numbers):
    uids = well_formed(made(numbers))
    assert list(uids) == sorted(numbers)
    assert len(uids) == len(numbers)
    assert bool(uids) == bool(numbers)
    assert [number in uids for number in range(60)] == [number in numbers for number in range(60)]
    assert (uids.smallest, uids.largest) == (min(numbers, default=0), max(numbers, default=0))


@given(RANGES)
def test_ranges_in_any_order_become_one_set(ranges):
    uids = well_formed(UidSet.of(ranges))
    assert all(low in uids and high in uids for low, high in ranges)
    assert len(uids) <= sum(high - low + 1 for low, high in ranges)
    assert UidSet.of(reversed(ranges)) == uids


@given(PLAIN)
def test_ascending_numbers_need_no_list(numbers):
    assert well_formed(UidSet.ascending(iter(sorted(numbers)))) == made(numbers)
    assert well_formed(UidSet.joined((each, each + 2) for each in sorted(numbers))) == made(
        {each + more for each in numbers for more in range(3)}
    )


@given(PLAIN, PLAIN)
def test_the_algebra_is_that_of_sets(first, second):
    one, two = made(first), made(second)
    assert set(well_formed(one | two)) == first | second
    assert set(well_formed(one & two)) == first & second
    assert set(well_formed(one - two)) == first - second
    assert (one == two) == (first == second)


@given(PLAIN, NUMBERS, NUMBERS)
def test_between_is_the_part_from_one_number_to_another(numbers, low, high):
    assert set(well_formed(made(numbers).between(low, high))) == {each for each in numbers if low <= each <= high}


@given(PLAIN, NUMBERS, st.integers(0, 9))
def test_a_range_may_be_put_anywhere(numbers, low, more):
    longer = well_formed(made(numbers).with_range(low, low + more))
    assert set(longer) == numbers | set(range(low, low + more + 1))


@given(PLAIN)
def test_positions_and_numbers_belong_to_each_other(numbers):
    uids = made(numbers)
    for position, number in enumerate(sorted(numbers), 1):
        assert (uids.nth(position), uids.position(number)) == (number, position)
    assert all(uids.position(each) == 0 for each in set(range(60)) - numbers)
    for outside in (0, len(numbers) + 1):
        with pytest.raises(IndexError):
            uids.nth(outside)


@given(PLAIN, PLAIN)
def test_positions_name_numbers_and_beyond_the_end_nothing(numbers, positions):
    ordered = sorted(numbers)
    wanted = {ordered[at - 1] for at in positions if at <= len(ordered)}
    assert set(well_formed(made(numbers).at_positions(made(positions)))) == wanted


@given(PLAIN, PLAIN)
def test_runs_are_dense_and_say_where_they_begin(numbers, chosen):
    uids, wanted = made(numbers), made(chosen)
    rows = [(position + each - low, each) for position, low, high in uids.runs(wanted) for each in range(low, high + 1)]
    assert rows == [(uids.position(each), each) for each in sorted(numbers & chosen)]
    assert [low for _, low, _ in uids.runs()] == [low for low, _ in uids.ranges()]


@given(PLAIN)
def test_the_text_is_a_compressed_sequence_set(numbers):
    text = str(made(numbers))
    parts = [part.split(":") for part in text.split(",") if part]
    assert {each for part in parts for each in range(int(part[0]), int(part[-1]) + 1)} == numbers
    assert all(int(before[-1]) + 1 < int(after[0]) for before, after in itertools.pairwise(parts))


def test_no_operation_changes_a_set_that_somebody_holds():
    held = UidSet.of([(1, 5), (9, 9)])
    for made_anew in (held | made({7}), held & made({2}), held - made({2}), held.with_range(10, 12)):
        assert made_anew != held
    assert str(held) == "1:5,9"


def test_the_largest_numbers_are_in_reach():
    top = UidSet.of([(UID_MAX, UID_MAX), (1, 1)])
    assert str(top) == "1,4294967295"
    assert str(top - UidSet.of([(1, UID_MAX - 1)])) == "4294967295"
    assert len(UidSet.of([(1, UID_MAX)])) == UID_MAX
    assert str(top.between(2, UID_MAX)) == "4294967295"


def test_an_empty_set_is_nothing():
    assert (str(NONE), len(NONE), list(NONE), list(NONE.runs())) == ("", 0, [], [])
    assert repr(UidSet.of([(2, 3)])) == "UidSet(2:3)"
    assert UidSet.of([]) == NONE
    assert set() != NONE


def test_a_million_dense_numbers_take_no_memory():
    tracemalloc.start()
    dense = UidSet.of([(1, 1_000_000)])
    without_one = dense - made({500_000})
    assert len(without_one) == 999_999
    size_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size_bytes < 10_000
