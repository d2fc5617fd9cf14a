"""The package: what imports what, what `import himap` costs, and what travels in the wheel."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

import himap

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "himap"

# The way of the data: a module imports only from modules above it in this list.
ORDER = (
    "errors",
    "files",
    "rules",
    "strategy",
    "trie",
    "paths",
    "config",
    "flops",
    "cost",
    "progress",
    "workers",
    "result",
    "answers",
    "metrics",
    "shapes",
    "judge",
    "tasks",
    "batches",
    "features",
    "reuse",
    "layout",
    "criteria",
    "attention",
    "selection",
    "masks",
    "support",
    "deepstack",
    "dropping",
    "positions",
    "entry",
    "forked",
    "openings",
    "pruning",
    "branching",
    "models",
    "execution",
    "hardware",
    "latency",
    "asking",
    "conclude",
    "evaluate",
    "shards",
    "together",
    "saved",
    "analysis",
    "tracking",
    "search",
    "report",
    "training",
    "commands",
    "cli",
    "__main__",
)


def parts() -> set[str]:
    return {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}


@cache
def imports(path: Path) -> frozenset[str]:
    """Dotted names that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def files(part: str) -> list[Path]:
    single = SOURCE / f"{part}.py"
    return [single] if single.exists() else sorted((SOURCE / part).rglob("*.py"))


def own(path: Path) -> set[str]:
    """The parts of himap that a file imports."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("himap.")} & parts()


def test_every_module_has_its_place() -> None:
    assert sorted(ORDER) == sorted(parts() - {"__init__"})


@pytest.mark.parametrize("part", ORDER)
def test_nothing_is_imported_from_the_right(part: str) -> None:
    left = {*ORDER[: ORDER.index(part)], part}
    for path in files(part):
        assert own(path) <= left, f"{path.relative_to(SOURCE)} imports from its right: {own(path) - left}"


@pytest.mark.parametrize("foreign", ["wandb", "optuna"])
def test_evaluation_reaches_neither_tracker_nor_search(foreign: str) -> None:
    reached, queue = {"evaluate"}, ["evaluate"]
    while queue:
        for path in files(queue.pop()):
            assert not any(name.split(".")[0] == foreign for name in imports(path)), path
            new = own(path) - reached
            reached |= new
            queue += new
    assert "pruning" in reached, "the walk must get somewhere"


@pytest.mark.parametrize(
    "module",
    [
        "himap",
        *(
            f"himap.{name}"
            for name in ("cli", "config", "strategy", "flops", "cost", "result", "report", "search")
        ),
    ],
)
def test_importing_is_light(module: str) -> None:
    code = f"import sys, {module}; print({{'torch', 'transformers', 'wandb', 'optuna'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr


def test_every_part_of_search_and_report_is_light() -> None:
    names = [
        ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        for part in ("search", "report")
        for path in files(part)
    ]
    names = [name.removesuffix(".__init__") for name in names]
    code = "import sys, " + ", ".join(f"himap.{name}" for name in names) + "; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stdout + done.stderr


def test_the_version_is_that_of_the_distribution() -> None:
    assert metadata.version("himap") == himap.__version__


def test_the_changelog_has_a_place_for_what_comes() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


def test_every_target_of_the_makefile_says_what_it_does() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    listed = set(re.findall(r"make (\S+)", done.stdout))
    declared = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert declared
    assert listed == set(declared[1].split())


def test_no_name_of_the_readme_is_missing() -> None:
    """Verbs, options and files that the README names exist."""
    text = (ROOT / "README.md").read_text()
    from himap.cli import VERBS

    assert set(re.findall(r"^himap (\w+)", text, re.MULTILINE)) <= set(VERBS)
    groups = "model|pruning|task|hardware|tracking|experiment|analysis|benchmark"
    for group, option in re.findall(rf"\b({groups})=(\w+)", text):
        assert (ROOT / "conf" / group / f"{option}.yaml").exists() or option == "gentle", f"{group}={option}"
    for target in re.findall(r"^make (\w+)", text, re.MULTILINE):
        assert f"\n{target}: " in (ROOT / "Makefile").read_text()


def tracked() -> list[str]:
    """What is in the repository, or will be once it is added."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.splitlines() if os.path.lexists(ROOT / name)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy, which holds no left-overs of earlier builds."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in tracked():
        copy = folder / "source" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy, follow_symlinks=False)
    command = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", *command, str(folder / "source")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("himap-*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_what_the_checkout_holds(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    expected = set()
    for name in tracked():
        if name.startswith("src/"):
            expected.add(name.removeprefix("src/"))
        elif name.startswith(("conf/", "sweeps/")) and name.endswith(".yaml"):
            expected.add(f"himap/conf/{name.removeprefix('conf/')}")
    assert expected <= packed, sorted(expected - packed)


@pytest.mark.slow
def test_the_wheel_works_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    # Before the editable installation in the search order, and with the same dependencies.
    environment = {**os.environ, "PYTHONPATH": str(site)}
    code = "import himap; from himap import cli, paths\nprint(himap.__file__, paths.conf_dir())\ncli.main()"

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *words]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )

    done = run("flops", "pruning=fastv", "hydra.run.dir=here")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:2] == [str(site / "himap/__init__.py"), str(site / "himap/conf")]
    assert (folder / "here" / "result.json").exists()
    listed = run("sweep", "--help")
    assert listed.returncode == 0, listed.stderr
    assert "sweeps: " in listed.stdout
    assert "shapes_pareto" in listed.stdout
