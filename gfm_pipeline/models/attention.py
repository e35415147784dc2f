"""SwinV2's window attention through torch's fused kernels, with timm's parameters and results.

timm writes out the N x N attention of every window; the fused kernels never do. They know a plain dot product with
an added bias, so normalised queries carry the learned scale of the cosine attention, and position bias and shifted
windows' mask become one bias. On a CPU the kernels have no gradient for a bias and torch falls back to the written
out form, which is why `auto` leaves timm's there.

Legend: W windows of all images, V windows of one image, N tokens of a window, D channels, H heads.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from timm.models.swin_transformer_v2 import SwinTransformerV2, WindowAttention
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from gfm_pipeline.models.config import Attention


LARGEST_SCALE = 100.0


class FusedWindowAttention(WindowAttention):  # type: ignore[misc]
    """timm's `WindowAttention` by `scaled_dot_product_attention`; on CUDA devices only where `kind` is auto."""

    kind: Attention = "auto"

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return [W,N,D] for tokens [W,N,D] and the mask [V,N,N] of shifted windows."""
        if self.kind == "timm" or (self.kind == "auto" and not x.is_cuda):
            out: Tensor = super().forward(x, mask)
            return out
        num_windows, num_tokens, _ = x.shape
        bias = torch.cat((self.q_bias, self.k_bias, self.v_bias))
        q, k, v = F.linear(x, self.qkv.weight, bias).view(num_windows, num_tokens, 3, self.num_heads, -1).unbind(2)
        scale_H1 = self.logit_scale.clamp(max=math.log(LARGEST_SCALE)).exp().view(-1, 1)
        q = (F.normalize(q.float(), dim=-1) * scale_H1).to(v.dtype)
        k = F.normalize(k.float(), dim=-1).to(v.dtype)
        bias_HNN = self.position_bias()
        if mask is None:
            q, k, v = (part.transpose(1, 2) for part in (q, k, v))  # [W,H,N,D/H]
            added = bias_HNN[None]
        else:
            # The kernels take one bias for all images: an image's windows count as heads.
            images = num_windows // len(mask)
            q, k, v = (
                part.view(images, len(mask), *part.shape[1:]).transpose(2, 3).flatten(1, 2) for part in (q, k, v)
            )
            added = (bias_HNN + mask[:, None]).flatten(0, 1)[None]  # [1,V*H,N,N]
        added = added.to(v.dtype).expand(len(q), -1, -1, -1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=added, dropout_p=self._dropout(), scale=1.0)
        out = out.reshape(num_windows, self.num_heads, num_tokens, -1).transpose(1, 2).reshape(x.shape)
        result: Tensor = self.proj_drop(self.proj(out))
        return result

    def position_bias(self) -> Tensor:
        """Return the continuous position bias [H,N,N] in fp32: computed once in a pass, for all windows.

        It is not kept for the next pass, where the weights may be others.
        """
        with torch.autocast(self.logit_scale.device.type, enabled=False):
            table = self.cpb_mlp(self.relative_coords_table).view(-1, self.num_heads)
            num_tokens = self.window_size[0] * self.window_size[1]
            bias_NNH = table[self.relative_position_index.view(-1)].view(num_tokens, num_tokens, -1)
            return 16 * torch.sigmoid(bias_NNH.permute(2, 0, 1).contiguous())

    def _dropout(self) -> float:
        return float(self.attn_drop.p) if self.training else 0.0


def use_attention(swin: SwinTransformerV2, kind: Attention) -> None:
    """Let every block of a timm SwinV2 attend by `kind`; parameters and their names stay as they are."""
    for module in swin.modules():
        if isinstance(module, WindowAttention):
            # The class alone differs: a new module would draw random numbers and forget the weights.
            fused: Any = module
            fused.__class__ = FusedWindowAttention
            fused.kind = kind
