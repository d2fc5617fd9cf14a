from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from himap.analysis.labels import first_token_id, reference
from himap.errors import UserError
from himap.tasks.base import Prompt, Sample

PROMPT = Prompt(text="")


def model(prompt: str) -> Any:
    """Joins a space to the word behind it, as LLaMA's tokenizer does, and ends every text with </s>."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "</s>", "▁Is", "▁it", "red?", "ASSISTANT:", "▁A", "A", "▁yes", "yes", "▁", "\n"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Split("ASSISTANT:", "isolated"),
            pre_tokenizers.Metaspace(prepend_scheme="never"),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")
    return SimpleNamespace(processor=SimpleNamespace(tokenizer=fast), format=lambda _: prompt)


def test_the_label_is_the_token_that_follows_the_prompt() -> None:
    spaced = model(" Is it red? ASSISTANT:")
    assert first_token_id(spaced, PROMPT, "A") == 6
    assert first_token_id(spaced, PROMPT, "yes") == 8
    assert first_token_id(spaced, PROMPT, "A", "bare") == 7


def test_behind_white_space_no_further_space_is_put() -> None:
    assert first_token_id(model(" Is it red? ASSISTANT:\n"), PROMPT, "A") == 7


def test_the_reference_is_the_right_answer_or_the_most_frequent_one() -> None:
    assert reference(Sample("a", "", answer="yes", references=("no",))) == "yes"
    assert reference(Sample("a", "", references=("no", "yes", "yes"))) == "yes"
    with pytest.raises(UserError, match="sample a: has no answer"):
        reference(Sample("a", ""))
