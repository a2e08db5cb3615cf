#!/usr/bin/env python3
"""Writes what transformers makes of the published configurations, without their weights.

    python tests/golden/make_published_goldens.py

Needs torch and transformers 5.23, and 4 GB of memory. Reads, under tests/golden/published, the config.json of each
published model as NAME.json. Writes beside them:

    shapes.json             every tensor of each model with its shape, layers folded into one entry
    widths.safetensors      hidden states and logits of models with the published widths and few layers

The weights of the latter follow a rule of name and index (`weight`), which the test computes too.
"""
import json
import math
import pathlib
import re

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.vision_utils import get_vision_window_index

OUT = pathlib.Path(__file__).resolve().parent / "published"
# As published; the 3B's and the 7B's cards say so, too.
PARAMETERS = {
    "qwen2.5-vl-3b": 3_754_622_976,
    "qwen2.5-vl-7b": 8_292_166_656,
    "qwen2-vl-2b": 2_208_985_600,
    "qwen2-vl-7b": 8_291_375_616,
}
# Decoder layers of the models that are run; all have two vision blocks, of which the second sees the whole image.
LAYERS = {"qwen2.5-vl-3b": 2, "qwen2.5-vl-7b": 1, "qwen2-vl-2b": 2}
VOCABULARY = 600
GRID = [1, 10, 14]  # 35 tokens; windows of 4 x 4 tokens, so some are cut at the edge
COLUMNS = 37  # every n-th column of a state is kept
ROWS = 12  # about so many of its rows


def shapes(name):
    config = AutoConfig.for_model(**json.loads((OUT / f"{name}.json").read_text()))
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    found = {n: list(p.shape) for n, p in model.named_parameters()}
    if config.tie_word_embeddings:
        found.pop("lm_head.weight", None)
    total = sum(math.prod(shape) for shape in found.values())
    assert total == PARAMETERS[name], f"{name} has {total} parameters"
    folded = {}
    for n, shape in found.items():
        layer = re.search(r"\.(?:layers|blocks)\.(\d+)\.", n)
        key = n if layer is None else n.replace(f".{layer[1]}.", ".#.", 1)
        entry = folded.setdefault(key, {"shape": shape, "layers": None if layer is None else 0})
        assert entry["shape"] == shape, n
        if layer:
            assert int(layer[1]) == entry["layers"], n
            entry["layers"] += 1
    return {"parameters": total, "tensors": folded}


def uniform(name, count):
    """`count` numbers in [-1, 1), exact in f32: the index, turned by the name's FNV-1a hash, through murmur3's mixer."""
    seed = 2166136261
    for byte in name.encode():
        seed = (seed ^ byte) * 16777619 % 2**32
    x = np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B1) + np.uint32(seed)
    for shift, factor in [(16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)]:
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    return ((x >> np.uint32(8)).astype(np.float32) - np.float32(2**23)) / np.float32(2**23)


def weight(name, shape):
    """Norms near 1, biases small, embeddings of half size, matrices that keep the size of what goes through them."""
    x = uniform(name, math.prod(shape))
    if len(shape) == 1:
        x = x * np.float32(0.2) + np.float32(name.endswith(".weight"))
    elif "embed_tokens" in name:
        x = x * np.float32(0.5)
    else:
        x = x * np.float32(math.sqrt(3 / math.prod(shape[1:])))
    return torch.from_numpy(x.reshape(shape))


@torch.no_grad()
def widths(name, out):
    raw = json.loads((OUT / f"{name}.json").read_text())
    raw.update(num_hidden_layers=LAYERS[name], vocab_size=VOCABULARY, max_window_layers=LAYERS[name], torch_dtype="float32",
               bos_token_id=0, eos_token_id=2, image_token_id=5, video_token_id=6, vision_start_token_id=3, vision_end_token_id=4)
    raw["vision_config"].update(depth=2)
    if "fullatt_block_indexes" in raw["vision_config"]:
        raw["vision_config"].update(fullatt_block_indexes=[1])
    model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(**raw)).eval()
    for n, p in model.named_parameters():
        p.copy_(weight(n, list(p.shape)))
    states = {}
    keep = lambda key: lambda m, i, o: states.__setitem__(key, (o[0] if isinstance(o, tuple) else o).detach())
    for n, block in enumerate(model.model.visual.blocks):
        block.register_forward_hook(keep(f"vision/{n + 1}"))
    for n, layer in enumerate(model.model.language_model.layers):
        layer.register_forward_hook(keep(f"text/{n + 1}"))
    grid = torch.tensor([GRID])
    patches = torch.from_numpy(uniform("patches", math.prod(GRID) * 1176).reshape(-1, 1176))
    ids = torch.tensor([[1, 50, 51, 3, *[5] * (math.prod(GRID) // 4), 4, *range(60, 80), 2]])
    kinds = (ids == 5).int()
    positions, _ = model.model.get_rope_index(ids, kinds, image_grid_thw=grid)
    states["features"] = model.model.get_image_features(patches, grid).pooler_output[0]
    states["logits"] = model(input_ids=ids, mm_token_type_ids=kinds, attention_mask=torch.ones_like(ids), pixel_values=patches,
                             image_grid_thw=grid).logits
    v = model.config.vision_config
    for key, state in states.items():
        state = state.reshape(-1, state.shape[-1])
        if key.startswith("vision") and hasattr(v, "window_size"):  # back from window order
            order, _ = get_vision_window_index(grid, v.spatial_merge_size, v.window_size, v.patch_size)
            state = state.reshape(len(order), -1)[torch.argsort(order)].reshape(state.shape)
        out[f"{name}/{key}"] = state[:: max(1, len(state) // ROWS), ::COLUMNS].contiguous()
        out[f"{name}/{key}/sums"] = state.double().sum(1)
    out["ids"], out["positions"] = ids, positions.contiguous()


def main():
    torch.set_num_threads(1)
    found = {name: shapes(name) for name in PARAMETERS}
    (OUT / "shapes.json").write_text(json.dumps(found, indent=0) + "\n")
    out = {}
    for name in LAYERS:
        widths(name, out)
    save_file(out, OUT / "widths.safetensors")


if __name__ == "__main__":
    main()
