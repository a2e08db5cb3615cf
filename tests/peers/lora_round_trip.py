#!/usr/bin/env python3
"""Saves adapters with medevo-model and opens them with PEFT: tensors and logits must be equal.

    python tests/peers/lora_round_trip.py

Run by hand where torch, transformers and peft are installed; needs a built workspace (cargo, nothing exported).
It calls the example `lora_round_trip` of medevo-model, which puts an adapter of random numbers beside a model,
saves it, merges it into another directory, and writes the logits of a fixed prompt beside both.
"""
import pathlib
import subprocess
import sys
import tempfile
import warnings

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import Qwen2_5_VLForConditionalGeneration

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = ["tests/golden/model/nested", "tests/golden/model/flat"]
TARGETS = {  # the vision tower frozen or not, and the targets
    "text": ("frozen", "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"),
    "both": ("trained", "q_proj,v_proj,up_proj,qkv,attn.proj,mlp.0,mlp.2"),
}
TOLERANCE = 1e-5  # relative to the largest logit


def base(folder):
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)


@torch.no_grad()
def error(model, ours):
    ids = ours["ids"]
    theirs = model.eval()(input_ids=ids[None], attention_mask=torch.ones(1, len(ids), dtype=torch.long)).logits[0]
    return ((ours["logits"] - theirs).abs().max() / theirs.abs().max()).item()


def main():
    failures = 0
    for source in MODELS:
        for name, (vision, targets) in TARGETS.items():
            with tempfile.TemporaryDirectory() as scratch:
                out = pathlib.Path(scratch)
                command = ["cargo", "run", "-q", "-p", "medevo-model", "--example", "lora_round_trip", "--", str(ROOT / source), str(out), vision, targets]
                subprocess.run(command, cwd=ROOT, check=True)
                ours = load_file(out / "logits.safetensors")
                with warnings.catch_warnings():
                    # PEFT only warns of keys that it misses or does not know.
                    warnings.filterwarnings("error", message=".*(missing|unexpected).*keys.*")
                    adapted = PeftModel.from_pretrained(base(ROOT / source), out / "adapter")
                held, saved = get_peft_model_state_dict(adapted), load_file(out / "adapter/adapter_model.safetensors")
                same = held.keys() == saved.keys() and all(torch.equal(held[key], saved[key]) for key in saved)
                adapted, merged = error(adapted, ours), error(base(out / "merged"), ours)
                print(f"{source}, {name}: {len(saved)} tensors {'equal' if same else 'DIFFER'}, relative error {adapted:.1e}, merged {merged:.1e}")
                failures += not same or adapted > TOLERANCE or merged > TOLERANCE
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
