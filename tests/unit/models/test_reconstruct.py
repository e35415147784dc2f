"""The second mask of a picture: with the first it asks for every cell while that cell is hidden."""

import pytest
import torch

from gfm_pipeline.models.reconstruct import complement


@pytest.mark.parametrize("hidden", [1, 10, 22, 35])
def test_two_masks_hide_every_cell_and_keep_the_ratio_where_they_can(hidden: int) -> None:
    first = torch.zeros(3, 36, dtype=torch.bool)
    for row in first:
        row[torch.randperm(36)[:hidden]] = True
    first = first.reshape(3, 6, 6)
    second = complement(first, seed=0)
    assert bool((first | second).all())
    assert second.sum((1, 2)).tolist() == [max(hidden, 36 - hidden)] * 3
