"""Classification by weighted nearest neighbours.

Source: Wu et al., "Unsupervised feature learning via non-parametric instance discrimination", CVPR 2018; as Caron et
al., "Emerging properties in self-supervised vision transformers" (DINO), ICCV 2021, judge frozen features: cosine
similarity, the k nearest, votes of weight exp(similarity / temperature).

Legend: M samples learnt from, N samples to predict, D channels, E classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_ROWS_AT_ONCE = 1024


def knn_scores(features_MD: Tensor, member_ME: Tensor, queries_ND: Tensor, k: int, temperature: float) -> Tensor:
    """Return [N,E] the share of the k nearest neighbours' votes that each class gets; k is at most M."""
    known_MD = F.normalize(features_MD, dim=1)
    votes_ME = member_ME.to(features_MD.dtype)
    scores = []
    for part_nD in torch.split(F.normalize(queries_ND, dim=1), _ROWS_AT_ONCE):
        similarity_nk, nearest_nk = (part_nD @ known_MD.T).topk(min(k, len(known_MD)), dim=1)
        weight_nk = (similarity_nk / temperature).softmax(dim=1)  # exp, over the sum of all votes
        scores.append(torch.einsum("nk,nke->ne", weight_nk, votes_ME[nearest_nk]))
    return torch.cat(scores)
