"""What a strategy costs: the paper's formula and the decoder's real prefill. Arithmetic only, no tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from himap.strategy import Strategy

_TERA = 1e12


@dataclass(frozen=True)
class DecoderShape:
    """The sizes of a text decoder that its cost depends on.

    Attributes:
        n_layers: decoder layers (the paper's L).
        hidden: width of the hidden states (d).
        intermediate: width of the feed-forward network (m).
        n_heads: query heads.
        n_kv_heads: key and value heads; fewer than `n_heads` in grouped-query attention.
        head_dim: width of one head.
        vocab: rows of the output embedding.
    """

    n_layers: int
    hidden: int
    intermediate: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab: int

    @classmethod
    def from_config(cls, config: Any) -> DecoderShape:
        """Read the sizes off a transformers config; of a multimodal one its text part is read."""
        text = getattr(config, "text_config", None) or config
        n_heads = text.num_attention_heads
        return cls(
            n_layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            intermediate=text.intermediate_size,
            n_heads=n_heads,
            n_kv_heads=getattr(text, "num_key_value_heads", None) or n_heads,
            head_dim=getattr(text, "head_dim", None) or text.hidden_size // n_heads,
            vocab=text.vocab_size,
        )


@dataclass(frozen=True)
class Flops:
    """Both counts of one strategy; a share is the fraction of the unpruned model's cost that is left.

    Attributes:
        paper_tflops: by HiMAP's Eq. 10: image tokens only, a multiply-add counted once, two FFN matrices.
        paper_share: the same over that of the unpruned model (1 - the paper's eta).
        prefill_tflops: the decoder's prefill as it runs: all tokens, two FLOPs a multiply-add, three FFN
            matrices, the ranking itself included.
        prefill_share: the same over that of the unpruned model.
    """

    paper_tflops: float
    paper_share: float
    prefill_tflops: float
    prefill_share: float


def count(shape: DecoderShape, strategy: Strategy, n_system: int, n_image: int, n_instruction: int) -> Flops:
    """Both counts for a prompt of these tokens.

    Raises:
        ConfigError: a stage lies beyond the decoder's layers.
    """
    return Flops(
        *paper(shape, strategy, n_image), *prefill(shape, strategy, n_system, n_image, n_instruction)
    )


def paper(shape: DecoderShape, strategy: Strategy, n_image: int) -> tuple[float, float]:
    """TFLOPs and share by the paper's formula, for any list of stages.

    Source: HiMAP, Eq. 10: per layer 4nd^2 + 2n^2d + 2ndm over the image tokens that enter it.
    """
    strategy.check_depth(shape.n_layers)

    def layer(n: int) -> int:
        return 4 * n * shape.hidden**2 + 2 * n**2 * shape.hidden + 2 * n * shape.hidden * shape.intermediate

    whole = shape.n_layers * layer(n_image)
    left = sum(map(layer, strategy.tokens_per_layer(n_image, shape.n_layers)))
    return left / _TERA, _share(left, whole)


def prefill(
    shape: DecoderShape, strategy: Strategy, n_system: int, n_image: int, n_instruction: int
) -> tuple[float, float]:
    """TFLOPs and share of the decoder's prefill up to the first new token's logits.

    Equal to torch.utils.flop_counter.FlopCounterMode, which counts matrix products alone, and attention
    without regard to causality. Ranking is included (0.04 % of a 7B prefill); where its rows come in several
    chunks it costs a little less than counted here.
    """
    strategy.check_depth(shape.n_layers)
    n_text = n_system + n_instruction
    # Only the last position's logits are computed in generation.
    head = 2 * shape.hidden * shape.vocab
    whole = _prefill([n_text + n_image] * shape.n_layers, shape) + head
    left = _prefill([n_text + n for n in strategy.tokens_per_layer(n_image, shape.n_layers)], shape) + head
    left += _ranking(shape, strategy, n_image, n_instruction, n_text)
    return left / _TERA, _share(left, whole)


def _prefill(tokens: Sequence[int], shape: DecoderShape) -> int:
    query_width = shape.n_heads * shape.head_dim
    kv_width = shape.n_kv_heads * shape.head_dim
    per_token = (
        2 * shape.hidden * (query_width + 2 * kv_width)  # q, k and v
        + 2 * query_width * shape.hidden  # o
        + 3 * 2 * shape.hidden * shape.intermediate  # SwiGLU: gate, up, down
    )
    per_pair = 2 * 2 * query_width  # q.k and weights.v
    return sum(n * per_token + n * n * per_pair for n in tokens)


def _ranking(shape: DecoderShape, strategy: Strategy, n_image: int, n_instruction: int, n_text: int) -> int:
    """FLOPs of scoring: every wanted row against every column, then the weighted sum of the rows."""
    total = 0
    for stage, (_, n_kept) in zip(strategy.stages, strategy.kept(n_image), strict=True):
        n_tokens = n_text + n_image
        rows = {"img2txt": n_instruction, "img2img": n_image, "all2img": n_tokens, "last2img": 1}
        if n_kept < n_image:
            n_products = shape.n_heads * shape.head_dim + shape.n_heads
            total += 2 * rows.get(stage.criterion, 0) * n_tokens * n_products
        n_image = n_kept
    return total


def _share(left: int, whole: int) -> float:
    """Without image tokens nothing can be saved."""
    return left / whole if whole else 1.0
