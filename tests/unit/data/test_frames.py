"""Which dates are taken of a series, and what a batch says of place and time."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfm_pipeline.data.config import TimeConfig
from gfm_pipeline.data.frames import NO_DAY, bounds_of, days_of, draw_frames


@given(st.integers(1, 12), st.integers(1, 30), st.sampled_from(["pad", "repeat"]), st.integers(0, 2**64 - 1))
def test_frames_are_ordered_dates_of_the_series_and_as_many_as_asked(frames, available, short, name):
    taken = draw_frames(TimeConfig(frames=frames, short=short), available, name).tolist()
    assert taken == sorted(taken)
    assert set(taken) <= set(range(available))
    if short == "pad" or available >= frames:
        assert len(taken) == len(set(taken)) == min(frames, available)
    else:
        assert len(taken) == frames
        counts = [taken.count(frame) for frame in range(available)]
        assert max(counts) - min(counts) <= 1  # evenly


def test_every_date_is_drawn_as_often_as_the_others():
    counts = np.bincount(
        np.concatenate([draw_frames(TimeConfig(frames=3), 10, 5, sample) for sample in range(2000)]), minlength=10
    )
    assert counts.sum() == 6000
    assert abs(counts - 600).max() < 5 * np.sqrt(600)


def test_days_are_counted_from_1970():
    dates = ("1970-01-01", "2019-06-30", "2019-07-01T10:05:31")
    assert days_of(dates, np.array([0, 2])).tolist() == [0, (date(2019, 7, 1) - date(1970, 1, 1)).days]
    assert days_of((), np.array([0, 1])).tolist() == [NO_DAY, NO_DAY]
    with pytest.raises(ValueError, match="isoformat"):
        days_of(("summer",), np.array([0]))


def test_bounds_of_footprints():
    assert bounds_of([(5, 43), (6, 43), (6, 44), (5, 44)]).tolist() == [5, 43, 6, 44]
    assert bounds_of([(179, -18), (-179.5, -18), (-179.5, -17), (179, -17)]).tolist() == [179, -18, -179.5, -17]
    assert np.isnan(bounds_of(None)).all()
