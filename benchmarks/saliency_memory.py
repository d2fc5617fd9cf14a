"""Peak memory of saliency in chunks, against keeping every layer's attention for autograd.

    python benchmarks/saliency_memory.py

Each way runs in a process of its own on one prompt of 640 tokens (576 of them image) through a LLaMA decoder
of 12 layers with 16 heads and random weights, in single precision on the CPU. Counted is how far the process'
peak rises above what it held before the pass.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

T, HEADS, LAYERS, HEAD_WIDTH = 640, 16, 12, 64
N_SYSTEM, N_IMAGE, IMAGE_ID, TARGET = 35, 576, 3, 7
MIB = 2**20


def build(attention: str) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=HEADS * HEAD_WIDTH,
        intermediate_size=2 * HEADS * HEAD_WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        vocab_size=100,
        attn_implementation=attention,
    )
    return LlamaForCausalLM(config).eval()


def prompt() -> Any:
    import torch

    ids = torch.arange(T)[None] % 90 + 10
    ids[:, N_SYSTEM : N_SYSTEM + N_IMAGE] = IMAGE_ID
    return ids


def in_chunks(model: Any, ids: Any, layout: Any) -> Any:
    import torch

    from himap.analysis.saliency import flows

    return flows(model, {"input_ids": ids}, layout, torch.tensor([TARGET])).flow[0]


def keeping_all(model: Any, ids: Any, layout: Any) -> Any:
    import torch

    weights: list[Any] = []

    def keep(module: Any, args: Any, output: Any) -> None:
        output[1].retain_grad()
        weights.append(output[1])

    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for layer in model.model.layers:
        layer.self_attn.register_forward_hook(keep)
    hidden = model.get_input_embeddings()(ids).detach().requires_grad_()
    logits = model(inputs_embeds=hidden, use_cache=False, logits_to_keep=1).logits[:, -1]
    torch.nn.functional.cross_entropy(logits, torch.tensor([TARGET])).backward()
    groups = torch.stack([layout.system, layout.image, layout.instruction], 1)[0].float()
    return torch.stack([groups @ (one * one.grad)[0].abs().mean(0) @ groups.T for one in weights])


WAYS = {"sdpa_in_chunks": ("sdpa", in_chunks), "eager_keeping_all": ("eager", keeping_all)}


def measure(way: str) -> dict[str, Any]:
    from himap.layout import Layout

    attention, run = WAYS[way]
    model, ids = build(attention), prompt()
    layout = Layout.from_ids(ids, (IMAGE_ID,))
    before, started = resident(), time.perf_counter()
    flow = run(model, ids, layout)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "way": way,
        "extra_mib": round((peak - before) / MIB, 1),
        "seconds": round(seconds, 2),
        "image_to_instruction": [float(one) for one in flow[:, 2, 1]],
    }


def resident() -> int:
    """Bytes that the process holds now (Linux)."""
    with open("/proc/self/statm", encoding="utf-8") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--way", choices=WAYS)
    way = parser.parse_args().way
    if way:
        print(json.dumps(measure(way)))
        return
    found = {}
    for name in WAYS:
        done = subprocess.run(
            [sys.executable, __file__, "--way", name], capture_output=True, text=True, check=True
        )
        found[name] = json.loads(done.stdout.splitlines()[-1])
    chunks, whole = found["sdpa_in_chunks"], found["eager_keeping_all"]
    pairs = zip(chunks.pop("image_to_instruction"), whole.pop("image_to_instruction"), strict=True)
    worst = max(abs(one - other) / other for one, other in pairs)
    share = chunks["extra_mib"] / whole["extra_mib"]
    print(json.dumps({**found, "share": round(share, 3), "largest_relative_difference": worst}, indent=2))
    if share > 1 / 3 or worst > 1e-4:
        sys.exit("saliency takes more than a third of the memory, or differs")


if __name__ == "__main__":
    main()
