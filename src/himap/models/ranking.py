"""How likely each of some continuations is, from one prefill; works under a pruner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from himap.errors import UserError

if TYPE_CHECKING:
    import torch


def option_nlls(
    hf: Any,
    batch: dict[str, torch.Tensor],
    options: Sequence[Sequence[Sequence[int]]],
    prefilled: tuple[torch.Tensor, Any] | None = None,
) -> list[list[float]]:
    """Mean negative log-likelihood of each option of each row.

    Args:
        hf: a transformers model for generation.
        batch: encoded prompts, left-padded.
        options: per row, per option, its token ids; rows may have unequal numbers of options.
        prefilled: logits [B, vocabulary] behind the prompts and the cache that they filled, where they have
            been read already.

    Returns:
        per row, per option, in nats a token.

    Raises:
        UserError: a row has no option, or an option no token.
    """
    import torch

    if not all(row and all(row) for row in options):
        raise UserError("options: every prompt needs options, and every option at least one token.")
    with torch.inference_mode():
        logits, cache = prefilled or _prefill(hf, batch)
        first = logits.log_softmax(-1)
        sums = [[-first[i, ids[0]] for ids in row] for i, row in enumerate(options)]
        for number in range(max(map(len, options))):
            continued = [list(row[number]) if number < len(row) else [row[0][0]] for row in options]
            for i, losses in enumerate(_later_tokens(hf, batch, cache, continued)):
                if number < len(options[i]):
                    sums[i][number] = sums[i][number] + losses
    return [
        [float(total) / len(ids) for total, ids in zip(row, ids_row, strict=True)]
        for row, ids_row in zip(sums, options, strict=True)
    ]


def _prefill(hf: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, Any]:
    from himap.positions import forget_images, prompt_positions

    forget_images(hf)
    positions = prompt_positions(hf, batch["attention_mask"])
    output = hf(**batch, **positions, use_cache=True, logits_to_keep=1)
    return output.logits[:, -1].float(), output.past_key_values


def _later_tokens(
    hf: Any, batch: dict[str, torch.Tensor], cache: Any, continued: list[list[int]]
) -> torch.Tensor:
    """Summed loss of all tokens but the first of one continuation a row, [B]; leaves the cache as found."""
    import torch

    from himap.models.stepping import Stepper

    ids = batch["input_ids"]
    longest = max(map(len, continued))
    loss = torch.zeros(len(continued), device=ids.device)
    behind = Stepper(hf, batch["attention_mask"], cache)
    for step in range(longest - 1):
        token = ids.new_tensor([[row[min(step, len(row) - 1)]] for row in continued])
        chance = behind(token).log_softmax(-1)
        for i, row in enumerate(continued):
            if step + 1 < len(row):
                loss[i] -= chance[i, row[step + 1]]
    if longest > 1:
        cache.crop(-(longest - 1))
    return loss
