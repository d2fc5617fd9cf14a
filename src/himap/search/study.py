"""A sweep from its folder's first file to its held-out results; every step can be interrupted and goes on."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import himap
from himap.config import without_secrets
from himap.errors import ConfigError, UserError
from himap.files import write_json
from himap.search import heldout
from himap.search.config import SearchConfig
from himap.search.evaluator import Evaluator
from himap.search.group import MOST, Units
from himap.search.outcome import is_sweep, read_outcome, read_study
from himap.search.owner import locked
from himap.search.promise import Chooser
from himap.search.propose import Proposer
from himap.search.restore import enqueue, restore
from himap.search.sampler import SEEDED, make_sampler, stratified
from himap.search.space import Params, Space
from himap.search.storage import open_storage, open_study
from himap.search.trials import TrialStore
from himap.search.worker import Finished, Worker
from himap.strategy import Strategy

if TYPE_CHECKING:
    from optuna import Study


@dataclass(frozen=True)
class Sweep:
    """What is searched, on what.

    Attributes:
        config: the search's settings.
        space: its configurations.
        baselines: name -> strategy that the front is compared with.
        cost: FLOPs share of a strategy, for the stratified seeds.
        split: where trials are evaluated.
        identity: the nested settings (model, task, ...) that change numbers; with the search's own they must
            stay the same in a folder.
        most: strategies that memory lets run together.
        n_text: tokens of a prompt besides its image tokens.
    """

    config: SearchConfig
    space: Space
    baselines: dict[str, Strategy]
    cost: Callable[[Strategy], float]
    split: str
    identity: dict[str, Any]
    most: int = MOST
    n_text: int = 0

    @property
    def units(self) -> Units:
        """What strategies cost in groups."""
        return Units(self.space.n_layers, self.space.n_image, self.n_text)

    def __post_init__(self) -> None:
        for number, given in enumerate(self.config.starts):
            self.space.start(number, given)
        for name, strategy in self.baselines.items():
            try:
                strategy.check_depth(self.space.n_layers)
            except ConfigError as error:
                message = str(error).replace("pruning.", f"search.baselines.{name}.", 1)
                raise ConfigError(message) from error
        if self.config.heldout_split == self.split:
            raise ConfigError(
                f"search.heldout_split={self.split}: must differ from task.split "
                "(its samples choose the front and flatter it)."
            )


class Watcher:
    """Sees a sweep's steps; this one does nothing."""

    def phase(self, name: str, total: int, done: int) -> None:
        """A phase of `total` steps begins, `done` of which are there already."""

    def progress(self, n: int, share: float) -> None:
        """`share` (0 to 1) of the work on `n` strategies that run together is done."""

    def trial(self, finished: Finished) -> None:
        """A trial was evaluated."""

    def point(self, key: str) -> None:
        """A baseline or a held-out point was evaluated."""

    def end(self) -> None:
        """No step will follow."""


def run(sweep: Sweep, folder: Path, evaluate: Evaluator, watcher: Watcher | None = None) -> bool:
    """Search until the budget is spent, then check the front on the held-out split.

    Several processes may run the same sweep in the same folder; the last one to end does the check.

    Returns:
        whether the sweep is complete; False where another worker still evaluates a trial.
    Raises:
        UserError: the folder has another configuration, the storage cannot be opened, or trials keep failing.
    """
    watcher = watcher or Watcher()
    try:
        return _run(sweep, folder.resolve(), evaluate, watcher)
    finally:
        watcher.end()


def _run(sweep: Sweep, folder: Path, evaluate: Evaluator, watcher: Watcher) -> bool:
    with locked(folder):
        study = prepare(sweep, folder)

    worker = Worker(
        study,
        sweep.space,
        folder,
        evaluate,
        budget=sweep.config.trials,
        proposer=Proposer(
            sweep.space,
            sweep.config.sampler,
            sweep.config.seed,
            Chooser(sweep.space, sweep.cost, sweep.units),
        ),
        split=sweep.split,
        flops=sweep.config.flops,
        group=sweep.config.group,
        most=sweep.most,
        max_attempts=sweep.config.max_attempts,
        on_progress=watcher.progress,
        on_finished=watcher.trial,
    )
    beside = {
        sweep.space.key(strategy): strategy
        for strategy in sweep.baselines.values()
        if sweep.space.params_of(strategy) is None
    }
    most = sweep.most if sweep.config.group == "auto" else int(sweep.config.group)
    watcher.phase("baselines", len(beside), 0)
    heldout.check(evaluate, beside, sweep.split, folder / "baselines", most, watcher.progress, watcher.point)
    watcher.phase("trials", sweep.config.trials, worker.n_ended())
    worker.run()
    if worker.others_running():
        return False

    outcome = read_outcome(folder)
    chosen = heldout.choose(outcome, sweep.space, sweep.baselines, sweep.config.heldout_points)
    watcher.phase("held-out", len(chosen), 0)
    heldout.check(
        evaluate,
        chosen,
        sweep.config.heldout_split,
        folder / "heldout",
        most,
        watcher.progress,
        watcher.point,
    )
    return True


