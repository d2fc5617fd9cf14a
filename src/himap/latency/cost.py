"""What a shape costs in FLOPs, prefill and whole answer, for the share that stands beside a measured one."""

from __future__ import annotations

from dataclasses import replace

from himap.flops import DecoderShape, prefill
from himap.latency.shape import Shape
from himap.strategy import Strategy


def prefill_tflops(decoder: DecoderShape, strategy: Strategy, shape: Shape) -> float:
    """TFLOPs of reading the batch's prompts; see `himap.flops.prefill`."""
    tokens = shape.n_system, shape.n_image, shape.n_instruction
    return shape.batch_size * prefill(decoder, strategy, *tokens)[0]


def answer_tflops(decoder: DecoderShape, strategy: Strategy, shape: Shape, *, cached: bool) -> float:
    """TFLOPs of the decoder from the prompts to the last new token.

    Args:
        cached: whether a new token is read alone; otherwise the prompt is read anew with each.
    """
    later = range(1, shape.n_new)
    if not cached:
        grown = [replace(shape, n_instruction=shape.n_instruction + n) for n in later]
        return sum(prefill_tflops(decoder, strategy, one) for one in [shape, *grown])
    steps = sum(_step(decoder, strategy, shape, n) for n in later)
    return prefill_tflops(decoder, strategy, shape) + shape.batch_size * steps / 1e12


def _step(decoder: DecoderShape, strategy: Strategy, shape: Shape, n_later: int) -> int:
    """FLOPs of reading the `n_later`-th token after the prompt; two a multiply-add, as in the prefill."""
    query_width = decoder.n_heads * decoder.head_dim
    kv_width = decoder.n_kv_heads * decoder.head_dim
    token = 2 * decoder.hidden * (2 * query_width + 2 * kv_width) + 6 * decoder.hidden * decoder.intermediate
    n_text = shape.n_system + shape.n_instruction + n_later
    keys = sum(n_text + n for n in strategy.tokens_per_layer(shape.n_image, decoder.n_layers))
    return decoder.n_layers * token + keys * 4 * query_width + 2 * decoder.hidden * decoder.vocab
