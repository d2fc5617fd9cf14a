"""What the embedded model can do, and how pruning hurts it: the table of the README.

Four tasks on the held-out split: unpruned, with noise instead of the picture, and with 90 % of the image
tokens dropped after one and after two layers by each criterion. Captions stand beside what their references
score against each other. Prints a table, keeps benchmarks/results/embedded_model.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from himap import models, tasks
from himap.config import TaskConfig
from himap.config.compose import compose
from himap.config.schema import EvaluateConfig
from himap.evaluate import evaluate
from himap.files import write_json
from himap.metrics.caption import leave_one_out
from himap.progress import bar
from himap.result import Result, environment
from himap.strategy import CRITERIA, Stage, Strategy

TASKS = ("shapes_short", "shapes_choice", "shapes_yesno", "shapes_caption")
LAYERS = (1, 2)
DROP = 0.9
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=int, default=2000, help="samples of each task for the unpruned model")
    parser.add_argument("--pruned-limit", type=int, default=400, help="samples of each pruned run")
    parser.add_argument("--path", default="", help="folder of other weights than the shipped ones")
    arguments = parser.parse_args()
    config = compose("evaluate", EvaluateConfig, [f"model.path={arguments.path}"] if arguments.path else [])
    model = models.load(config.model, config.hardware)

    def run(task: str, strategy: Strategy, limit: int, image: str = "scene") -> Result:
        settings = TaskConfig(task, task, "heldout", limit=limit, options={"image": image})
        title = f"{task}, {strategy.name}, {image}"
        return evaluate(model, strategy, tasks.load(settings), batch_size=64, bar=bar(title))

    rows: dict[str, dict[str, Result]] = {}
    plain = Strategy("none")
    for task in TASKS:
        rows[task] = {
            "none": run(task, plain, arguments.limit),
            "noise image": run(task, plain, arguments.pruned_limit, "noise"),
        }
        for layer in LAYERS:
            for criterion in CRITERIA:
                name = f"{criterion}, K={layer}"
                strategy = Strategy(name, (Stage(layer, DROP, criterion),))
                rows[task][name] = run(task, strategy, arguments.pruned_limit)
    captions = tasks.load(TaskConfig("shapes_caption", "shapes_caption", "heldout", limit=arguments.limit))
    ceiling = leave_one_out([sample.references for sample in captions.samples()]).corpus
    show(rows, ceiling)
    content = {
        "environment": environment("cpu"),
        "references_cider": ceiling,
        "tasks": {task: {name: r.to_dict() for name, r in runs.items()} for task, runs in rows.items()},
    }
    write_json(RESULTS / "embedded_model.json", content)


def show(rows: dict[str, dict[str, Result]], ceiling: float) -> None:
    table = Table(title=f"held-out split; dropped: {DROP:.0%} of the image tokens after layer K")
    table.add_column("")
    for task in rows:
        table.add_column(task, justify="right")
    for name in rows[TASKS[0]]:
        cells = [f"{r.primary:.1f} [{r.ci95[0]:.1f}, {r.ci95[1]:.1f}]" for r in (rows[t][name] for t in rows)]
        table.add_row(name, *cells)
    console = Console(width=130)
    console.print(table)
    share = rows["shapes_caption"]["none"].primary / ceiling
    console.print(
        f"references against each other: CIDEr {ceiling:.1f}; the unpruned model has {share:.1%} of it"
    )
    for task in TASKS[:3]:
        metrics = rows[task]["none"].metrics
        parts = [
            f"{key.removesuffix('_accuracy')} {value:.1f}" for key, value in metrics.items() if "_acc" in key
        ]
        console.print(f"{task}: {', '.join(parts)}")


if __name__ == "__main__":
    main()