def check(sweep: Sweep, folder: Path) -> dict[str, Any]:
    """Refuse to go on with another configuration than the folder's; writes nothing.

    Returns:
        the settings that must stay the same, by dotted key.
    Raises:
        UserError: they differ from those that the folder was begun with; the message names each.
    """
    # Through JSON, so that what is read from the file compares equal.
    identity: dict[str, Any] = json.loads(
        json.dumps(_flat({**sweep.identity, "search": _search_identity(sweep.config)}))
    )
    if is_sweep(folder):
        _refuse_changes(read_study(folder)["identity"], identity, folder)
    return identity


def prepare(sweep: Sweep, folder: Path) -> Study:
    """Write or compare study.json, open the study, and enqueue what the search starts with."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    identity = check(sweep, folder)
    if is_sweep(folder):
        before = read_study(folder)
        study_id, name = before["id"], before["name"]
    else:
        study_id = uuid.uuid4().hex
        # Only a database that several sweeps share needs different names.
        name = sweep.config.name or (folder.name if "://" in sweep.config.storage else "sweep")
    write_json(
        folder / "study.json",
        {
            "id": study_id,
            "name": name,
            "himap": himap.__version__,
            "identity_sha256": hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
            "identity": identity,
            "search": without_secrets(asdict(sweep.config)),
            "axes": sweep.space.names,
            "n_layers": sweep.space.n_layers,
            "n_image": sweep.space.n_image,
            "split": sweep.split,
            "baselines": {
                key: {
                    "key": sweep.space.key(strategy),
                    "stages": [asdict(stage) for stage in strategy.stages],
                }
                for key, strategy in sweep.baselines.items()
            },
        },
    )
    storage = open_storage(sweep.config.storage, folder)
    study = open_study(storage, name, make_sampler(sweep.config))
    owner = study.user_attrs.get("folder_id")
    if owner is None:
        study.set_user_attr("folder_id", study_id)
    elif owner != study_id:
        raise UserError(
            f"search.name={name}: another folder has a study of this name in the database (choose another)."
        )
    restore(study, sweep.space, TrialStore(folder), sweep.config.flops, sweep.config.sampler)
    if not study.user_attrs.get("started"):
        there = {trial.user_attrs.get("key") for trial in study.get_trials(deepcopy=False)}
        for params in first_configurations(sweep):
            enqueue(study, sweep.space, params, sweep.config.sampler, there)
        study.set_user_attr("started", True)
    # Workers that begin at the same moment must not draw the same numbers either.
    n_opened = study.user_attrs.get("n_opened", 0)
    study.set_user_attr("n_opened", n_opened + 1)
    study.sampler = make_sampler(sweep.config, len(study.get_trials(deepcopy=False)) + n_opened)
    return study


def first_configurations(sweep: Sweep) -> list[Params]:
    """What the search starts with: given starts, the baselines that the axes reach, the stratified seeds."""
    chosen: dict[str, Params] = {}
    for number, given in enumerate(sweep.config.starts):
        start = sweep.space.start(number, given)
        chosen.setdefault(sweep.space.key(sweep.space.strategy(start)), start)
    for strategy in sweep.baselines.values():
        params = sweep.space.params_of(strategy)
        if params is not None:
            chosen.setdefault(sweep.space.key(strategy), params)
    if sweep.config.sampler in SEEDED:
        n_seeds = min(sweep.config.seeds, max(0, sweep.config.trials - len(chosen)))
        units = sweep.units if sweep.config.group != 1 else None
        for params in stratified(sweep.space, n_seeds, sweep.cost, sweep.config.seed, units):
            chosen.setdefault(sweep.space.key(sweep.space.strategy(params)), params)
    return list(chosen.values())


def _search_identity(config: SearchConfig) -> dict[str, Any]:
    # Budget, storage, names and how many points are checked may change when a sweep goes on.
    kept = ("axes", "sampler", "seed", "flops", "heldout_split", "heldout_limit")
    return {key: value for key, value in asdict(config).items() if key in kept}


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys, as they are typed on the command line."""
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _refuse_changes(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if keys:
        changes = "; ".join(f"{key}: {before.get(key)} -> {now.get(key)}" for key in keys)
        raise UserError(
            f"{folder}: this sweep was begun with another configuration: {changes} "
            "(undo the change, or give a new hydra.run.dir)."
        )
