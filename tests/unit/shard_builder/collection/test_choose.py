from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shard_builder.collection.choose import choose_samples, parse_share


@given(st.lists(st.integers(0, 30), max_size=12), st.integers(0, 60), st.integers(0, 2**63 - 1))
def test_as_many_as_asked_each_once_all_in_range(shards, count, seed):
    chosen = choose_samples(shards, count, seed)
    drawn = [(shard, sample) for shard, samples in chosen.items() for sample in samples]
    assert len(drawn) == len(set(drawn)) == min(count, sum(shards))
    assert drawn == sorted(drawn)
    assert all(0 <= sample < shards[shard] for shard, sample in drawn)
    assert chosen == choose_samples(shards, count, seed)


def test_they_are_even_over_the_shards_and_depend_on_the_seed():
    chosen = choose_samples([100] * 10, 50, 0)
    assert {len(samples) for samples in chosen.values()} == {5}
    assert chosen != choose_samples([100] * 10, 50, 1)


def test_shares():
    assert parse_share("1%", 1000) == 10
    assert parse_share("0.5%", 1000) == 5
    assert parse_share("1%", 3) == 1
    assert parse_share("100%", 3) == 3
    assert parse_share("7", 1000) == 7
    assert parse_share("2000", 1000) == 1000
