#!/usr/bin/env python3
"""Writes the goldens that medevo-model is held against, with transformers' Qwen2.5-VL and Qwen2-VL.

    python tests/golden/make_model_goldens.py

Needs torch, torchvision, transformers 5.23, safetensors, pillow and the demo's tokenizer
(ops/demo/tiny-qwen2.5-vl). Writes, under tests/golden/model:

    images/                 pictures of every kind that the processor meets
    images.safetensors      what the image processor makes of them (every 7th column, some rows, row sums)
    big/                    image processor settings that leave a large picture large
    nested/, flat/          two tiny Qwen2.5-VL directories with random weights, in the two layouts in use
    qwen2_vl/               a tiny Qwen2-VL directory
    nested.safetensors …    what the model makes of the cases in cases.json

Weights, biases and norms are drawn wide, so that a term left out shows up well above the tolerance.
"""
import json
import pathlib
import shutil

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText, AutoProcessor, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.vision_utils import get_vision_window_index

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEMO = ROOT / "ops/demo/tiny-qwen2.5-vl"
OUT = ROOT / "tests/golden/model"
COLUMNS = 7  # every n-th column of the patches is kept

CASES = [
    # name, pictures, question, answer
    ("small", ["small.png"], "what modality is this image ?", "ct scan"),
    ("odd", ["odd.png"], "which organ is abnormal ?", "it is the liver"),
    ("large", ["large.png"], "where is the lesion ?", "in the left kidney"),
    ("tall", ["tall.png"], "is there a nodule ?", "yes"),
    ("wide", ["wide.png"], "Is this a CT?", "no"),
    ("grey", ["grey.png"], "what region of the body is this ?", "chest"),
    ("none", [], "what is the abnormality ?", "a cyst"),
    ("two", ["odd.png", "small.png"], "which lesion is shown ?", "mass"),
    ("three", ["wide.png", "small.png", "tall.png"], "  two\n lines, ünïcode 42% ✓ ", "right lung\n"),
    # Extreme shapes: one token high or wide, and the longest that the reference takes.
    ("long", ["long.png"], "which side ?", "left"),
    ("thin", ["thin.png"], "which side ?", "right"),
    ("strip", ["strip.png", "strip.png"], "which plane ?", "axial"),
    # One side above 1500 pixels, not shrunk: 1134 tokens.
    ("big", ["scan.png", "odd.png"], "what is shown in the second image ?", "a cyst in the liver"),
]
SETTINGS = {"big": "big"}  # cases with another image processor than their model's
LAYERS = {"odd": 10**6, "two": 10**6, "three": 8, "thin": 8, "big": 8}  # cases with every layer's state, and how many rows of it
BATCH = ["three", "none", "two"]  # run as one batch, padded on the right


