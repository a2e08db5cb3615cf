#!/usr/bin/env python3
"""Writes the goldens that adapters are held against, with PEFT on the goldens' model `nested`.

    python tests/golden/make_lora_goldens.py

Needs what make_model_goldens.py needs (run that first) and peft. Writes, under tests/golden/lora:

    adapter/            an adapter of both towers as PEFT saves it, B random instead of zero
    goldens.safetensors of each case the logits that predict the answer, and the gradient of the answer's mean
                        cross-entropy, summed over the cases, for every tensor of the adapter
"""
import json
import pathlib
import shutil

import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "tests/golden/model"
OUT = ROOT / "tests/golden/lora"
CASES = ["odd", "none"]
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "qkv", "attn.proj", "mlp.0"]


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shutil.rmtree(OUT, ignore_errors=True)
    processor = AutoProcessor.from_pretrained(MODEL / "nested")
    base = Qwen2_5_VLForConditionalGeneration.from_pretrained(MODEL / "nested", dtype=torch.float32)
    base.config._name_or_path = base.name_or_path = "tests/golden/model/nested"
    model = get_peft_model(base, LoraConfig(r=3, lora_alpha=7, target_modules=TARGETS, task_type="CAUSAL_LM")).eval()
    trained = {n.replace(".default", ""): p for n, p in model.named_parameters() if p.requires_grad}
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name in sorted(n for n in trained if "lora_B" in n):
            trained[name].normal_(0, 0.2, generator=generator)
    model.save_pretrained(OUT / "adapter")
    (OUT / "adapter/README.md").unlink()
    config = json.loads((OUT / "adapter/adapter_config.json").read_text())
    config["target_modules"].sort()  # a set, in an order of its own
    (OUT / "adapter/adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")

    out, total = {}, 0
    for case in json.loads((MODEL / "cases.json").read_text())["cases"]:
        if case["name"] not in CASES:
            continue
        images = [Image.open(MODEL / "images" / picture) for picture in case["images"]]
        content = [{"type": "image"} for _ in images] + [{"type": "text", "text": case["question"]}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False)
        batch = processor(text=[text], images=images or None, return_tensors="pt")
        reply = torch.tensor(processor.tokenizer(case["answer"], add_special_tokens=False)["input_ids"] + [2])
        ids = torch.cat([batch["input_ids"], reply[None]], 1)
        kinds = torch.cat([batch["mm_token_type_ids"], torch.zeros(1, len(reply), dtype=torch.long)], 1)
        given = {k: batch[k] for k in ["pixel_values", "image_grid_thw"] if k in batch}
        logits = model(input_ids=ids, mm_token_type_ids=kinds, attention_mask=torch.ones_like(ids), **given).logits[0]
        logits = logits[batch["input_ids"].shape[1] - 1 : -1]
        total = total + torch.nn.functional.cross_entropy(logits, reply)
        out[f"{case['name']}/logits"] = logits.detach().contiguous()
    total.backward()
    for name, parameter in trained.items():
        out[f"gradient/{name}"] = parameter.grad.contiguous()
    save_file(out, OUT / "goldens.safetensors")


if __name__ == "__main__":
    main()
