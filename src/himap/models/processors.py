"""transformers' processors without torchvision, from a checkpoint's files or from a config alone.

transformers ties a video processor, which needs torchvision, to several families; only images come here, so
it is left out. SmolVLM's own processor needs `num2words` for videos; Idefics3's writes the same image tokens.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from himap.errors import Unsupported
from himap.models.families import FAMILIES, Family


def from_folder(folder: Path, model_type: str) -> Any:
    """The processor of a checkpoint, its image processor on PIL.

    Raises:
        Unsupported: no processor of that family is known here.
    """
    made: Any = _class(_family(model_type)).from_pretrained(folder, local_files_only=True)
    return made


def from_config(config: Any) -> Any:
    """A stand-in processor where no file is at hand: the family's image processing at the published size, a
    tokenizer that reads bytes, and a plain conversation. Good for measuring, not for answers.

    Raises:
        Unsupported: no processor of that family is known here.
    """
    family = _family(config.model_type)
    parts: dict[str, Any] = {
        "image_processor": _import(family.image_processor)(**family.images(config)),
        "tokenizer": byte_tokenizer(
            {token: getattr(config, key) if key else None for token, key in family.tokens.items()},
            family.attributes,
        ),
    }
    cls = _class(family)
    if "video_processor" in cls.get_attributes():
        parts["video_processor"] = None
    turns = (
        "{% for message in messages %}USER: {% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}{{ image }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
        "{{ '\\n' }}{% endfor %}ASSISTANT:"
    )
    template = "{% set image = " + repr(family.image) + " %}" + turns
    return cls(**parts, **family.sizes(config), chat_template=template)


def byte_tokenizer(special: dict[str, int | None], attributes: dict[str, str] | None = None) -> Any:
    """A tokenizer that needs no file: one token a byte, special tokens at their ids.

    Args:
        special: token -> id; None takes a free one. 0, 1 and 2 are <pad>, <s> and </s>.
        attributes: names under which a processor looks for some of them.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {"<pad>": 0, "<s>": 1, "</s>": 2} | {token: at for token, at in special.items() if at is not None}
    taken = set(ids.values())
    free = (number for number in range(3, 10**6) if number not in taken)
    for token in [
        *(t for t, at in special.items() if at is None),
        *sorted(pre_tokenizers.ByteLevel.alphabet()),
    ]:
        ids[token] = next(free)
    tokenizer = Tokenizer(models.BPE(ids, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens=attributes or {},
        padding_side="left",
    )
    made.add_special_tokens({"additional_special_tokens": list(special)})
    return made


def _family(model_type: str) -> Family:
    if model_type not in FAMILIES:
        raise Unsupported(
            f"model={model_type}: no adapter knows this family (known: {', '.join(FAMILIES)}; each is a few "
            "lines in himap.models.families)."
        )
    return FAMILIES[model_type]


def _import(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(
        import_module(module if name.startswith("himap") else f"transformers.models.{module}"), attribute
    )


def _class(family: Family) -> Any:
    """The family's processor class, made to do without videos."""
    parent = _import(family.processor)
    if family.processor.startswith("himap"):
        return parent

    class ImageProcessorOnly(parent):  # type: ignore[misc,valid-type]
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if argument_name == "video_processor":
                return None
            return super().check_argument_for_proper_class(argument_name, argument)

        @classmethod
        def get_attributes(cls) -> list[str]:
            names: list[str] = parent.get_attributes()
            return names

        @classmethod
        def _get_arguments_from_pretrained(cls, folder: Any, *args: Any, **kwargs: Any) -> list[Any]:
            from transformers import AutoTokenizer

            parts = {
                "image_processor": lambda: _import(family.image_processor).from_pretrained(
                    folder, local_files_only=True
                ),
                "tokenizer": lambda: AutoTokenizer.from_pretrained(folder, local_files_only=True),
                "video_processor": lambda: None,
            }
            return [parts[name]() for name in cls.get_attributes()]

    ImageProcessorOnly.__name__ = parent.__name__
    return ImageProcessorOnly
