"""What a strategy costs over many prompts, in the form in which results hold it."""

from __future__ import annotations

from collections import Counter

from himap.flops import DecoderShape, count
from himap.strategy import Strategy

Tokens = tuple[int, int, int]
"""System, image and instruction tokens of a prompt."""


def cost(
    shape: DecoderShape, strategy: Strategy, prompts: Counter[Tokens]
) -> tuple[dict[str, float], list[list[float]]]:
    """FLOPs and kept tokens over prompts of several sizes.

    Args:
        prompts: how often each (system, image, instruction) occurs.
    Returns:
        mean TFLOPs and share of the summed cost, both counts; and [layer, mean image tokens kept] per stage.
    """
    n_prompts = prompts.total()
    plain = Strategy("none")
    flops = {}
    for name in ("paper", "prefill"):
        key = f"{name}_tflops"
        spent = sum(n * getattr(count(shape, strategy, *tokens), key) for tokens, n in prompts.items())
        whole = sum(n * getattr(count(shape, plain, *tokens), key) for tokens, n in prompts.items())
        flops[key] = spent / n_prompts
        flops[f"{name}_share"] = spent / whole if whole else 1.0
    kept = []
    for number, stage in enumerate(strategy.stages):
        mean = sum(n * strategy.kept(tokens[1])[number][1] for tokens, n in prompts.items()) / n_prompts
        kept.append([stage.layer, int(mean) if mean == int(mean) else round(mean, 3)])
    return flops, kept