def make_images(folder):
    """Simple pictures: small as files, with edges and slopes for the resampler to get wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)

    def scene(w, h, noise=6):
        y, x = np.mgrid[0:h, 0:w]
        r = 255 * x / max(1, w - 1)
        g = 255 * y / max(1, h - 1)
        b = 127 + 120 * np.sin(x / 5) * np.cos(y / 7)
        a = np.stack([r, g, b], -1) + rng.normal(0, noise, (h, w, 3))
        a[h // 4 : h // 2, w // 3 : w // 2] = [250, 10, 120]
        return Image.fromarray(np.clip(a, 0, 255).astype(np.uint8))

    scene(84, 84).save(folder / "small.png")
    scene(61, 97).save(folder / "odd.png")
    y, x = np.mgrid[0:1530, 0:1711]
    blocks = ((x // 97 + y // 61) % 7 * 36).astype(np.uint8)
    Image.fromarray(np.stack([blocks, 255 - blocks, np.where(x > y, 200, 30).astype(np.uint8)], -1)).save(
        folder / "large.png", optimize=True
    )
    scene(23, 331).save(folder / "tall.png")
    scene(300, 29).save(folder / "wide.png")
    scene(12, 17).save(folder / "tiny.png")
    # Two colours in blocks of odd sizes: small as files however large they are.
    for name, w, h in [("long", 1400, 28), ("thin", 37, 1999), ("strip", 400, 2), ("scan", 1511, 593)]:
        y, x = np.mgrid[0:h, 0:w]
        Image.fromarray((((x // 71 + y // 13) % 2) * 200 + 30).astype(np.uint8)).save(folder / f"{name}.png", optimize=True)
    scene(100, 70).convert("L").save(folder / "grey.png")
    scene(90, 60).quantize(32).save(folder / "palette.png")
    scene(64, 64).quantize(16).save(folder / "palette_clear.png", transparency=3)
    rgba = scene(70, 50).convert("RGBA")
    rgba.putalpha(Image.fromarray(np.linspace(0, 255, 3500).reshape(50, 70).astype(np.uint8)))
    rgba.save(folder / "alpha.png")
    rgba.convert("LA").save(folder / "grey_alpha.png")
    scene(80, 64).convert("1").save(folder / "bits.png")
    scene(84, 56, noise=0).convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    scene(84, 56, noise=0).save(folder / "colour.jpg", quality=95)
    scene(84, 56, noise=0).convert("L").save(folder / "grey.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera on its side
    scene(84, 56, noise=0).convert("L").save(folder / "turned.jpg", quality=95, exif=exif)


def rows_kept(n):
    """At most about 40 rows."""
    return slice(0, n, max(1, n // 40))


def image_goldens(processor):
    out = {}
    for path in sorted((OUT / "images").iterdir()):
        got = processor.image_processor([ImageOps.exif_transpose(Image.open(path))], return_tensors="pt")
        x = got["pixel_values"]
        out[f"{path.name}/grid"] = got["image_grid_thw"][0]
        out[f"{path.name}/patches"] = x[rows_kept(len(x)), ::COLUMNS].contiguous()
        out[f"{path.name}/sums"] = x.double().sum(1)
    save_file(out, OUT / "images.safetensors")
    try:
        processor.image_processor([Image.new("L", (402, 2))], return_tensors="pt")
    except ValueError as refused:
        print(f"402 x 2 pixels: {refused}")
    else:
        raise SystemExit("the reference takes a picture more than 200 times as wide as high; so should we")


# Each shape also says how its directory is laid out.
NESTED = dict(
    family="qwen2_5_vl", nested=True, sharded=True,
    text=dict(hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-6),
    section=[2, 2, 2], theta=10000.0, tied=True,
    vision=dict(depth=3, hidden_size=32, intermediate_size=40, num_heads=2, window_size=56, fullatt_block_indexes=[0, 2], out_hidden_size=48),
)
FLAT = dict(
    family="qwen2_5_vl", nested=False, sharded=False,
    text=dict(hidden_size=40, intermediate_size=56, num_hidden_layers=3, num_attention_heads=5, num_key_value_heads=1, rms_norm_eps=1e-5),
    section=[2, 1, 1], theta=1000000.0, tied=False,
    vision=dict(depth=2, hidden_size=24, intermediate_size=36, num_heads=3, window_size=112, fullatt_block_indexes=[1], out_hidden_size=40),
)
QWEN2_VL = dict(
    family="qwen2_vl", nested=False, sharded=True,
    text=dict(hidden_size=48, intermediate_size=56, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2, rms_norm_eps=1e-6),
    section=[1, 2, 1], theta=1000000.0, tied=True,
    vision=dict(depth=3, embed_dim=32, mlp_ratio=3, num_heads=2, hidden_size=48),
)
CLASSES = {
    "qwen2_5_vl": (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration),
    "qwen2_vl": (Qwen2VLConfig, Qwen2VLForConditionalGeneration),
}


def build(shape, vocabulary, seed):
    config_class, model_class = CLASSES[shape["family"]]
    config = config_class(
        text_config=dict(
            **shape["text"], vocab_size=vocabulary, max_position_embeddings=2048, bos_token_id=0, eos_token_id=2, pad_token_id=0,
            tie_word_embeddings=shape["tied"],
            rope_parameters=dict(rope_type="default", rope_theta=shape["theta"], mrope_section=shape["section"]),
        ),
        vision_config=dict(**shape["vision"], patch_size=14, spatial_merge_size=2, temporal_patch_size=2),
        image_token_id=5, video_token_id=6, vision_start_token_id=3, vision_end_token_id=4, tie_word_embeddings=shape["tied"],
    )
    model = model_class(config).eval()
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 1:
                p.normal_(1.0 if "norm" in name or "ln_q" in name else 0.0, 0.2, generator=g)
            elif "embed_tokens" in name or "lm_head" in name:
                p.normal_(0, 0.4, generator=g)
            else:
                p.normal_(0, (2.0 / p[0].numel()) ** 0.5, generator=g)
    return model


def write_directory(model, shape, folder):
    nested, family = shape["nested"], shape["family"]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"]:
        shutil.copy(DEMO / name, folder / name)
    template = (DEMO / "chat_template.jinja").read_text()
    if nested:
        (folder / "chat_template.jinja").write_text(template)
    else:
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    weights = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and shape["tied"]:
            continue
        if not nested:
            name = name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")
        weights[name] = tensor.contiguous()
    if shape["sharded"]:  # two shards and an index
        names = sorted(weights)
        half = {n: f"model-0000{1 + (i * 2 >= len(names))}-of-00002.safetensors" for i, n in enumerate(names)}
        for file in sorted(set(half.values())):
            save_file({n: weights[n] for n in names if half[n] == file}, folder / file, metadata={"format": "pt"})
        index = {"metadata": {"total_size": sum(t.numel() * 4 for t in weights.values())}, "weight_map": half}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
    else:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    vision = dict(shape["vision"], patch_size=14, spatial_merge_size=2, temporal_patch_size=2,
                  hidden_act="silu" if family == "qwen2_5_vl" else "quick_gelu")
    text = dict(shape["text"], vocab_size=model.config.text_config.vocab_size, max_position_embeddings=2048, hidden_act="silu",
                use_sliding_window=False, bos_token_id=0, eos_token_id=2, pad_token_id=0)
    top = dict(architectures=[CLASSES[family][1].__name__], model_type=family, image_token_id=5, video_token_id=6,
               vision_start_token_id=3, vision_end_token_id=4)
    if nested:
        text["rope_parameters"] = dict(rope_type="default", rope_theta=shape["theta"], mrope_section=shape["section"])
        config = dict(top, tie_word_embeddings=shape["tied"], dtype="float32", text_config=dict(text, model_type=f"{family}_text"),
                      vision_config=dict(vision, model_type=f"{family}_vision", in_channels=3))
    else:
        text["rope_theta"] = shape["theta"]
        text["rope_scaling"] = dict(type="mrope", mrope_section=shape["section"])
        config = dict(top, tie_word_embeddings=shape["tied"], torch_dtype="float32", **text,
                      vision_config=dict(vision, model_type=family, in_chans=3, spatial_patch_size=14))
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    settings = json.loads((DEMO / "preprocessor_config.json").read_text())
    settings["processor_class"] = "Qwen2_5_VLProcessor" if family == "qwen2_5_vl" else "Qwen2VLProcessor"
    if nested:
        del settings["min_pixels"], settings["max_pixels"]
        settings["size"] = dict(shortest_edge=3136, longest_edge=200704)
        video = {k: v for k, v in settings.items() if k != "image_processor_type"}
        video["video_processor_type"] = "Qwen2VLVideoProcessor"
        whole = {"image_processor": settings, "video_processor": video, "processor_class": "Qwen2_5_VLProcessor"}
        (folder / "processor_config.json").write_text(json.dumps(whole, indent=2))
    else:
        (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2))


def prompt(processor, name):
    """What the processor makes of a case, and the answer's ids."""
    _, pictures, question, answer = next(case for case in CASES if case[0] == name)
    images = [Image.open(OUT / "images" / p) for p in pictures]
    content = [{"type": "image"} for _ in images] + [{"type": "text", "text": question}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False)
    given = {}
    if name in SETTINGS:
        limits = json.loads((OUT / SETTINGS[name] / "preprocessor_config.json").read_text())
        given["images_kwargs"] = {"size": {"shortest_edge": limits["min_pixels"], "longest_edge": limits["max_pixels"]}}
    batch = processor(text=[text], images=images or None, return_tensors="pt", **given)
    return batch, processor.tokenizer(answer, add_special_tokens=False)["input_ids"] + [2]


