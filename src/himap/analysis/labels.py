"""The token that an answer begins with, as the tokenizer gives it after the prompt."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from himap.errors import UserError

if TYPE_CHECKING:
    from himap.models.base import Model
    from himap.tasks.base import Prompt, Sample


def reference(sample: Sample) -> str:
    """The answer that the loss asks for: the right one, else the reference given most often.

    Raises:
        UserError: the sample has none.
    """
    if sample.answer:
        return sample.answer
    if not sample.references:
        raise UserError(f"sample {sample.id}: has no answer to compute a loss for.")
    return Counter(sample.references).most_common(1)[0][0]


def first_token_id(model: Model, prompt: Prompt, answer: str, label: str = "continued") -> int:
    """Id of an answer's first token.

    Args:
        model: gives format and tokenizer.
        prompt: what the answer follows.
        answer: as the benchmark writes it.
        label: `continued` tokenises prompt and answer together and takes the first token that the prompt
            alone does not have; `bare` tokenises the answer alone, as the released code does. Where a
            tokenizer joins a space to the next word, the two differ.

    Raises:
        UserError: the tokenizer makes nothing of the answer.
    """
    tokenizer = model.processor.tokenizer
    if label == "bare":
        ids = tokenizer.encode(answer, add_special_tokens=False)
    else:
        before = model.format(prompt)
        space = "" if before[-1:].isspace() else " "
        old, new = tokenizer.encode(before), tokenizer.encode(before + space + answer)
        # A tokenizer may close every text with a special token; the texts agree up to the answer.
        same = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), len(old))
        ids = new[same:]
    if not ids:
        raise UserError(f"answer={answer!r}: the tokenizer makes no token of it.")
    return int(ids[0])
