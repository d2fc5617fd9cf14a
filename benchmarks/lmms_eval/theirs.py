"""lmms-eval's side: its tasks on the made data, with a model that plays answers back.

Runs in the environment that holds lmms-eval, reads WORK/plan.json and writes WORK/theirs.json and lmms-eval's
own sample logs. Nothing of himap is imported here.

    python theirs.py WORK
"""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "LMMS_EVAL_USE_CACHE": "False",
}


def player(answers: dict[str, list[str]]) -> Any:
    """A model of lmms-eval's that answers document n of a task with the n-th recorded text."""
    from lmms_eval.api.model import lmms

    class Player(lmms):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.asked: dict[str, list[dict[str, Any]]] = {task: [] for task in answers}

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            texts = []
            for request in requests:
                context, settings, doc_to_visual, number, task, split = request.args
                assert len(doc_to_visual(self.task_dict[task][split][number])) == 1
                plain = {name: value for name, value in settings.items() if not callable(value)}
                self.asked[task].append({"number": number, "prompt": context, "generation": plain})
                texts.append(answers[task][number])
            return texts

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            raise NotImplementedError("no task here ranks")

        def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
            raise NotImplementedError("no task here has rounds")

    return Player()


def write_tasks(plan: dict[str, dict[str, Any]], folder: Path) -> None:
    """A YAML for each task: lmms-eval's own with another place of the data."""
    import lmms_eval

    packaged = Path(lmms_eval.__file__).parent / "tasks"
    folder.mkdir(parents=True, exist_ok=True)
    for name, task in plan.items():
        settings = {
            "include": str(packaged / task["yaml"]),
            "task": name,
            "dataset_path": task["data"],
            "dataset_kwargs": {},
            **task["changes"],
        }
        # JSON is YAML.
        (folder / f"{name}.yaml").write_text(json.dumps(settings, indent=2), encoding="utf-8")


def evaluate(plan: dict[str, dict[str, Any]], work: Path) -> dict[str, Any]:
    """Metrics, prompts, generation settings and each document's figures, by task."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.loggers.evaluation_tracker import EvaluationTracker
    from lmms_eval.tasks import TaskManager

    write_tasks(plan, work / "tasks")
    tracker = EvaluationTracker(output_path=str(work / "logs"))
    model = player({name: task["answers"] for name, task in plan.items()})
    settings = Namespace(
        output_path=str(work / "logs"), process_with_media=False, reasoning_tags=None, log_samples=True
    )
    results = simple_evaluate(
        model=model,
        tasks=list(plan),
        task_manager=TaskManager(include_path=str(work / "tasks"), include_defaults=False),
        evaluation_tracker=tracker,
        bootstrap_iters=0,
        cli_args=settings,
    )
    samples = results.pop("samples")
    found = {}
    for name in plan:
        metrics = {
            key.partition(",")[0]: value
            for key, value in results["results"][name].items()
            if isinstance(value, int | float) and key.endswith(",none") and "_stderr" not in key
        }
        asked = sorted(model.asked[name], key=lambda one: one["number"])
        found[name] = {
            "metrics": metrics,
            "prompts": [one["prompt"] for one in asked],
            "generation": asked[0]["generation"],
            "scores": [score(row, plan[name]["score"]) for row in samples[name]]
            if plan[name]["score"]
            else [],
        }
        if plan[name]["qwen"]:
            found[name]["qwen_prompts"] = qwen_prompts(name, work)
    # As its command line does; the logs lose their documents on the way.
    tracker.save_results_aggregated(results=results, samples=samples, datetime_str="crosscheck")
    for name in plan:
        tracker.save_results_samples(task_name=name, samples=samples[name])
    return found


def qwen_prompts(name: str, work: Path) -> list[str]:
    """The task's prompts for Qwen-VL-Chat."""
    from lmms_eval.tasks import TaskManager, get_task_dict

    manager = TaskManager(include_path=str(work / "tasks"), include_defaults=False, model_name="qwen_vl")
    task = get_task_dict([name], manager, "simple")[name]
    return [task.doc_to_text(document) for document in task.test_docs()]


def score(row: dict[str, Any], keys: str) -> float:
    """A document's score; `keys` are paths with dots, the alternatives between bars."""
    for path in keys.split("|"):
        first, *rest = path.split(".")
        if first in row:
            found = row[first]
            for key in rest:
                found = found[key]
            return float(found)
    raise KeyError(keys)


def main() -> None:
    import lmms_eval

    work = Path(sys.argv[1])
    plan = json.loads((work / "plan.json").read_text(encoding="utf-8"))
    folder = str(Path(lmms_eval.__file__).parent / "tasks")
    versions = {
        name: version(name) for name in ("lmms-eval", "datasets", "pycocoevalcap", "torch", "transformers")
    }
    found = {"versions": versions, "folder": folder, "tasks": evaluate(plan, work)}
    (work / "theirs.json").write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