def with_answer(batch, reply):
    """The batch with the answer behind its prompt."""
    tokens = torch.cat([batch["input_ids"], torch.tensor([reply])], 1)
    types = torch.cat([batch["mm_token_type_ids"], torch.zeros(1, len(reply), dtype=torch.long)], 1)
    given = {k: batch[k] for k in ["pixel_values", "image_grid_thw"] if k in batch}
    return dict(input_ids=tokens, mm_token_type_ids=types, attention_mask=torch.ones_like(tokens), **given)


def answer_logits(model, batch, reply):
    start = batch["input_ids"].shape[1] - 1
    return model(**with_answer(batch, reply)).logits[0, start : start + len(reply)]


def watch(model, states):
    """Hooks that keep the state after the embedding of the patches, each block, each layer and the last norm."""
    def keep(key):
        return lambda m, i, o: states.__setitem__(key, (o[0] if isinstance(o, tuple) else o).detach())
    visual, text = model.model.visual, model.model.language_model
    watched = [("vision/0", visual.patch_embed)]
    watched += [(f"vision/{n + 1}", block) for n, block in enumerate(visual.blocks)]
    watched += [(f"text/{n + 1}", layer) for n, layer in enumerate(text.layers)]
    watched += [("text/last", text.norm)]
    return [module.register_forward_hook(keep(key)) for key, module in watched]


