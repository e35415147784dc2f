"""Sub-batches that are given, and those that are shared out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfm_pipeline.data.config import DataConfig, StreamConfig
from gfm_pipeline.data.sub_batch import StreamSize, samples_per_step
from gfm_pipeline.errors import ConfigError

SENSORS = ("s1", "s2", "rgb", "dsm")


def config(batch_images, *, batches="heterogeneous", **sub_batches):
    streams = {name: StreamConfig(collections=("x",), sub_batch=given, lr=1) for name, given in sub_batches.items()}
    return DataConfig(streams=streams, batch_images=batch_images, batches=batches)


def sizes(**streams):
    return {name: StreamSize(samples, SENSORS[:sensors]) for name, (samples, sensors) in streams.items()}


def test_the_mixture_of_the_paper_in_proportion():
    found = samples_per_step(config(172, a=None, b=None, c=None), sizes(a=(1600, 1), b=(160, 2), c=(20, 2)))
    assert found == {"a": 142, "b": 14, "c": 1}  # 142 + 28 + 2 images
    assert samples_per_step(config(None, a=128, b=32), sizes(a=(1600, 1), b=(160, 2))) == {"a": 128, "b": 16}


def test_what_is_given_is_kept_and_the_others_share_the_rest():
    found = samples_per_step(config(100, a=None, b=40, c=None), sizes(a=(300, 1), b=(5, 2), c=(100, 1)))
    assert found == {"a": 45, "b": 20, "c": 15}


def test_a_homogeneous_step_takes_all_images_from_its_stream():
    both = config(33, batches="homogeneous", a=None, b=None, c=8)
    assert samples_per_step(both, sizes(a=(900, 1), b=(10, 2), c=(10, 2))) == {"a": 33, "b": 16, "c": 4}


@given(
    st.lists(st.tuples(st.integers(1, 10**7), st.integers(1, 4)), min_size=1, max_size=6),
    st.integers(0, 300),
)
def test_shares_fill_the_total_with_at_least_one_sample_each_and_as_evenly_as_whole_samples_can(found, spare):
    streams = {f"s{number}": entry for number, entry in enumerate(found)}
    total = sum(sensors for _, sensors in found) + spare
    shares = samples_per_step(config(total, **dict.fromkeys(streams)), sizes(**streams))
    used = sum(shares[name] * sensors for name, (_, sensors) in streams.items())
    assert min(shares.values()) >= 1
    assert total - used < min(sensors for _, sensors in found)
    for name, (samples, sensors) in streams.items():
        for other, (others, _) in streams.items():
            if shares[name] > 1 and total - used + sensors >= streams[other][1] and sensors == streams[other][1]:
                # Nobody has a sample that another stream, seen less even with it, should have had.
                assert shares[name] / samples <= (shares[other] + 1) / others


@pytest.mark.parametrize(
    ("total", "sub_batches", "message"),
    [
        (4, {"a": None, "b": None, "c": 2}, "is 4, too few for one sample of each stream: a, b need 3 .* at least 5"),
        (None, {"a": 3, "b": 3, "c": 2}, r"b.sub_batch is 3 images, expected a multiple of its 2 sensors \(s1, s2\)"),
    ],
)
def test_what_cannot_be_shared_is_refused_with_the_number_that_would_do(total, sub_batches, message):
    with pytest.raises(ConfigError, match=message):
        samples_per_step(config(total, **sub_batches), sizes(a=(9, 1), b=(9, 2), c=(9, 2)))


def test_a_homogeneous_step_too_small_for_a_sample():
    with pytest.raises(ConfigError, match="a sample of stream b has 2 images"):
        samples_per_step(config(1, batches="homogeneous", b=None), sizes(b=(9, 2)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_images": None, "a": None}, "streams.a.sub_batch is not set: set it, or data.batch_images"),
        ({"batch_images": 8, "a": 4}, "every stream has a sub_batch of its own"),
    ],
)
def test_contradictions_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        config(**settings)
