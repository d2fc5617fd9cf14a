"""The command line: what it runs, writes, refuses and says."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import fakes
import pytest

from himap import cli, models, tasks
from himap.files import exclusive

MODEL = """
name: tiny
adapter: tiny
architecture: {n_layers: 6, hidden: 64, intermediate: 64, n_heads: 4, n_kv_heads: 4, head_dim: 16, vocab: 100,
  n_system: 2, n_image: 16, n_instruction: 12}
"""
TASK = "name: questions\nadapter: questions\nsplit: search\ndata: {broken: []}\n"


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The words after `himap evaluate` that choose the tiny model and its questions."""
    monkeypatch.setitem(models.ADAPTERS, "tiny", "fakes")
    monkeypatch.setitem(tasks.ADAPTERS, "questions", "fakes:questions")
    own = tmp_path / "own"
    for path, text in {"model/tiny.yaml": MODEL, "task/questions.yaml": TASK}.items():
        (own / path).parent.mkdir(parents=True)
        (own / path).write_text(text)
    deep = "pruning.stages.deep.layer=4"
    return ("--config-dir", str(own), "model=tiny", "task=questions", "tracking=none", deep)


def folders(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_evaluate_writes_everything_into_the_given_folder(
    himap: Any, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    done = himap("evaluate", *tiny, "hydra.run.dir=here")
    assert done.code == 0, done.err
    assert folders(tmp_path / "here") == [
        ".lock",
        "answers.identity.json",
        "answers.jsonl",
        "config.yaml",
        "result.json",
    ]
    result = read(tmp_path / "here" / "result.json")
    assert (result["model"], result["pruning"], result["task"], result["split"]) == (
        "tiny",
        "himap",
        "questions",
        "search",
    )
    assert result["kept"] == [[2, 8], [4, 2]]
    assert result["metrics"][result["metrics"]["primary"]] == result["metrics"]["accuracy"]
    assert f"{result['metrics']['accuracy']:.2f}" in done.out
    assert "layer: 4" in (tmp_path / "here" / "config.yaml").read_text()


def test_without_a_folder_results_lie_under_outputs(
    himap: Any, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    assert himap("evaluate", *tiny, "task.limit=2").code == 0
    (run,) = (tmp_path / "outputs" / "evaluate").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", run.name)
    assert read(run / "result.json")["n_samples"] == 2


def test_a_folder_of_other_settings_is_refused_and_kept(
    himap: Any, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    assert himap("evaluate", *tiny, "hydra.run.dir=here").code == 0
    before = {name: (tmp_path / "here" / name).read_bytes() for name in folders(tmp_path / "here")}
    done = himap("evaluate", *tiny, "hydra.run.dir=here", "pruning.stages.deep.drop=0.5")
    assert done.code == 1
    assert "pruning.stages.deep.drop: 0.75 -> 0.5" in done.err[-1]
    assert {name: (tmp_path / "here" / name).read_bytes() for name in before} == before
    again = himap("evaluate", *tiny, "hydra.run.dir=here", "hardware.batch_size=3")
    assert again.code == 0
    assert "batch_size: 3" in (tmp_path / "here" / "config.yaml").read_text()


def test_ctrl_c_says_how_to_go_on_and_that_works(
    himap: Any, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("evaluate", *tiny, "hardware.batch_size=3")
    assert himap(*words, "hydra.run.dir=whole").code == 0
    monkeypatch.setattr(fakes, "interrupt_at", 4)
    stopped = himap(*words, "hydra.run.dir=part")
    monkeypatch.setattr(fakes, "interrupt_at", None)
    assert stopped.code == 130
    assert 0 < len((tmp_path / "part" / "answers.jsonl").read_text().splitlines()) < 12
    found = re.fullmatch(r"interrupted; this goes on from here: himap (.*)", stopped.err[-1])
    assert found
    assert himap(*shlex.split(found[1])).code == 0
    whole, part = ((tmp_path / name / "answers.jsonl").read_text() for name in ("whole", "part"))
    assert whole == part


def test_ctrl_c_in_a_multirun_goes_on_with_the_folder_of_all_jobs(
    himap: Any, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fakes, "interrupt_at", 4)
    stopped = himap("evaluate", "-m", *tiny, "task.limit=3,5", "hydra.sweep.dir=many")
    monkeypatch.setattr(fakes, "interrupt_at", None)
    assert stopped.code == 130
    assert stopped.err[-1].endswith(f" hydra.sweep.dir={tmp_path / 'many'}")
    assert himap(*shlex.split(stopped.err[-1].partition(": himap ")[2])).code == 0
    assert [read(tmp_path / "many" / job / "result.json")["n_samples"] for job in "01"] == [3, 5]


def test_two_runs_do_not_share_a_folder(himap: Any, tiny: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    with exclusive(tmp_path / "here"):
        done = himap("evaluate", *tiny, "hydra.run.dir=here")
    assert done.code == 1
    assert "another run is writing there" in done.err[-1]
    assert himap("evaluate", *tiny, "hydra.run.dir=here").code == 0


def test_a_failing_sample_is_named_and_all_failing_is_an_error(himap: Any, tiny: tuple[str, ...]) -> None:
    done = himap("evaluate", *tiny, "task.data.broken=[3]", "hydra.run.dir=a")
    assert done.code == 0
    assert "task=questions: sample q3 failed: OSError: cannot read image 3" in done.err
    assert "(1 failed)" in done.out
    done = himap("evaluate", *tiny, "task.limit=2", "task.data.broken=[0,1]", "hydra.run.dir=b")
    assert done.code == 1
    assert done.err[-1].startswith("task=questions: no sample was answered; the first reason: OSError")
    assert not Path("b/result.json").exists()


def test_every_job_of_a_multirun_runs(himap: Any, tmp_path: Path) -> None:
    done = himap("flops", "-m", "pruning=none,fastv,himap", "hydra.sweep.dir=many")
    assert done.code == 0
    results = [read(tmp_path / "many" / str(job) / "result.json") for job in range(3)]
    assert [result["pruning"] for result in results] == ["none", "fastv", "himap"]


def test_an_experiment_of_ones_own_sweeps_over_what_it_says(himap: Any, tmp_path: Path) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    grid = "# @package _global_\nhydra: {sweeper: {params: {analysis: 'kept,saliency'}}}\n"
    (tmp_path / "mine" / "experiment" / "own.yaml").write_text(grid)
    words = ("analyze", "-m", "--config-dir", "mine", "experiment=own")
    # A key of `kept` alone: the second job of the grid is known to lack it.
    done = himap(*words, "analysis.show=3")
    assert done.err[-1].startswith("analysis.show=3: unknown key")
    done = himap(*words, "analysis.show=three", "analysis=kept")
    assert done.err == ["analysis.show=three: must be a whole number."]


@pytest.mark.parametrize("experiment", ["fig5", "fig5,fig6"])
def test_a_multirun_of_experiments_is_checked(experiment: str, himap: Any) -> None:
    done = himap("analyze", "-m", f"experiment={experiment}", "task.limit=many")
    assert done.err == ["task.limit=many: must be a whole number or null."]


def test_a_multirun_fails_before_its_first_job(himap: Any, tmp_path: Path) -> None:
    done = himap("flops", "-m", "pruning.stages.deep.layer=9,10,99", "hydra.sweep.dir=many")
    assert done.code == 1
    assert done.err == [
        "pruning.stages.deep.layer=99: must be below the model's 32 decoder layers (use at most 31)."
    ]
    assert folders(tmp_path) == []


def test_a_cluster_that_is_not_there_is_one_line(
    himap: Any, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    monkeypatch.setenv("PATH", str(tmp_path))
    done = himap("evaluate", "-m", *tiny, "hydra/launcher=submitit_slurm", "hydra.sweep.dir=here")
    assert (done.code, len(done.err)) == (1, 1)
    assert done.err[0].startswith("hydra/launcher: no jobs: ") and "srun" in done.err[0]


def test_jobs_of_a_multirun_that_fail_are_a_line_each_and_the_others_run(
    himap: Any, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    many = ("task.data.broken=[0,1],[],[1,0]", "task.limit=2", "hydra.sweep.dir=many")
    done = himap("evaluate", "-m", *tiny, *many)
    assert done.code == 1
    lines = [line for line in done.err if "no sample was answered" in line]
    assert len(lines) == 2
    assert not [line for line in done.err if line.startswith(("Error executing", "Traceback"))]
    assert [(tmp_path / "many" / job / "result.json").exists() for job in "012"] == [False, True, False]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["flops", "pruning=himp"], "pruning=himp: unknown; did you mean himap?"),
        (["flops", "prunning=himap"], "prunning=himap: unknown key; did you mean pruning?"),
        (["flops", "pruning.stages.deep.layer=two"], "pruning.stages.deep.layer=two: must be a whole number"),
        (["flops", "pruning.stages.deep.layer=2"], "pruning.stages.deep.layer=2: must be greater than"),
        (["flops", "pruning.stages.deep.drop=1"], "pruning.stages.deep.drop=1.0: must be in [0, 1)"),
        (
            ["sweep", "search.baselines.himap.stages.deep.layer=2"],
            "search.baselines.himap.stages.deep.layer=2: must be greater than "
            "search.baselines.himap.stages.shallow.layer=2",
        ),
        (
            ["analyze", "analysis=kept", "+pruning@analysis.compare.late=himap_caption"],
            "analysis.compare.late.stages.deep.layer=15: must be below the model's 12",
        ),
        (["evaluate", "pruning=himap_caption"], "pruning.stages.deep.layer=15: must be below the model's 12"),
        (["flops", "--flag"], "himap flops: unrecognized arguments: --flag"),
        (["flops", "--config-dir", "nowhere"], "--config-dir=nowhere: no such folder"),
        (["flops", "--cfg", "job", "model=llava"], "model=llava: unknown"),
        (["flops", "--help", "model=llava"], "model=llava: unknown"),
        (["flop"], "himap flop: unknown verb; did you mean flops?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_one_line_and_leaves_nothing(
    himap: Any, tmp_path: Path, words: list[str], message: str
) -> None:
    done = himap(*words)
    assert done.code == 1
    assert len(done.err) == 1, done.err
    assert done.err[0].startswith(message)
    assert done.out == ""
    assert folders(tmp_path) == []


def test_a_device_that_is_not_there_is_one_line(himap: Any, tiny: tuple[str, ...]) -> None:
    done = himap("evaluate", *tiny, "hardware.device=cuda:99")
    assert done.code == 1
    assert re.fullmatch(r"hardware\.device=cuda:99: torch sees .*", done.err[-1])


TFLOPS = {
    "none": (2.986, 8.927),
    "fastv": (1.566, 5.281),
    "himap": (0.735, 3.137),
}


@pytest.mark.parametrize("pruning", TFLOPS)
def test_flops_are_the_papers_and_the_real_ones(himap: Any, tmp_path: Path, pruning: str) -> None:
    done = himap("flops", "model=llava_1_5_7b", f"pruning={pruning}", "hydra.run.dir=here")
    flops = read(tmp_path / "here" / "result.json")["flops"]
    paper, prefill = TFLOPS[pruning]
    assert round(flops["paper_tflops"], 3) == paper
    # Vicuna's vocabulary has 32,000 rows, the hub's 64 more: 0.0005 TFLOP.
    assert flops["prefill_tflops"] == pytest.approx(prefill, abs=0.001)
    assert f"{paper:.3f}" in done.out


def test_flops_of_the_large_model_fit_a_later_first_stage(himap: Any, tmp_path: Path) -> None:
    himap("flops", "experiment=paper_13b", "hydra.run.dir=himap")
    assert read(tmp_path / "himap" / "result.json")["flops"]["paper_tflops"] == pytest.approx(
        1.3645, abs=5e-5
    )
    himap(
        "flops", "model=llava_1_5_13b", "pruning=fastv", "pruning.stages.shallow.layer=3", "hydra.run.dir=f"
    )
    assert round(read(tmp_path / "f" / "result.json")["flops"]["paper_tflops"], 3) == 3.093


def test_help_names_every_verb(himap: Any) -> None:
    for words in ([], ["--help"]):
        out = himap(*words).out
        assert all(f"himap {verb} " in out for verb in cli.VERBS)


@pytest.mark.parametrize("verb", ["evaluate", "flops", "sweep", "train"])
def test_help_of_a_verb_names_its_groups_and_keys(himap: Any, verb: str) -> None:
    done = himap(verb, "--help")
    assert done.code == 0, done.err
    assert "pruning: fastv, fastv_13b, fastv_paper, himap" in done.out
    assert f"himap {verb} hydra.run.dir=DIR" in done.out


def test_the_configuration_can_be_printed(himap: Any) -> None:
    done = himap("flops", "--cfg", "job", "pruning=fastv")
    assert done.code == 0
    assert "criterion: last2img" in done.out


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("himap ev", {"evaluate"}),
        ("himap ", set(cli.VERBS)),
        ("himap flops pruning=img2txt_", {"pruning=img2txt_img2img", "pruning=img2txt_img2txt"}),
        ("himap flops pruning.stages.deep.la", {"pruning.stages.deep.layer="}),
        ("himap report pr", set()),
    ],
)
def test_a_shell_can_complete(
    himap: Any, monkeypatch: pytest.MonkeyPatch, line: str, expected: set[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    assert set(himap("-sc", "query=bash").out.split()) == expected


def test_completion_can_be_installed(himap: Any) -> None:
    for words in (["-sc", "install=bash"], ["flops", "-sc", "install=bash"]):
        assert (
            himap(*words)
            .out.rstrip()
            .endswith("complete -o nospace -o default -F hydra_bash_completion himap")
        )


def program(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The installed command in a process of its own."""
    command = [str(Path(sys.executable).parent / "himap"), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_the_installed_command_works_from_any_folder(tmp_path: Path) -> None:
    wrong = program("flops", "pruning=himp", folder=tmp_path)
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("pruning=himp: unknown; did you mean himap?")
    assert len(wrong.stderr.splitlines()) == 1
    right = program("flops", "pruning=fastv", "hydra.run.dir=here", folder=tmp_path)
    assert right.returncode == 0, right.stderr
    assert folders(tmp_path) == ["here/config.yaml", "here/result.json"]


@pytest.mark.parametrize("words", [["--help"], ["evaluate", "--help"]], ids=" ".join)
def test_help_takes_less_than_a_second(tmp_path: Path, words: list[str]) -> None:
    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    seconds = []
    for _ in range(2):
        before = spent()
        assert program(*words, folder=tmp_path).returncode == 0
        seconds.append(spent() - before)
    # Processor time, and the better of two: other work on the machine is not the command's fault.
    assert min(seconds) < 1


def test_a_real_ctrl_c_ends_in_one_line(tmp_path: Path) -> None:
    code = (
        "import signal, os, sys\n"
        # A test run in the background of a shell inherits an ignored SIGINT.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from himap import cli\n"
        "import himap.commands.flops as verb\n"
        "verb.count = lambda config: os.kill(os.getpid(), signal.SIGINT)\n"
        "cli.main(['flops', 'hydra.run.dir=here'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ},
    )
    assert done.returncode == 130, done.stderr
    assert (
        done.stderr == f"interrupted; this goes on from here: himap flops hydra.run.dir={tmp_path / 'here'}\n"
    )


def test_the_jobs_of_a_multirun_share_model_and_image_features(
    himap: Any, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Any] = []
    towers: list[int] = []
    load = fakes.load

    def counted(config: Any, hardware: Any) -> Any:
        loaded.append(load(config, hardware))
        loaded[-1].hf.model.vision_tower.register_forward_hook(lambda *_: towers.append(1))
        return loaded[-1]

    monkeypatch.setattr(fakes, "load", counted)
    words = ("evaluate", "-m", *tiny, "hardware.batch_size=4", "pruning.stages.shallow.drop=0.25,0.5")
    done = himap(*words, "hydra.sweep.dir=a")
    assert done.code == 0, done.err
    assert (len(loaded), len(towers)) == (1, 3)
    results = [read(path) for path in sorted((tmp_path / "a").glob("*/result.json"))]
    assert [result["kept"][0] for result in results] == [[2, 12], [2, 8]]
    assert himap(*words, "task.limit=8", "hydra.sweep.dir=b").code == 0
    assert (len(loaded), len(towers)) == (2, 3 + 2), "another multirun begins anew"
    alone = himap("evaluate", *tiny, "pruning.stages.shallow.drop=0.5", "hydra.run.dir=c")
    assert alone.code == 0 and len(loaded) == 3
    rows = [(tmp_path / where / "answers.jsonl").read_text() for where in ("a/1", "c")]
    assert rows[0] == rows[1]
