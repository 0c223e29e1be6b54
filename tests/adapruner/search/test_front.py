"""The Pareto front, the choice on it, and trials that are spread along it."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from adapruner.search.front import Values, best, front, nearest_to_ideal

CORNER = {0: (0.0, 1.0), 1: (0.2, 0.2), 2: (1.0, 0.0), 3: (0.5, 0.5), 4: (0.2, 0.3)}
"""Three on the front; 4 is dominated by 1, and 3 by 1 and 4."""


def random_values(seed: int, count: int, objectives: int) -> dict[int, Values]:
    drawn = random.Random(seed)
    return {n: tuple(drawn.gauss(0, 10**i) for i in range(objectives)) for n in range(count)}


def test_front_holds_what_no_other_dominates() -> None:
    assert front(CORNER) == [0, 1, 2]
    assert front({0: (1.0, 2.0), 1: (1.0, 2.0), 2: (1.0, 3.0)}) == [0, 1], "equals stay"
    assert front({}) == []


def test_the_choice_is_nearest_to_the_ideal_in_units_of_the_ranges() -> None:
    assert nearest_to_ideal(CORNER) == 1
    scaled = {n: (100 * a - 7, 0.01 * b + 3) for n, (a, b) in CORNER.items()}
    assert nearest_to_ideal(scaled) == 1, "units do not matter"
    assert nearest_to_ideal({4: (0.0, 1.0), 2: (1.0, 0.0)}) == 2, "of equals the lowest number"
    assert nearest_to_ideal({0: (5.0, 2.0), 1: (5.0, 1.0)}) == 1, "an objective without a range"


def test_values_far_from_the_front_do_not_move_the_choice() -> None:
    line = {0: (0.0, 10.0), 1: (1.0, 4.0), 2: (6.0, 3.0), 3: (10.0, 0.0)}
    assert nearest_to_ideal(line) == 1
    assert nearest_to_ideal(line | {4: (1000.0, 10.0), 5: (10.0, 1000.0)}) == 1


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_the_choice_is_on_the_front(objectives: int) -> None:
    for seed in range(50):
        values = random_values(seed, 12, objectives)
        assert nearest_to_ideal(values) in front(values)


def test_the_best_of_one_objective_are_the_lowest_in_order() -> None:
    values = {0: (3.0,), 1: (1.0,), 2: (2.0,), 3: (1.0,), 4: (1.0,)}
    assert best(values, 2) == [1, 3]
    assert best(values, 9) == [1, 3, 4, 2, 0]


def test_the_best_of_several_are_the_front_and_then_the_next() -> None:
    assert set(best(CORNER, 3)) == {0, 1, 2}
    assert best(CORNER, 5)[3:] == [4, 3]
    assert best(CORNER, 1) == [nearest_to_ideal(CORNER)]


def test_a_long_front_is_represented_by_its_middle_its_ends_and_the_widest_gaps() -> None:
    line = {n: (n / 10, 1 - n / 10) for n in range(11)}
    assert best(line, 5) == [5, 0, 10, 2, 7]
    crowded = {n: ((n / 10) ** 4, 1 - (n / 10) ** 4) for n in range(11)}
    chosen = [crowded[n][0] for n in sorted(best(crowded, 4))]
    assert chosen[0] == 0 and chosen[-1] == 1
    assert max(b - a for a, b in pairwise(chosen)) < 0.5
