"""Batches: samples of one picture together, the longest first, no picture cut without need."""

from __future__ import annotations

from himap.batches import in_batches
from himap.progress import Quiet
from himap.tasks.base import Sample


def batches(samples: list[Sample], batch_size: int) -> list[list[str]]:
    def ask(batch: object) -> list[str]:
        return [sample.id for sample in batch]

    return list(in_batches(samples, batch_size, ask, lambda sample, error: error, Quiet()))


def sample(name: str, length: int = 5) -> Sample:
    """`a1` asks about picture a, `-1` about one that nothing is known of."""
    return Sample(name, "?" * length, picture=name[0].strip("-"))


def test_samples_of_one_picture_are_asked_together() -> None:
    mixed = [sample(name) for name in ("a1", "b1", "-1", "a2", "b2", "-2", "a3", "b3")]
    assert batches(mixed, 3) == [["a1", "a2", "a3"], ["b1", "b2", "b3"], ["-1", "-2"]]


def test_the_longest_come_first_among_pictures_and_within_one() -> None:
    mixed = [sample("a1", 2), sample("b1", 9), sample("a2", 7), sample("-1", 8), sample("b2", 1)]
    assert batches(mixed, 2) == [["b1", "b2"], ["-1"], ["a2", "a1"]]


def test_a_picture_is_cut_only_where_half_a_batch_would_stay_empty() -> None:
    four = [sample(f"{picture}{number}") for picture in "abc" for number in range(4)]
    assert [len(batch) for batch in batches(four, 6)] == [4, 4, 4]
    assert [len(batch) for batch in batches(four, 9)] == [8, 4]
    many = [sample(f"a{number}") for number in range(7)]
    assert [len(batch) for batch in batches(many, 3)] == [3, 3, 1]
    three_of_eight = [*(sample(f"a{n}") for n in range(3)), *(sample(f"b{n}") for n in range(8))]
    assert [len(batch) for batch in batches(three_of_eight, 8)] == [8, 3], "b goes on where a left room"
    assert {name[0] for name in batches(three_of_eight, 8)[0]} == {"a", "b"}
