"""Which tokenizer CIDEr's captions go through: the reference one in Java, or its imitation in Python."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from himap.errors import ConfigError, UserError
from himap.metrics import ptb

Tokenizer = Literal["auto", "java", "python"]
TOKENIZERS: tuple[str, ...] = get_args(Tokenizer)

MISSING_EXTRA = "metric cider: the package pycocoevalcap is missing (pip install 'himap[caption]')."


def resolve(tokenizer: str) -> str:
    """The tokenizer that will be used, `java` or `python`; `auto` takes Java where `java` is on PATH.

    Raises:
        ConfigError: unknown name.
        UserError: `java` asked for and not there.
    """
    if tokenizer not in TOKENIZERS:
        raise ConfigError(f"tokenizer={tokenizer}: unknown; choose one of {', '.join(TOKENIZERS)}.")
    has_java = shutil.which("java") is not None
    if tokenizer == "java" and not has_java:
        raise UserError("tokenizer=java: no `java` on PATH (install Java, or set tokenizer=python).")
    return "java" if tokenizer != "python" and has_java else "python"


def _jar() -> Path:
    package = find_spec("pycocoevalcap")
    for folder in package.submodule_search_locations or () if package else ():
        for jar in sorted(Path(folder, "tokenizer").glob("stanford-corenlp-*.jar")):
            return jar
    raise UserError(MISSING_EXTRA)


def tokenize_java(captions: Sequence[str]) -> list[str]:
    """Tokenise as pycocoevalcap's PTBTokenizer does, over pipes.

    pycocoevalcap's own wrapper writes a file into site-packages, and a caption that holds a line or page
    separator shifts all later captions by one; here such white space is blanked, and the lines are counted.

    Raises:
        UserError: pycocoevalcap is missing, or Java failed.
    """
    lines = "".join(ptb.one_line(caption) + "\n" for caption in captions)
    command = ["java", "-cp", str(_jar()), "edu.stanford.nlp.process.PTBTokenizer"]
    options = ["-preserveLines", "-lowerCase", "-encoding", "utf-8"]
    process = subprocess.run([*command, *options], input=lines.encode(), capture_output=True, check=False)
    tokenised = process.stdout.decode().split("\n")[:-1]
    if process.returncode or len(tokenised) != len(captions):
        said = process.stderr.decode(errors="replace").strip().splitlines()
        raise UserError(
            f"tokenizer=java: {len(tokenised)} lines came back for {len(captions)} captions "
            f"({said[-1] if said else 'no message'}); set tokenizer=python."
        )
    return [" ".join(token for token in line.split(" ") if token not in ptb.DROPPED) for line in tokenised]


def tokenize(captions: Sequence[str], tokenizer: str) -> list[str]:
    """Tokenise captions with `java` or `python`, the tokens of a caption joined by spaces."""
    return tokenize_java(captions) if tokenizer == "java" else ptb.tokenize(captions)
