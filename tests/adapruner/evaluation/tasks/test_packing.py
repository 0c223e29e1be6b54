"""Groups share what they claim to share, and batches cost the least."""

from __future__ import annotations

import itertools
import random

from adapruner.evaluation.tasks.packing import CALL_TOKENS, Request, call_tokens, groups_of, packed


def requests(seed: int) -> list[Request]:
    """Requests with several continuations of the same contexts, some of them nested."""
    rng = random.Random(seed)

    def words(least: int, most: int) -> list[int]:
        return [rng.randint(3, 20) for _ in range(rng.randint(least, most))]

    pairs = []
    for _ in range(8):
        context = words(1, 25)
        pairs += [(context, words(1, 9)) for _ in range(rng.randint(1, 5))]
        pairs += [([*context, *words(1, 2)], words(2, 6)) for _ in range(2)]
    rng.shuffle(pairs)
    return [Request(i, [*c, *t][:-1], t) for i, (c, t) in enumerate(pairs)]


def test_every_request_is_in_one_group_and_starts_with_its_prefix() -> None:
    all_requests = requests(seed=2)
    groups = groups_of(all_requests)
    numbers = sorted(member.number for group in groups for member in group.members)
    assert numbers == list(range(len(all_requests)))
    for group in groups:
        assert all(member.tokens[: group.shared] == group.prefix for member in group.members)
    assert any(len(group.members) > 1 for group in groups)


def test_grouping_never_computes_more_tokens_than_no_grouping() -> None:
    all_requests = requests(seed=3)
    grouped = sum(
        group.shared + sum(len(member.tokens) - group.shared for member in group.members)
        for group in groups_of(all_requests)
    )
    assert grouped < sum(len(request.tokens) for request in all_requests)


def test_a_single_shared_token_makes_no_group() -> None:
    groups = groups_of([Request(0, [1, 5, 6], [7]), Request(1, [1, 8, 9], [7])])
    assert [len(group.members) for group in groups] == [1, 1]


def test_no_requests_make_no_groups() -> None:
    assert groups_of([]) == []


def test_batches_are_the_cheapest_that_are_allowed() -> None:
    def cost(batches: list[list[int]]) -> int:
        return sum(len(batch) * batch[0] + CALL_TOKENS for batch in batches)

    lengths = [90, 80, 75, 40, 39, 12, 9, 8, 1]
    best = packed(lengths, lambda n: n, lambda count, longest: count * longest <= 200)
    assert sorted(itertools.chain(*best), reverse=True) == lengths
    costs = []
    for splits in itertools.product([False, True], repeat=len(lengths) - 1):
        batches = [[lengths[0]]]
        for is_split, length in zip(splits, lengths[1:], strict=True):
            batches.append([length]) if is_split else batches[-1].append(length)
        if all(len(batch) == 1 or len(batch) * batch[0] <= 200 for batch in batches):
            costs.append(cost(batches))
    assert cost(best) == min(costs)


def test_an_item_too_large_for_a_batch_is_a_batch_of_its_own() -> None:
    batches = packed([300, 5], lambda n: n, lambda count, longest: count * longest <= 200)
    assert batches == [[300], [5]]


def test_a_gpu_gets_fewer_and_larger_batches() -> None:
    fixed = call_tokens("cuda:0", layers=30, params=135_000_000)
    assert call_tokens("cpu", layers=30, params=135_000_000) == CALL_TOKENS
    assert CALL_TOKENS <= call_tokens("cuda", layers=80, params=70 * 10**9) < fixed / 100
    lengths = [*range(1, 101)]
    on_cpu, on_gpu = (
        packed(lengths, lambda n: n, lambda count, longest: count * longest <= 8192, cost)
        for cost in (CALL_TOKENS, fixed)
    )
    assert len(on_gpu) < len(on_cpu)
    assert sorted(n for batch in on_gpu for n in batch) == lengths
