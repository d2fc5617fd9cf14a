"""The visual module of Qwen-VL: a ViT of OpenCLIP's make and a resampler that makes 256 tokens of any image.

Module names are those of the published keys. Where the module departs from the usual:
- `attn.in_proj` interleaves: its output holds query, key and value of the first head, then of the second, ...
- the position tables have 16 x 16 places and are stretched (bicubic, in float32) to the grid of the patches;
- the resampler adds positions to queries and keys, not to values, and ends in a matrix that multiplies from
  the right.

Source: the published configuration and weights of Qwen/Qwen-VL-Chat.
"""

from __future__ import annotations

from typing import Any, TypedDict

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, scaled_dot_product_attention

N_QUERIES = 256
"""Image tokens of an image, and places in both position tables (16 x 16); the configuration has neither."""

_HEAD_WIDTH = 128  # of the resampler
_EPS = 1e-6


class VisualSize(TypedDict):
    """The fields of the published `visual` block that are numbers of the module."""

    image_size: int
    patch_size: int
    width: int
    layers: int
    heads: int
    mlp_ratio: float
    output_dim: int


class QwenVisual(nn.Module):
    """Pixels [n, 3, S, S] -> image tokens [n, 256, output_dim]."""

    def __init__(self, size: VisualSize) -> None:
        super().__init__()
        width, out = size["width"], size["output_dim"]
        patch = size["patch_size"]
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.positional_embedding = nn.Parameter(torch.randn(N_QUERIES, width) * width**-0.5)
        self.ln_pre = nn.LayerNorm(width, _EPS)
        self.transformer = nn.ModuleDict(
            {"resblocks": nn.ModuleList([_Block(size) for _ in range(size["layers"])])}
        )
        self.attn_pool = _Resampler(width, out)
        self.ln_post = nn.LayerNorm(out, _EPS)
        self.proj = nn.Parameter(torch.randn(out, out) * out**-0.5)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.conv1(pixels).flatten(2).transpose(1, 2)  # [n, patches, width]
        x = self.ln_pre(x + stretched(self.positional_embedding, x.shape[1]))
        blocks: Any = self.transformer["resblocks"]
        for block in blocks:
            x = block(x)
        pooled: Tensor = self.ln_post(self.attn_pool(x)) @ self.proj
        return pooled


class _Block(nn.Module):
    """Pre-norm: attention, then an MLP with the exact GELU."""

    def __init__(self, size: VisualSize) -> None:
        super().__init__()
        width = size["width"]
        hidden = int(width * size["mlp_ratio"])
        self.heads = size["heads"]
        self.ln_1 = nn.LayerNorm(width, _EPS)
        self.ln_2 = nn.LayerNorm(width, _EPS)
        self.attn = nn.ModuleDict(
            {"in_proj": nn.Linear(width, 3 * width), "out_proj": nn.Linear(width, width)}
        )
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, hidden), "c_proj": nn.Linear(hidden, width)})

    def forward(self, x: Tensor) -> Tensor:
        n, t, width = x.shape
        # [n, t, heads, 3 * head width] -> three of [n, heads, t, head width]: split inside each head.
        mixed = self.attn["in_proj"](self.ln_1(x)).view(n, t, self.heads, -1).transpose(1, 2)
        query, key, value = mixed.chunk(3, dim=-1)
        attended = scaled_dot_product_attention(query, key, value)
        x = x + self.attn["out_proj"](attended.transpose(1, 2).reshape(n, t, width))
        result: Tensor = x + self.mlp["c_proj"](gelu(self.mlp["c_fc"](self.ln_2(x))))
        return result


class _Resampler(nn.Module):
    """One cross-attention of learned queries on all patches."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(sincos_positions(round(N_QUERIES**0.5), out), requires_grad=False)
        self.query = nn.Parameter(torch.randn(N_QUERIES, out) * 0.02)
        self.kv_proj = nn.Linear(width, out, bias=False)
        self.attn = nn.MultiheadAttention(out, out // _HEAD_WIDTH, batch_first=True)
        self.ln_q = nn.LayerNorm(out, _EPS)
        self.ln_kv = nn.LayerNorm(out, _EPS)

    def forward(self, x: Tensor) -> Tensor:
        values = self.ln_kv(self.kv_proj(x))
        keys = values + stretched(self.pos_embed, x.shape[1])
        queries = (self.ln_q(self.query) + self.pos_embed).expand(len(x), -1, -1)
        attended: Tensor = self.attn(queries, keys, values, need_weights=False)[0]
        return attended


def stretched(table: Tensor, n_places: int) -> Tensor:
    """A table over a square grid stretched to another number of places, bicubically in float32.

    Args:
        table: [g*g, D].
        n_places: n*n.

    Returns:
        [n*n, D] in the table's dtype.
    """
    before, after = round(len(table) ** 0.5), round(n_places**0.5)
    if before == after:
        return table
    grid = table.float().view(1, before, before, -1).permute(0, 3, 1, 2)
    grid = interpolate(grid, size=(after, after), mode="bicubic", align_corners=False)
    return grid.flatten(2)[0].T.to(table.dtype)


def sincos_positions(side: int, width: int) -> Tensor:
    """Fixed positions of a grid: half of the channels for the column, half for the row; in each sines, then
    cosines, at wavelengths from 2 pi to 20,000 pi.

    Returns:
        [side*side, width] float32, row by row.
    """
    quarter = width // 4
    omega = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    angle = torch.arange(side, dtype=torch.float64)[:, None] * omega
    one = torch.cat([angle.sin(), angle.cos()], dim=1)  # [side, width / 2]
    column = one[None].expand(side, -1, -1)
    row = one[:, None].expand(-1, side, -1)
    return torch.cat([column, row], dim=-1).reshape(side * side, width).float()
