"""Qwen's tokenizer from `qwen.tiktoken`: the same ids, by the `tokenizers` library instead of remote code."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from himap.errors import UserError

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
IMG, IMG_END, IMG_PAD = "<img>", "</img>", "<imgpad>"
SPECIAL = (
    END_OF_TEXT,
    IM_START,
    IM_END,
    *(f"<|extra_{number}|>" for number in range(205)),
    "<ref>",
    "</ref>",
    "<box>",
    "</box>",
    "<quad>",
    "</quad>",
    IMG,
    IMG_END,
    IMG_PAD,
)
"""In the order of their ids, which begin behind the last rank."""

_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def load_tokenizer(folder: Path) -> Any:
    """A fast tokenizer with the ids of the checkpoint's `qwen.tiktoken`.

    Raises:
        UserError: the file is missing or broken.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ranks = read_ranks(folder / "qwen.tiktoken")
    letters = _letters()
    vocabulary = {_written(token, letters): rank for token, rank in ranks.items()}
    merges = [(_written(left, letters), _written(right, letters)) for left, right in recovered_merges(ranks)]
    # tiktoken looks a whole word up before it merges, and so does this.
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT, padding_side="left"
    )


def read_ranks(file: Path) -> dict[bytes, int]:
    """Token -> rank, from lines of base64 and a number.

    Raises:
        UserError: the file is missing or broken.
    """
    try:
        lines = [line.split() for line in file.read_bytes().splitlines() if line]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in lines}
    except FileNotFoundError as error:
        raise UserError(
            f"model.path={file.parent}: no {file.name} there (is the checkpoint complete?)."
        ) from error
    except (ValueError, binascii.Error) as error:
        raise UserError(f"model.path={file}: is no tiktoken file ({error}).") from error
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise UserError(f"model.path={file}: is incomplete: its ranks have gaps (download it again).")
    return ranks


def recovered_merges(ranks: dict[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """The merges behind the ranks, in order: each token's last two parts when only lower ranks may merge."""
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) == 1:
            continue
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:
            pairs = [ranks.get(left + right, rank) for left, right in pairwise(parts)]
            lowest = min(pairs)
            if lowest >= rank:
                break
            at = pairs.index(lowest)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        if len(parts) == 2:
            yield parts[0], parts[1]


def _letters() -> list[str]:
    """GPT-2's printable letter for each byte: itself where printable, else the next free one from 256 on."""
    printable = {
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    }
    free = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(free)) for byte in range(256)]


def _written(token: bytes, letters: list[str]) -> str:
    return "".join(letters[byte] for byte in token)
