"""Decode an image when it is asked for, and say which sample a broken one belongs to."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from himap.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image


def decode(fetch: Callable[[], Any], sample: str, key: str) -> Image:
    """Decode one image to RGB.

    Args:
        fetch: gives a path, encoded bytes, or the hub's {bytes, path}.
        sample: its id, for the error.
        key: the setting to mend, `task.data.path=...`.

    Raises:
        UserError: the file is missing, truncated or no image.
    """
    import PIL.Image

    try:
        source = fetch()
        if isinstance(source, dict):
            source = source["bytes"] if source.get("bytes") is not None else source["path"]
        if isinstance(source, bytes):
            source = io.BytesIO(source)
        if source is None:
            raise ValueError("there is none")
        with PIL.Image.open(source) as image:
            return image.convert("RGB")
    # PIL raises SyntaxError for some broken PNG files.
    except (OSError, ValueError, SyntaxError, KeyError, TypeError, PIL.Image.DecompressionBombError) as error:
        reason = " ".join(f"{error}".split()) or type(error).__name__
        raise UserError(f"{key}: sample {sample}: its image cannot be read ({reason}).") from error


def refuse(message: str) -> NoReturn:
    """Stands in for the image of a sample whose record is broken."""
    raise UserError(message)
