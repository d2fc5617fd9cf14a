"""Bring a database that lost its trials back from the sweep's folder, which is the truth."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from himap.search.outcome import point_of
from himap.search.sampler import DYNAMIC
from himap.search.space import Params, Space
from himap.search.trials import TrialStore

if TYPE_CHECKING:
    from optuna import Study


def restore(study: Study, space: Space, store: TrialStore, flops: str, sampler: str) -> int:
    """Add the trials of the folder that the study has lost, all or the last ones, under their numbers.

    Unfinished ones are enqueued again under new numbers.

    Returns:
        how many trials were added.
    """
    from optuna.trial import TrialState, create_trial

    records = {record.number: record for record in store.records()}
    first = len(study.get_trials(deepcopy=False))
    lost = range(first, max(records, default=-1) + 1)
    if not lost:
        return 0
    unfinished = []
    for number in lost:
        record = records.get(number)
        if record is None:
            study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"copy_of": None}))
            continue
        attrs: dict[str, object] = {"key": record.key}
        if record.copy_of is not None:
            attrs["copy_of"] = record.copy_of
        result = store.result(number)
        if result is None and store.error(number) is None:
            unfinished.append(record.params)
            attrs["copy_of"] = None
        point = point_of(result, flops) if result is not None else None
        study.add_trial(
            space.trial(
                record.params,
                sampler in DYNAMIC,
                state=TrialState.FAIL if point is None else TrialState.COMPLETE,
                values=None if point is None else [point.accuracy, point.share],
                user_attrs=attrs,
            )
        )
    for params in unfinished:
        enqueue(study, space, params, sampler)
    study.set_user_attr("started", True)
    return len(lost)


def enqueue(
    study: Study, space: Space, params: Params, sampler: str, there: Collection[str | None] = ()
) -> None:
    """Let a configuration wait for a worker, complete, so that whoever takes it has little to write.

    Args:
        there: keys of configurations that wait already, which are left out.
    """
    from optuna.trial import TrialState

    key = space.key(space.strategy(params))
    if key not in there:
        attrs = {"key": key}
        study.add_trial(space.trial(params, sampler in DYNAMIC, state=TrialState.WAITING, user_attrs=attrs))
