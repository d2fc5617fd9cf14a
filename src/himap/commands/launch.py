"""Runs a verb through Hydra: what was typed is checked first, and Ctrl-C says how to go on."""

from __future__ import annotations

import os
import re
import shlex
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from himap.config import without_secrets
from himap.config.compose import composer, parse, register
from himap.config.explain import EXPLAINED, explain
from himap.errors import UserError
from himap.files import exclusive, shared, write_atomic
from himap.paths import conf_dir

_ERROR = "error.txt"
_LONGEST_REASON = 300

Run = Callable[[Any, Path], None]
Compose = Callable[..., DictConfig]
"""What `himap.config.compose.composer` gives."""


def launch(verb: str, schema: type, run: Run, arguments: Sequence[str]) -> None:
    """Compose, check and run a verb with the arguments typed after it.

    Args:
        verb: name of the root configuration.
        schema: its dataclass.
        run: takes the checked object and the run's folder.
        arguments: overrides and Hydra's own flags.

    Raises:
        UserError: something typed is wrong; nothing was started then.
    """
    register(verb, schema)
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise UserError(f"himap {verb}: {message} (himap {verb} --hydra-help lists the flags).")

    parser.error = refuse  # type: ignore[method-assign]
    flags = parser.parse_args(arguments)
    if flags.config_dir is not None and not Path(flags.config_dir).is_dir():
        raise UserError(
            f"--config-dir={flags.config_dir}: no such folder (give one with groups such as model/)."
        )
    if not (flags.help or flags.hydra_help or flags.cfg or flags.info or flags.shell_completion):
        _check(verb, schema, flags)

    folders: list[Path] = []
    failed: list[Path] = []

    def job(cfg: DictConfig) -> None:
        folder = Path(HydraConfig.get().runtime.output_dir)
        folders.append(folder)
        try:
            _run(schema, run, cfg, folder)
        except UserError as error:
            # For reports over many runs, which say of each why it has no result.
            write_atomic(folder / _ERROR, " ".join(str(error).split()) + "\n")
            if _elsewhere():
                raise
            print(" ".join(str(error).split()), file=sys.stderr)
            if HydraConfig.get().mode != RunMode.MULTIRUN:
                sys.exit(1)
            failed.append(folder)

    application = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=verb)(job)
    words = _for_all_jobs(arguments) if flags.multirun and not _other_sweeper(flags) else list(arguments)
    try:
        with _raising_hydra(), _typed([f"himap {verb}", *words]):
            application()
        if failed:
            sys.exit(1)
    except KeyboardInterrupt:
        print(_how_to_go_on(verb, arguments, folders), file=sys.stderr)
        sys.exit(130)
    except EXPLAINED as error:
        if isinstance(error, UserError):
            raise
        raise explain(error, flags.overrides, OmegaConf.create({}), schema) from error
    except Exception as error:
        if not _raised_in(error, "submitit"):
            raise
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        raise UserError(
            f"hydra/launcher: no jobs: {reason} (submit on a login node; hydra.launcher has the options)."
        ) from error


def _raised_in(error: BaseException, package: str) -> bool:
    """Whether it was a package itself that raised an error, and not what it called."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] == package


def _elsewhere() -> bool:
    """Whether a launcher runs this job in another process, from which only an exception comes back."""
    hydra = HydraConfig.get()
    return hydra.mode == RunMode.MULTIRUN and not str(hydra.launcher._target_).endswith(".BasicLauncher")


def _run(schema: type, run: Run, cfg: DictConfig, folder: Path) -> None:
    config: Any = parse(schema, cfg)
    path = folder / "config.yaml"
    text = OmegaConf.to_yaml(OmegaConf.create(without_secrets(OmegaConf.to_container(cfg, resolve=True))))
    # What lies in a folder already was made with its config.yaml, and this run may be refused for being
    # different: the file changes only when the run has succeeded.
    if not path.exists():
        write_atomic(path, text)
    run(config, folder)
    write_atomic(path, text)
    (folder / _ERROR).unlink(missing_ok=True)


@contextmanager
def holding(folder: Path, together: bool = False, taken: str | None = None) -> Iterator[None]:
    """Hold a run's folder for this process, or together with others that do.

    Args:
        taken: what to say where somebody else holds it.

    Raises:
        UserError: another run writes into it (two that start in one second get the same name).
    """
    try:
        with shared(folder) if together else exclusive(folder):
            yield
    except BlockingIOError as error:
        raise UserError(
            taken
            or f"hydra.run.dir={folder}: another run is writing there (wait for it, or give another folder)."
        ) from error


def _check(verb: str, schema: type, flags: Namespace) -> None:
    """Check every combination that would run: the last of a long multirun fails at the first second, too."""
    with composer(flags.config_dir) as composed:
        name = flags.config_name or verb
        for overrides in _combinations(name, flags, composed):
            parse(schema, composed(name, overrides), overrides)


def _combinations(name: str, flags: Namespace, composed: Compose) -> list[list[str]]:
    if not flags.multirun:
        return [flags.overrides]
    if _other_sweeper(flags):
        return []  # only that sweeper knows what it will run
    loader: ConfigLoader = GlobalHydra.instance().config_loader()
    try:
        parser = OverridesParser.create(config_loader=loader)
        swept = _swept(name, parser.parse_overrides(flags.overrides), composed)
        parsed = parser.parse_overrides([*swept, *flags.overrides])
        return BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
    except EXPLAINED as error:
        raise explain(error, flags.overrides, OmegaConf.create({})) from error


def _other_sweeper(flags: Namespace) -> bool:
    return any(override.startswith("hydra/sweeper") for override in flags.overrides)


def _for_all_jobs(arguments: Sequence[str]) -> list[str]:
    """A multirun's words, with the values that are set made to hold in Hydra's first composition, too.

    It has the default of each group that is swept over, and would refuse `task.data.source` there because the
    default task has no data. That the keys are known in every job has been checked by then.
    """
    return [f"++{word}" if re.match(r"(?!hydra\.)\w+\.[\w.]+=", word) else word for word in arguments]


def _swept(name: str, typed: Sequence[Override], composed: Compose) -> list[str]:
    """What an experiment sweeps over by itself (hydra.sweeper.params); what is typed outdoes it."""
    # Over several experiments, experiment=fig5,fig6, Hydra sweeps without asking any of them.
    chosen = [
        one.input_line or ""
        for one in typed
        if not one.is_sweep_override() and (one.key_or_group == "experiment" or one.is_hydra_override())
    ]
    params = composed(name, chosen, hydra=True).hydra.sweeper.get("params") or {}
    return [f"{key}={value}" for key, value in params.items()]


def _how_to_go_on(verb: str, arguments: Sequence[str], folders: Sequence[Path]) -> str:
    if not folders:
        return "interrupted"
    key, folder = "hydra.run.dir", folders[-1]
    if any(argument in ("-m", "--multirun") for argument in arguments):
        key, folder = "hydra.sweep.dir", folder.parent
    typed = [argument for argument in arguments if not argument.startswith(f"{key}=")]
    command = shlex.join(["himap", verb, *typed, f"{key}={folder}"])
    return f"interrupted; this goes on from here: {command}"


@contextmanager
def _raising_hydra() -> Iterator[None]:
    """Let Hydra raise what goes wrong instead of printing it."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


@contextmanager
def _typed(words: list[str]) -> Iterator[None]:
    before, sys.argv = sys.argv, [sys.argv[0], *words[1:]]
    try:
        yield
    finally:
        sys.argv = before
