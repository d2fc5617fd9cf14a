"""Schemas of the configuration groups and of the verbs built from them.

A field without a default must come from YAML. `__post_init__` holds the ranges and the rules between fields;
it runs when `OmegaConf.to_object` builds the objects, before anything heavy is imported.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any

from himap.config.judge import JudgeConfig
from himap.config.slurm import SlurmConfig
from himap.errors import ConfigError
from himap.rules import at_least, one_of
from himap.strategy import Stage, Strategy


@dataclass
class ArchitectureConfig:
    """The text decoder's size and a typical prompt; all that FLOPs and depth checks need.

    Attributes:
        n_layers: decoder layers (L).
        hidden: width (d).
        intermediate: width of the feed-forward layer (m).
        n_heads: query heads.
        n_kv_heads: key and value heads.
        head_dim: width of one head.
        vocab: rows of the output matrix.
        n_system: tokens before the first image token of a typical prompt.
        n_image: image tokens of one image.
        n_instruction: text tokens after the first image token of a typical prompt.
    """

    n_layers: int
    hidden: int
    intermediate: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab: int
    n_system: int
    n_image: int
    n_instruction: int

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            at_least(f"model.architecture.{name}", value, 0 if name in ("n_system", "n_instruction") else 1)


@dataclass
class Table1Config:
    """What HiMAP's Table 1 prints for a model, and the numbers with which its formula gives that.

    Attributes:
        n_image: image tokens (n).
        hidden: width (d).
        intermediate: width of the feed-forward layer (m).
        n_layers: layers (L).
        layer: K of FastV and K1 of HiMAP.
        printed: TFLOPs in the table, by strategy (`none`, `fastv`, `himap`).
    """

    n_image: int
    hidden: int
    intermediate: int
    n_layers: int
    layer: int
    printed: dict[str, float]

    def __post_init__(self) -> None:
        for name in ("n_image", "hidden", "intermediate", "n_layers", "layer"):
            at_least(f"model.table1.{name}", getattr(self, name), 1)


@dataclass
class ModelConfig:
    """Which model: adapter, weights and size.

    Attributes:
        name: the option's name.
        adapter: which loader in `himap.models` builds it.
        path: folder or hub id of the weights; empty where the adapter brings its own.
        revision: the hub's revision.
        weights: `pretrained`, or `random` for a model of this size with random weights.
        prompt: what the adapter lets one choose in the prompt's format.
        options: what else the adapter takes.
        architecture: size of the text decoder.
        table1: what the paper prints for it; null where it was not evaluated there.
    """

    name: str
    adapter: str
    architecture: ArchitectureConfig
    path: str = ""
    revision: str | None = None
    weights: str = "pretrained"
    prompt: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    table1: Table1Config | None = None

    def __post_init__(self) -> None:
        one_of("model.weights", self.weights, ("pretrained", "random"))


@dataclass
class StageConfig:
    """One pruning step; see `himap.strategy.Stage`."""

    layer: int
    drop: float
    criterion: str
    normalise: bool = False
    exclude_self: bool = False
    seed: int = 0


@dataclass
class PruningConfig:
    """A strategy: named stages in the order in which they prune."""

    name: str
    stages: dict[str, StageConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.strategy()

    def strategy(self) -> Strategy:
        """The strategy that the stages describe.

        Raises:
            ConfigError: a stage breaks a rule of its own or against its neighbour.
        """
        return Strategy(self.name, tuple(Stage(name=key, **asdict(s)) for key, s in self.stages.items()))


@dataclass
class GenerationConfig:
    """What of the task's decoding protocol to change; null leaves the protocol's value."""

    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    num_beams: int | None = None
    length_penalty: float | None = None

    def __post_init__(self) -> None:
        at_least("task.generation.max_new_tokens", self.max_new_tokens, 1)
        at_least("task.generation.min_new_tokens", self.min_new_tokens, 0)
        at_least("task.generation.num_beams", self.num_beams, 1)
        low, high = self.min_new_tokens, self.max_new_tokens
        if low is not None and high is not None and low > high:
            raise ConfigError(
                f"task.generation.min_new_tokens={low}: must be at most task.generation.max_new_tokens"
                f"={high}."
            )

    def changes(self) -> dict[str, Any]:
        """The values that are set, as arguments for `dataclasses.replace`."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass
