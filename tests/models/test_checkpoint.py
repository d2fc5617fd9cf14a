"""What is wrong with a checkpoint is said by name, in one line, and nothing is loaded silently."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
import pytest
import torch
from published import random_tensors, save_shards, write_internvl
from safetensors.torch import load_file, save_file
from shrunk import loaded, write_native
from torch import nn

from himap.config import ModelConfig
from himap.errors import Unsupported, UserError
from himap.models import native
from himap.models.checkpoint import load_weights
from himap.models.hub import checkpoint_folder, shards


def edit(file: Path, change: Any) -> None:
    """Rewrite one shard."""
    binary = file.suffix == ".bin"
    tensors = torch.load(file, weights_only=True) if binary else load_file(file)
    change(tensors)
    if binary:
        torch.save(tensors, file)
    else:
        save_file(tensors, file, metadata={"format": "pt"})


def holding(folder: Path, key: str) -> Path:
    """The shard that holds a key."""
    (index,) = folder.glob("*.index.json")
    return folder / json.loads(index.read_text())["weight_map"][key]


WRITERS = {
    "port": lambda folder: write_internvl(folder),
    "native": lambda folder: write_native("qwen2_vl_7b", folder),
}
KEYS = {"port": "model.layers.1.mlp.up_proj.weight", "native": "model.layers.1.mlp.up_proj.weight"}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("fault", ["missing", "unexpected", "misshaped"])
def test_a_wrong_key_is_named(kind: str, fault: str, tmp_path: Path) -> None:
    config: ModelConfig = WRITERS[kind](tmp_path / "m")
    key = KEYS[kind]
    file = holding(tmp_path / "m", key)

    def change(tensors: dict[str, torch.Tensor]) -> None:
        value = tensors.pop(key) if fault != "unexpected" else tensors[key]
        if fault == "unexpected":
            tensors["model.layers.1.mlp.strange.weight"] = value.clone()
        elif fault == "misshaped":
            tensors[key] = value[:-1].contiguous()

    edit(file, change)
    with pytest.raises(UserError, match=rf"1 {fault} \(.*(up_proj|strange)") as error:
        loaded(config)
    assert "\n" not in str(error.value)


def test_a_missing_shard_is_named_before_anything_is_read(tmp_path: Path) -> None:
    config = write_internvl(tmp_path / "m")
    (tmp_path / "m" / "pytorch_model-00002-of-00003.bin").unlink()
    with pytest.raises(UserError, match=r"1 of 3 weight files are missing, the first pytorch_model-00002"):
        loaded(config)


def test_a_torn_shard_is_one_line(tmp_path: Path) -> None:
    config = write_internvl(tmp_path / "m")
    file = tmp_path / "m" / "pytorch_model-00002-of-00003.bin"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be read as weights"):
        loaded(config)


class Bomb:
    def __reduce__(self) -> Any:
        return (print, ("a stranger's code ran",))


def test_a_pickle_with_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"a": Bomb()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be read as weights"), torch.device("meta"):
        load_weights(
            nn.Linear(2, 2),
            shards(tmp_path),
            lambda k, v: [(k, v)],
            dtype=torch.float32,
            device="cpu",
        )
    assert "stranger" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "as-stored"])
def test_weights_arrive_in_the_wanted_dtype_as_copies_of_their_own(
    dtype: torch.dtype, suffix: str, tmp_path: Path
) -> None:
    tensors = random_tensors([("weight", (18, 4)), ("bias", (6,))])
    stem = {"bin": "pytorch_model", "safetensors": "model"}[suffix]
    save_shards(tensors, tmp_path, 2, stem, suffix)
    with torch.device("meta"):
        model = nn.Linear(4, 6)
    load_weights(model, shards(tmp_path), lambda k, v: [(k, v[:6])], dtype=dtype, device="cpu")
    assert torch.equal(model.weight, tensors["weight"][:6].to(dtype))
    assert model.weight.dtype == dtype and not model.weight.is_meta
    size = model.weight.untyped_storage().nbytes()
    assert size == 6 * 4 * dtype.itemsize, "a view keeps its whole shard in memory"


def test_a_folder_without_weights_or_config_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no weights there"):
        shards(tmp_path)
    with pytest.raises(UserError, match=r"no config.json there"):
        native.read_config(tmp_path)


def test_a_folder_that_is_not_there_is_one_line() -> None:
    for path in ("", "/no/such/folder", "./nowhere", "word"):
        with pytest.raises(UserError, match="no such folder"):
            checkpoint_folder(path, None)


def reply(status: int, code: str = "") -> httpx.Response:
    request = httpx.Request("GET", "https://huggingface.co/api/models/owner/name")
    return httpx.Response(status, headers={"X-Error-Code": code} if code else {}, request=request)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("GatedRepoError", "accepted its terms"),
        ("RepositoryNotFoundError", "neither a folder nor a model"),
        ("RevisionNotFoundError", "model.revision=v9: owner/name has no such revision"),
        ("LocalEntryNotFoundError", "hub cannot be reached"),
        ("OfflineModeIsEnabled", "hub cannot be reached"),
        ("httpx.ConnectError", "hub cannot be reached"),
        ("httpx2.ConnectError", "hub cannot be reached"),
        ("HfHubHTTPError", "the hub refused"),
    ],
)
def test_every_refusal_of_the_hub_is_one_line(error: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import errors

    def fail(*args: Any, **kwargs: Any) -> None:
        library, _, name = error.rpartition(".")
        kind = getattr(pytest.importorskip(library) if library else errors, name)
        if issubclass(kind, errors.HfHubHTTPError):
            raise kind("no", response=reply(403))
        raise kind("no")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match=line) as found:
        checkpoint_folder("owner/name", "v9")
    assert "\n" not in str(found.value)


REFUSED = {
    "gemma3": "attend to later ones",
    "paligemma": "attend to later ones",
    "gemma3n": "four-dimensional",
    "gemma4": "share keys and values",
    "mllama": "cross-attention",
    "qwen3_5": "no attention map",
}


@pytest.mark.parametrize("family", REFUSED)
def test_what_cannot_be_pruned_soundly_is_refused_before_its_weights_are_read(
    family: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family, "text_config": {}}))
    with pytest.raises(Unsupported, match=f"{family}: cannot be pruned: .*{REFUSED[family]}"):
        native.read_config(tmp_path)


def test_sliding_windows_are_refused_by_name(tmp_path: Path) -> None:
    from himap.pruning import check_supported

    config = write_native("mistral3_24b", tmp_path / "m")
    model = loaded(config)
    check_supported(model.hf)
    model.hf.config.text_config.sliding_window = 16
    if getattr(model.hf.config.text_config, "layer_types", None):
        model.hf.config.text_config.layer_types = ["sliding_attention"] * 16
    with pytest.raises(Unsupported, match="sliding-window"):
        check_supported(model.hf)


def test_an_unknown_family_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "made_up"}))
    with pytest.raises(UserError, match="model_type=made_up is unknown"):
        native.read_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "blip-2"}))
    from himap.models.processors import from_folder

    with pytest.raises(Unsupported, match="no adapter knows this family"):
        from_folder(tmp_path, native.read_config(tmp_path).model_type)


def test_random_weights_need_the_config_block(tmp_path: Path) -> None:
    config = replace(write_native("smolvlm2_2b", tmp_path / "m"), options={}, weights="random")
    with pytest.raises(UserError, match=r"no model.options.config"):
        loaded(config)
