"""`himap <verb> ...`: finds the verb, and turns what goes wrong into one line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import himap
from himap.errors import UserError
from himap.workers import interruptible

# A verb is a module of himap.commands with `main(arguments)`.
VERBS = {
    "evaluate": "measure one pruning strategy on one task",
    "sweep": "search strategies for the front of accuracy against FLOPs",
    "analyze": "see where visual information flows and which image tokens survive",
    "benchmark": "see what pruning saves on a clock",
    "flops": "count what a strategy costs, without weights",
    "score": "score saved answers without a model",
    "report": "tabulate the results below some folders",
    "dashboard": "show a sweep in Optuna's dashboard",
    "train": "train the embedded model",
}

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb and exit: 0 when done, 1 when the user can mend it, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with interruptible():
            _dispatch(arguments)
    except UserError as error:
        # In one line, whatever a message was put together from.
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _dispatch(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
    elif arguments[0] == "--version":
        print(f"himap {himap.__version__}")
    elif arguments[0] in ("-sc", "--shell-completion"):
        _complete(arguments)
    elif arguments[0] in VERBS:
        importlib.import_module(f"himap.commands.{arguments[0]}").main(arguments[1:])
    else:
        from himap.rules import suggestion

        near = suggestion(arguments[0], list(VERBS))
        raise UserError(f"himap {arguments[0]}: unknown verb{near} (choose one of {', '.join(VERBS)}).")


def _help() -> str:
    verbs = "\n".join(f"  himap {verb:<10} {summary}" for verb, summary in VERBS.items())
    return (
        f"himap {himap.__version__}: image-token pruning in multimodal LLMs\n\n{verbs}\n\n"
        "himap VERB --help lists what can be chosen; himap --version prints the version.\n"
        'Tab completion: eval "$(himap -sc install=bash)" (zsh too; fish: himap -sc install=fish | source).'
    )


def _complete(arguments: list[str]) -> None:
    """Answer a shell that completes: the verbs ourselves, the rest by Hydra."""
    if not any(argument.startswith("query=") for argument in arguments):
        _dispatch(["evaluate", *arguments])
        return
    app, *words = os.environ["COMP_LINE"].split(" ")
    if len(words) < 2:
        typed = words[0] if words else ""
        print("\n".join(verb for verb in VERBS if verb.startswith(typed)))
    elif words[0] in VERBS and words[0] not in ("report", "dashboard"):
        os.environ["COMP_LINE"] = " ".join([app, *words[1:]])
        _dispatch([words[0], *arguments])