class TaskConfig:
    """Which benchmark, which part of it, and from where.

    Attributes:
        name: the option's name.
        adapter: which class in `himap.tasks` builds it.
        split: which part of the data.
        limit: use the first so many samples (groups stay whole); null uses all.
        data: where the data lie; the adapter says which keys it knows.
        options: variants of the protocol that the adapter offers.
        generation: changes to the protocol's decoding.
        judge: who grades free-form answers, where the task needs it.
        on_bad_sample: `skip` counts a sample that fails and goes on, `fail` ends the run there.
    """

    name: str
    adapter: str
    split: str
    limit: int | None = None
    data: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    judge: JudgeConfig | None = None
    on_bad_sample: str = "skip"

    def __post_init__(self) -> None:
        at_least("task.limit", self.limit, 1)
        one_of("task.on_bad_sample", self.on_bad_sample, ("skip", "fail"))


def _is_device(name: Any) -> bool:
    return isinstance(name, str) and re.fullmatch(r"cpu|mps|cuda(:\d+)?", name) is not None


@dataclass
class HardwareConfig:
    """Where and how to compute.

    Attributes:
        device: `cpu`, `mps`, `cuda` or `cuda:<index>`.
        devices: one worker process for each: a list of devices, or `auto` for all CUDA devices; null is one
            process on `device`.
        slurm: workers as jobs of a cluster; null is here.
        dtype: of the weights.
        batch_size: prompts at once; halved where memory does not suffice.
        reuse_mib: memory for encoded prompts and image features that a sweep's trials share.
        feature_cache: folder in which image features are kept between runs and shared among them; null
            keeps none on disk.
        feature_cache_mib: size of that folder at most; what was used longest ago goes first.
        attention: `sdpa` or `eager`.
        n_threads: CPU threads; null leaves it to torch.
    """

    name: str
    device: str
    dtype: str
    batch_size: int
    reuse_mib: float = 2048
    feature_cache: str | None = None
    feature_cache_mib: float = 51200
    attention: str = "sdpa"
    n_threads: int | None = None
    devices: Any = None
    slurm: SlurmConfig | None = None

    def __post_init__(self) -> None:
        if not _is_device(self.device):
            raise ConfigError(f"hardware.device={self.device}: unknown; use cpu, mps, cuda or cuda:0.")
        if self.devices not in (None, "auto"):
            if not isinstance(self.devices, list) or not self.devices:
                raise ConfigError(
                    f"hardware.devices={self.devices}: must be auto or a list, [cuda:0,cuda:1]."
                )
            for device in self.devices:
                if not _is_device(device):
                    raise ConfigError(f"hardware.devices={device}: unknown; use cuda:0, cuda:1 or cpu.")
        one_of("hardware.dtype", self.dtype, ("float32", "bfloat16", "float16"))
        one_of("hardware.attention", self.attention, ("sdpa", "eager"))
        at_least("hardware.batch_size", self.batch_size, 1)
        at_least("hardware.reuse_mib", self.reuse_mib, 0)
        at_least("hardware.feature_cache_mib", self.feature_cache_mib, 1)
        at_least("hardware.n_threads", self.n_threads, 1)


@dataclass
class TrackingConfig:
    """Where runs are recorded: `none`, `offline` (files only) or `online` (the user's W&B account)."""

    name: str
    project: str = "himap"
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    init_timeout_s: float = 20.0

    def __post_init__(self) -> None:
        one_of("tracking.name", self.name, ("none", "offline", "online"))
        at_least("tracking.init_timeout_s", self.init_timeout_s, 1)


@dataclass
class EvaluateConfig:
    """`himap evaluate`: one model, one strategy, one task."""

    model: ModelConfig
    pruning: PruningConfig
    task: TaskConfig
    hardware: HardwareConfig
    tracking: TrackingConfig

    def __post_init__(self) -> None:
        self.pruning.strategy().check_depth(self.model.architecture.n_layers)


@dataclass
class FlopsConfig:
    """`himap flops`: needs the size of a model only."""

    model: ModelConfig
    pruning: PruningConfig

    def __post_init__(self) -> None:
        self.pruning.strategy().check_depth(self.model.architecture.n_layers)


def identity(
    model: ModelConfig, pruning: PruningConfig, task: TaskConfig, hardware: HardwareConfig
) -> dict[str, Any]:
    """The part of a configuration that changes the numbers; two runs with the same part may be joined."""
    model_part = asdict(model)
    del model_part["table1"]
    task_part = asdict(task)
    del task_part["on_bad_sample"], task_part["judge"]
    if task.judge is not None:
        task_part["judge"] = task.judge.identity()
    return {
        "model": model_part,
        "pruning": asdict(pruning),
        "task": task_part,
        "hardware": {"dtype": hardware.dtype, "attention": hardware.attention},
    }


def without_secrets(value: Any) -> Any:
    """Nested settings with the password of every URL (a database's, say) replaced by asterisks."""
    if isinstance(value, dict):
        return {key: without_secrets(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_secrets(inner) for inner in value]
    return re.sub(r"(://[^:/@\s]*):[^@\s]*@", r"\1:***@", value) if isinstance(value, str) else value
