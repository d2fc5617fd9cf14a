"""A LLaMA tokenizer from its `tokenizer.model`, as the original code used it: sentencepiece itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from himap.errors import UserError


class SentencePieceTokenizer:
    """Pieces of text to ids and back; every piece gets the space in front that LLaMA was trained with.

    No text is read as a special token, so that `</s>` in a question stays text.

    Args:
        folder: of the checkpoint.

    Raises:
        UserError: sentencepiece is not installed, or the file is missing or broken.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError as error:
            raise UserError(
                "sentencepiece: is needed for this model's tokenizer (pip install 'himap[models]')."
            ) from error
        file = folder / "tokenizer.model"
        if not file.exists():
            raise UserError(f"model.path={folder}: no tokenizer.model there (is the checkpoint complete?).")
        try:
            self._model: Any = SentencePieceProcessor(model_file=str(file))
        except (RuntimeError, OSError) as error:
            raise UserError(
                f"model.path={file}: cannot be read as a sentencepiece model ({error})."
            ) from error
        self.bos_token_id: int = self._model.bos_id()
        self.eos_token_id: int = self._model.eos_id()
        # Never shows, for padding is masked.
        self.pad_token_id: int = self.eos_token_id

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Ids of a piece of text; `add_special_tokens` puts the beginning-of-text id in front."""
        ids: list[int] = self._model.encode(text)
        return [self.bos_token_id, *ids] if add_special_tokens else ids

    def batch_decode(self, rows: Iterable[Sequence[int]], skip_special_tokens: bool = True) -> list[str]:
        """Text of each row; control tokens (beginning, end) have none."""
        return [self._model.decode([int(number) for number in row]) for row in rows]
