"""The judges' prompts: from the user's copy of the released files, or in himap's own words."""

from __future__ import annotations

import ast
import hashlib
import json
from importlib import resources
from pathlib import Path

from himap.errors import UserError


def own_words(name: str) -> str:
    """The default prompt of a task."""
    text = resources.files("himap.judge").joinpath("prompts", f"{name}.txt").read_text(encoding="utf-8")
    return text.strip()


def read(path: str) -> str:
    """The user's prompt file as text.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"task.judge.prompt={path}: cannot be read ({error}).") from error


def few_shot(path: str) -> str:
    """MM-Vet's prompt from its released evaluator (notebook or script), or from a plain text file.

    Raises:
        UserError: the file cannot be read, or its code gives no text to the name `prompt`.
    """
    text = read(path)
    if not path.endswith((".py", ".ipynb")):
        return text.strip("\n")
    try:
        cells = [text] if path.endswith(".py") else _cells(text)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"task.judge.prompt={path}: is no notebook ({error}).") from error
    for cell in cells:
        if (found := _assigned(cell)) is not None:
            return found
    raise UserError(f"task.judge.prompt={path}: no text is given to the name `prompt` there.")


def rules(path: str, name: str) -> tuple[str, str]:
    """A rule of LLaVA's released rule.json as (prompt, role); a file that is no JSON is the rule itself.

    Raises:
        UserError: the file has no such rule.
    """
    text = read(path)
    if not path.endswith(".json"):
        return text.strip(), "Assistant"
    try:
        rule = json.loads(text)[name]
        return rule["prompt"], rule["role"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"task.judge.prompt={path}: has no rule {name!r} with prompt and role.") from error


def short_hash(text: str) -> str:
    """The first twelve characters of the SHA-256, to tell prompts apart."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]


def _cells(text: str) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]


def _assigned(code: str) -> str | None:
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return None  # a cell with shell commands
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            if "prompt" in names and isinstance(node.value.value, str):
                return node.value.value
    return None
