"""Bring a database that lost its trials back from the sweep's folder, which is the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from himap.search.outcome import point_of
from himap.search.sampler import DYNAMIC
from himap.search.space import Space
from himap.search.trials import TrialStore

if TYPE_CHECKING:
    from optuna import Study


def restore(study: Study, space: Space, store: TrialStore, flops: str, sampler: str) -> int:
    """Add the trials of the folder that the study has lost, all or the last ones, under their numbers.

    Unfinished ones are enqueued again under new numbers.

    Returns:
        how many trials were added.
    """
    from optuna.trial import FixedTrial, TrialState, create_trial

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
        fixed = space.fixed(record.params)
        template = FixedTrial(fixed)
        space.suggest(template, dynamic=sampler in DYNAMIC)
        attrs: dict[str, object] = {"key": record.key}
        if record.copy_of is not None:
            attrs["copy_of"] = record.copy_of
        result = store.result(number)
        if result is None and store.error(number) is None:
            unfinished.append(fixed)
            attrs["copy_of"] = None
        point = point_of(result, flops) if result is not None else None
        study.add_trial(
            create_trial(
                state=TrialState.FAIL if point is None else TrialState.COMPLETE,
                params=template.params,
                distributions=template.distributions,
                values=None if point is None else [point.accuracy, point.share],
                user_attrs=attrs,
            )
        )
    for fixed in unfinished:
        study.enqueue_trial(fixed)
    study.set_user_attr("started", True)
    return len(lost)