def in_patch_order(state, grid, v):
    """Qwen2.5-VL's blocks work in window order; back to the processor's order."""
    if not hasattr(v, "window_size"):
        return state
    order, _ = get_vision_window_index(grid, v.spatial_merge_size, v.window_size, v.patch_size)
    return state.reshape(len(order), -1)[torch.argsort(order)].reshape(state.shape)


@torch.no_grad()
def model_goldens(folder):
    processor = AutoProcessor.from_pretrained(folder)
    load = lambda dtype: AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    model, info = load(torch.float32)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    narrow, _ = load(torch.bfloat16)
    out = {}
    for name, *_ in CASES:
        batch, reply = prompt(processor, name)
        ids, grid = batch["input_ids"], batch.get("image_grid_thw")
        put = lambda key, tensor: out.__setitem__(f"{name}/{key}", tensor.contiguous().clone())
        put("ids", ids[0])
        put("answer", torch.tensor(reply))
        positions, delta = model.model.get_rope_index(ids, batch["mm_token_type_ids"], image_grid_thw=grid)
        put("positions", positions[:, 0])
        put("next", (delta[0] + ids.shape[1]))
        if grid is not None:
            features = model.model.get_image_features(batch["pixel_values"], grid).pooler_output
            put("features", torch.cat([f[:: max(1, len(f) // 40)] for f in features]))
            features = narrow.model.get_image_features(batch["pixel_values"], grid).pooler_output
            put("features_bf16", torch.cat([f[:: max(1, len(f) // 40)] for f in features]))
        states = {}
        handles = watch(model, states) if name in LAYERS else []
        logits = answer_logits(model, batch, reply)
        for h in handles:
            h.remove()
        for key, state in states.items():
            state = state.squeeze(0) if key.startswith("text") else state
            if key.startswith("vision") and key != "vision/0":
                state = in_patch_order(state, grid, model.config.vision_config)
            put(key, state[:: max(1, len(state) // LAYERS[name])])
        put("logits", logits)
        put("logits_bf16", answer_logits(narrow, batch, reply))
        put("logprobs", logits.log_softmax(-1).gather(-1, torch.tensor(reply)[:, None])[:, 0])
        greedy = model.generate(**batch, max_new_tokens=8, do_sample=False, temperature=None)[0, ids.shape[1] :]
        put("greedy", greedy)
    out["batch/logits"] = batch_logits(model, processor)
    save_file(out, folder.with_suffix(".safetensors"))


def batch_logits(model, processor):
    """The answers' logits of the rows of BATCH, one row after the other, computed as one batch."""
    rows = [(batch, reply, with_answer(batch, reply)) for batch, reply in (prompt(processor, name) for name in BATCH)]
    longest = max(row["input_ids"].shape[1] for _, _, row in rows)
    whole = {}
    for key in ["input_ids", "mm_token_type_ids", "attention_mask"]:
        whole[key] = torch.cat([torch.nn.functional.pad(row[key], (0, longest - row[key].shape[1])) for _, _, row in rows])
    for key in ["pixel_values", "image_grid_thw"]:
        whole[key] = torch.cat([row[key] for _, _, row in rows if key in row])
    logits = model(**whole).logits
    starts = [batch["input_ids"].shape[1] - 1 for batch, _, _ in rows]
    return torch.cat([logits[i, s : s + len(reply)] for i, (s, (_, reply, _)) in enumerate(zip(starts, rows))])


def main():
    torch.set_num_threads(1)
    make_images(OUT / "images")
    processor = AutoProcessor.from_pretrained(DEMO)
    image_goldens(processor)
    settings = json.loads((DEMO / "preprocessor_config.json").read_text())
    settings.update(max_pixels=2000000)
    (OUT / "big").mkdir(exist_ok=True)
    (OUT / "big/preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    cases = [dict(name=n, images=i, question=q, answer=a, settings=SETTINGS.get(n), rows=LAYERS.get(n)) for n, i, q, a in CASES]
    (OUT / "cases.json").write_text(json.dumps(dict(cases=cases, batch=BATCH), indent=1, ensure_ascii=False) + "\n")
    vocabulary = len(processor.tokenizer)
    for seed, (name, shape) in enumerate([("nested", NESTED), ("flat", FLAT), ("qwen2_vl", QWEN2_VL)]):
        model = build(shape, vocabulary, seed)
        write_directory(model, shape, OUT / name)
        model_goldens(OUT / name)


if __name__ == "__main__":
    main()
