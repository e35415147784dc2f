from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from gfm_pipeline.data.resize import resize_into, resize_taps
from gfm_pipeline.data.scratch import Scratch

SCRATCH = Scratch()


def resized(image, height, width, mirror=False, scratch=SCRATCH):
    out = np.full((len(image), height, width), np.nan, np.float32)
    resize_into(out, image, mirror, scratch)
    return out


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 90), st.integers(2, 90), st.integers(2, 70), st.integers(2, 70), st.integers(0, 2**32 - 1))
def test_it_equals_torchs_antialiased_bilinear(height, width, rows, columns, seed):
    image = np.random.default_rng(seed).standard_normal((2, height, width)).astype(np.float32)
    expected = interpolate(
        torch.from_numpy(image)[None], size=(rows, columns), mode="bilinear", antialias=True, align_corners=False
    )[0]
    np.testing.assert_allclose(resized(image, rows, columns), expected.numpy(), atol=3e-5)
    np.testing.assert_allclose(resized(image, rows, columns, True), expected.flip(-1).numpy(), atol=3e-5)


def test_one_row_or_column_is_stretched():
    # torch 2.14 returns wrong numbers where an image has or gets one column; these are Pillow's.
    column = np.array([[[0.0], [1.0]]], np.float32)
    assert resized(column, 4, 2)[0].T.tolist() == [[0, 0.25, 0.75, 1]] * 2
    assert resized(column.transpose(0, 2, 1), 1, 4)[0].tolist() == [[0, 0.25, 0.75, 1]]


def test_a_wide_image_is_taken_in_parts_with_the_same_result():
    image = np.random.default_rng(1).standard_normal((1, 40, 3000)).astype(np.float32)
    expected = interpolate(torch.from_numpy(image)[None], size=(32, 2000), mode="bilinear", antialias=True)[0]
    np.testing.assert_allclose(resized(image, 32, 2000), expected.numpy(), atol=3e-5)


def test_the_same_size_is_a_copy():
    image = np.random.default_rng(2).standard_normal((3, 37, 41)).astype(np.float32)
    assert np.array_equal(resized(image, 37, 41), image)


@pytest.mark.parametrize(("size", "wanted"), [(251, 192), (10, 192), (192, 17)])
def test_weights_are_means_whose_order_can_be_mirrored(size, wanted):
    blocks, mirrored = resize_taps(size, wanted), resize_taps(size, wanted, True)
    assert sorted(i for block in blocks for i in range(block.first, block.last)) == list(range(wanted))
    for block, twin in zip(blocks, mirrored, strict=True):
        assert (block.weights >= 0).all()
        np.testing.assert_allclose(block.weights.sum(axis=1), 1, atol=1e-6)
        assert (twin.first, twin.last) == (wanted - block.last, wanted - block.first)
        assert np.array_equal(twin.weights, block.weights[::-1])


def test_many_threads_get_the_same_bits():
    images = [np.random.default_rng(i).standard_normal((4, 50 + i, 61)).astype(np.float32) for i in range(8)]
    alone = [resized(image, 32, 32) for image in images]
    shared, found = Scratch(), {}

    def work(number):
        for _ in range(20):
            found[number] = resized(images[number], 32, 32, scratch=shared)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[number], alone[number]) for number in range(8))
