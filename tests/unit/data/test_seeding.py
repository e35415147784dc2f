from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gfm_pipeline.data.seeding import MAX_SEED, permutation, raw_bits, stable_id, uniforms


def test_bits_are_those_of_every_numpy_and_machine():
    assert stable_id("sen12ms") == 14776652322045668096
    assert raw_bits(2, 0, stable_id("sen12ms"), 3).tolist() == [18202427446567000149, 14347105765287705495]


def test_names_that_share_their_digits_do_not_share_their_numbers():
    # As SeedSequence would see them: [1, 2] and [1 + 2 * 2**32] are the same two words.
    assert raw_bits(4, 1, 2).tolist() != raw_bits(4, 1 + 2 * 2**32).tolist()
    assert raw_bits(4, 1).tolist() != raw_bits(4, 1, 0).tolist()


def test_uniforms_fill_the_unit_interval_evenly():
    numbers = uniforms(20_000, 5)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.histogram(numbers, bins=10, range=(0, 1))[0]
    assert abs(counts - 2000).max() < 200


def test_permutations_are_permutations():
    assert sorted(permutation(1000, 1)) == list(range(1000))
    assert permutation(1000, 1).tolist() != permutation(1000, 2).tolist()
    assert len(permutation(0, 1)) == 0


@given(name=st.lists(st.integers(0, MAX_SEED), min_size=1, max_size=6), count=st.integers(1, 50))
def test_words_are_those_of_a_fresh_generator(name, count):
    words = [len(name), *(half for number in name for half in (number % 2**32, number >> 32))]
    expected = np.random.Philox(np.random.SeedSequence(words)).random_raw(count)
    np.testing.assert_array_equal(raw_bits(count, *name), expected)
