"""A batch is the consumer's as long as any of it exists; then its memory is used again."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

from gfm_pipeline.data.buffers import SPARE_BUFFERS, BufferPool

SHAPE = (4, 3, 8, 8)


def test_memory_is_used_again_when_the_tensor_is_gone():
    pool = BufferPool()
    tensor = pool.take(SHAPE, np.float32)
    assert (tensor.shape, tensor.dtype) == (SHAPE, torch.float32)
    place = tensor.data_ptr()
    del tensor
    assert pool.take(SHAPE, np.float32).data_ptr() == place
    assert pool.num_made == 1


def test_another_type_of_the_same_size_may_have_it():
    pool = BufferPool()
    place = pool.take((8,), np.float32).data_ptr()
    again = pool.take((16,), np.uint16)
    assert (again.data_ptr(), again.dtype) == (place, torch.uint16)


@pytest.mark.parametrize(
    "keep",
    [
        lambda tensor: tensor[1:2],
        lambda tensor: tensor.view(-1),
        lambda tensor: tensor.numpy(),
        lambda tensor: tensor.numpy()[0, 0],
        lambda tensor: torch.from_numpy(tensor.numpy()[1]),
        lambda tensor: tensor.detach(),
        lambda tensor: tensor.untyped_storage(),
        lambda tensor: [tensor.permute(0, 2, 3, 1)],
        lambda tensor: memoryview(tensor.numpy()),
    ],
    ids=["row", "view", "array", "row-of-array", "tensor-of-array", "detached", "storage", "permuted", "memoryview"],
)
def test_whatever_is_kept_of_a_batch_is_never_overwritten(keep):
    pool = BufferPool()
    tensor = pool.take(SHAPE, np.float32)
    place = tensor.data_ptr()
    kept = keep(tensor)
    del tensor
    gc.collect()
    other = pool.take(SHAPE, np.float32)
    assert other.data_ptr() != place
    del kept
    gc.collect()
    assert pool.take(SHAPE, np.float32).data_ptr() == place


def test_what_autograd_keeps_is_not_overwritten():
    pool = BufferPool()
    weight = torch.ones(8, requires_grad=True)
    batch = pool.take((8,), np.float32)
    batch[:] = 3
    loss = (weight * batch).sum()
    del batch
    pool.take((8,), np.float32).fill_(-1)
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [3.0] * 8


def test_a_burst_does_not_keep_its_memory():
    pool = BufferPool()
    held = [pool.take((4,), np.uint8) for _ in range(SPARE_BUFFERS + 5)]
    del held
    gc.collect()
    assert len(pool._spare[4]) == SPARE_BUFFERS
