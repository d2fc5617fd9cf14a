"""An image that a batch names several times is preprocessed once, with the tensors of each time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from shrunk import configured, loaded, picture, shrunk

from himap.models.once import EachOnce
from himap.paths import conf_dir
from himap.tasks.base import Prompt

NAMES = sorted(
    file.stem for file in (conf_dir() / "model").glob("*.yaml") if configured(file.stem).adapter != "shapes"
)


@pytest.mark.parametrize("name", NAMES)
def test_every_model_is_given_the_same_tensors(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = loaded(shrunk(name, n_layers=2, weights="random"))
    holder = model if getattr(model, "image_processor", None) is not None else model.processor
    assert isinstance(holder.image_processor, EachOnce)
    seen: list[int] = []
    inner = holder.image_processor._processor

    def spy(images: Any, **options: Any) -> Any:
        seen.append(len(images))
        return inner(images, **options)

    monkeypatch.setattr(holder.image_processor, "_processor", spy)
    monkeypatch.setattr(EachOnce, "__getattr__", lambda self, name: getattr(inner, name))
    one, two = picture(0), picture(1, (24, 48))
    asked = [Prompt("A?", (one,)), Prompt("Or b?", (one,)), Prompt("C", (two, one)), Prompt("D.", (one,))]
    if name in ("idefics3_8b", "smolvlm2_2b"):  # these take images prompt by prompt
        asked[2] = Prompt("C", (two,))
    found = model.encode(asked)
    assert seen == [2]
    copies = [Prompt(p.text, tuple(image.copy() for image in p.images)) for p in asked]
    expected = model.encode(copies)
    assert seen[-1] == sum(len(prompt.images) for prompt in asked)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key
