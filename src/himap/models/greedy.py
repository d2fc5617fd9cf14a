"""Greedy decoding behind a prompt that has been read already; the same tokens as transformers' `generate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from himap.models.stepping import Stepper

if TYPE_CHECKING:
    from torch import Tensor

    from himap.tasks.base import Generation

# Settings of a checkpoint's own generation_config.json that change what greedy decoding chooses, with the
# values that change nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "encoder_repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "bad_words_ids": (None,),
    "begin_suppress_tokens": (None,),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "sequence_bias": (None,),
    "exponential_decay_length_penalty": (None,),
    "guidance_scale": (None, 1.0),
    "watermarking_config": (None,),
    "stop_strings": (None,),
    "max_time": (None,),
    "min_length": (None, 0),
}


def is_plain(hf: Any, generation: Generation) -> bool:
    """Whether `decode` chooses what `generate` would."""
    own = hf.generation_config
    neutral = all(getattr(own, name, values[0]) in values for name, values in _NEUTRAL.items())
    return generation.num_beams == 1 and neutral


def decode(
    hf: Any,
    batch: dict[str, Tensor],
    logits: Tensor,
    cache: Any,
    generation: Generation,
    stop_ids: Sequence[int],
    pad_id: int,
) -> Tensor:
    """The likeliest tokens, one after the other, until every row has stopped.

    Args:
        hf: a transformers model for generation.
        batch: the encoded prompts.
        logits: [B, vocabulary] behind them.
        cache: filled by them; not read where one new token is all.
        generation: how many tokens; one beam.
        stop_ids: end a row; not chosen before `min_new_tokens`.
        pad_id: stands behind a row's end.

    Returns:
        [B, n] new tokens.
    """
    import torch

    penalty = getattr(hf.generation_config, "repetition_penalty", None) or 1.0
    never = list(getattr(hf.generation_config, "suppress_tokens", None) or [])
    tokens = batch["input_ids"]
    n_prompt = tokens.shape[1]
    stops = torch.tensor(list(stop_ids), device=tokens.device)
    going = torch.ones(len(tokens), dtype=torch.bool, device=tokens.device)
    step = Stepper(hf, batch["attention_mask"], cache)
    for number in range(generation.max_new_tokens):
        if number:
            logits = step(tokens[:, -1:])
        if penalty != 1.0:
            logits = _penalised(logits, tokens, batch["attention_mask"], penalty)
        barred = [*never, *stop_ids] if number < generation.min_new_tokens else never
        if barred:
            logits = logits.index_fill(-1, torch.tensor(barred, device=logits.device), float("-inf"))
        token = logits.argmax(-1).masked_fill(~going, pad_id)
        tokens = torch.cat([tokens, token[:, None]], -1)
        going = going & ~torch.isin(token, stops)
        if not going.any():
            break
    return tokens[:, n_prompt:]


def _penalised(logits: Tensor, tokens: Tensor, mask: Tensor, penalty: float) -> Tensor:
    """Make the tokens of prompt and answer less likely; padding counts for nothing, whatever its id."""
    import torch

    n_vocab = logits.shape[-1]
    # Placeholders of images may lie beyond what the model can say: they share a column that is cut off.
    columns = tokens.clamp(max=n_vocab)
    columns = columns.masked_fill(
        torch.nn.functional.pad(mask == 0, (0, tokens.shape[1] - mask.shape[1])), n_vocab
    )
    seen = torch.zeros(len(tokens), n_vocab + 1, dtype=torch.bool, device=tokens.device)
    seen = seen.scatter(-1, columns, True)[:, :n_vocab]
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)
