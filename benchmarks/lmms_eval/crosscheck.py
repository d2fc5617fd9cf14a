"""Score the same made answers with himap and with lmms-eval, and say where they differ and why.

    make crosscheck        # makes .venv-lmms once, then runs this
    python benchmarks/lmms_eval/crosscheck.py --python OTHER/bin/python

lmms-eval runs its own tasks in its own environment, offline, on parquet in the hub's layout, with a model
that plays recorded answers back. himap scores the sample logs that this leaves, and the same answers as an
answers.jsonl of its own. Judged tasks ask a judge on this machine whose reply depends on the request alone.

Writes benchmarks/results/lmms_eval.json. Exit code 1 where a figure, a document's score or a prompt differs
without a known reason, or where a known reason explains nothing any more.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from cases import CASES, Case
from compare import Figure, Prompts, Row, figure, prompts, record, requests, unexplained, unneeded, value
from judge import JUDGED, judge, of_task
from made import all_made
from ours import QWEN, quoted, score
from show import show
from tables import Made, write

from himap.errors import UserError
from himap.files import write_json
from himap.progress import bar
from himap.result import environment

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "benchmarks" / "results" / "lmms_eval.json"


def plan(cases: list[Case], made: dict[str, Made], work: Path) -> dict[str, Any]:
    """What lmms-eval's side needs to know."""
    return {
        case.name: {
            "yaml": case.yaml,
            "data": str(work / "data" / case.made),
            "answers": case.answers(made[case.made].part(case.split)),
            "changes": dict(case.changes),
            "score": case.score,
            "qwen": case.qwen is not None,
        }
        for case in cases
    }


def theirs(python: Path, work: Path, url: str) -> dict[str, Any]:
    """Run lmms-eval's side.

    Raises:
        UserError: it is not installed, or it failed.
    """
    if not python.exists():
        raise UserError(f"--python={python}: no such file (make crosscheck sets the environment up).")
    variables = {
        **os.environ,
        "HF_HOME": str(work / "hf"),  # the data's copies stay in the work folder
        "OPENAI_API_URL": url,
        "OPENAI_API_KEY": "none",
    }
    log = work / "lmms_eval.log"
    with log.open("w", encoding="utf-8") as file:
        command = [str(python), str(Path(__file__).with_name("theirs.py")), str(work)]
        done = subprocess.run(command, env=variables, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise UserError(f"lmms-eval stopped with code {done.returncode}: {''.join(last)} (see {log}).")
    found: dict[str, Any] = json.loads((work / "theirs.json").read_text(encoding="utf-8"))
    return found


def compare(
    case: Case, made: Made, found: dict[str, Any], work: Path, url: str, folder: str
) -> tuple[list[Figure], list[Prompts], dict[str, Any]]:
    """Every run of a case beside lmms-eval's outcome, and both sides' generation settings."""
    rows = made.part(case.split)
    data = [
        f"task={made.task}",
        "task.data.source=parquet",
        f"task.data.path={quoted(work / 'data' / case.made)}",
    ]
    data += [f"task.split={case.split}"] if case.split else []
    data += [f"task.judge.base_url={url}", "task.judge.cache=null"] if made.task in JUDGED else []
    figures, asked, generation = [], [], {}
    for number, run in enumerate(case.runs):
        overrides = [*data, *(one.format(tasks=folder) for one in run.overrides)]
        at = work / "ours" / f"{case.name}_{number}"
        log = None if run.replay else work / "logs" / f"crosscheck_samples_{case.name}.jsonl"
        scored = score(overrides, run.replay(rows) if run.replay else [*rows.answers], at, log)
        logged = log is not None and case.score
        documents = (scored.scores, found["scores"]) if logged else ((), ())
        for metric, name in run.pairs.items():
            both = value(scored.metrics, name), case.scale * value(found["metrics"], metric)
            figures.append(figure(case.name, metric, run.label, *both, documents, run.reason(metric)))
        if log is not None:
            asked.append(prompts(case.name, run.label, scored.prompts, found["prompts"], run.prompt_reason))
        if case.qwen is not None and number == 0:
            asked.append(prompts(case.name, QWEN, scored.qwen_prompts, found["qwen_prompts"], case.qwen))
        generation = {"ours": scored.generation, "theirs": found["generation"]}
    return figures, asked, generation


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument(
        "--python", type=Path, default=ROOT / ".venv-lmms" / "bin" / "python", help="lmms-eval's"
    )
    options.add_argument(
        "--work", type=Path, default=ROOT / "outputs" / "crosscheck", help="folder, made anew"
    )
    given = options.parse_args()
    try:
        return run(given.python, given.work.resolve())
    except UserError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def clear(work: Path) -> None:
    """Remove what an earlier run left.

    Raises:
        UserError: the folder holds something else.
    """
    if work.exists() and any(work.iterdir()) and not (work / "plan.json").is_file():
        raise UserError(f"--work={work}: is not empty and no folder of a cross-check (choose another).")
    shutil.rmtree(work, ignore_errors=True)


def run(python: Path, work: Path) -> int:
    """Both sides and the comparison; 0 where every difference has its reason."""
    has_java = shutil.which("java") is not None
    cases = [case for case in CASES if has_java or not case.needs_java]
    left_out = [case.name for case in CASES if case not in cases]
    clear(work)
    made = all_made()
    steps = bar("cross-check")
    steps.begin(2 * len(cases))
    # First, because it marks the folder as ours to clear.
    write_json(work / "plan.json", plan(cases, made, work))
    for name in dict.fromkeys(case.made for case in cases):
        write(made[name], work / "data" / name)
    figures: list[Figure] = []
    asked: list[Prompts] = []
    generation = {}
    with judge() as endpoint:
        found = theirs(python, work, endpoint.url)
        theirs_asked = endpoint.take()
        steps.advance(len(cases), "lmms-eval")
        for case in cases:
            outcome = found["tasks"][case.name]
            one = compare(case, made[case.made], outcome, work, endpoint.url, found["folder"])
            figures += one[0]
            asked += one[1]
            generation[case.name] = one[2]
            steps.advance(note=case.name)
        ours_asked = endpoint.take()
    judged = [
        requests(name, of_task(name, ours_asked), of_task(name, theirs_asked), reason)
        for name, reason in JUDGED.items()
    ]
    steps.end()
    show(figures, asked, judged, left_out)
    write_json(
        RESULT,
        {
            "theirs": found["versions"],
            "figures": [record(row) for row in figures],
            "prompts": [record(row) for row in asked],
            "judge": [record(row) for row in judged],
            "generation": generation,
            "left_out": left_out,
            "environment": environment(),
        },
    )
    rows: list[Row] = [*figures, *asked, *judged]
    return 1 if unexplained(rows) or unneeded(rows) else 0


if __name__ == "__main__":
    sys.exit(main())
