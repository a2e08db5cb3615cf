#!/usr/bin/env python3
"""Saves models with medevo-model and opens them with transformers: the logits must be equal.

    python tests/peers/model_round_trip.py

Run by hand where torch and transformers are installed; needs a built workspace (cargo, nothing exported).
It calls the example `round_trip` of medevo-model, which loads a directory, saves it elsewhere, and writes
the logits of a fixed prompt beside it.
"""
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = ["tests/golden/model/nested", "tests/golden/model/flat", "ops/demo/tiny-qwen2.5-vl"]
TOLERANCE = 1e-4  # relative to the largest logit


@torch.no_grad()
def logits(folder, ids):
    model, info = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    return model.eval()(input_ids=ids[None], attention_mask=torch.ones(1, len(ids), dtype=torch.long)).logits[0]


def main():
    failures = 0
    for source in SOURCES:
        with tempfile.TemporaryDirectory() as scratch:
            out = pathlib.Path(scratch) / "saved"
            command = ["cargo", "run", "-q", "-p", "medevo-model", "--example", "round_trip", "--", str(ROOT / source), str(out)]
            subprocess.run(command, cwd=ROOT, check=True)
            ours = load_file(str(out) + ".logits.safetensors")
            AutoProcessor.from_pretrained(out)
            theirs = logits(out, ours["ids"])
            error = ((ours["logits"] - theirs).abs().max() / theirs.abs().max()).item()
            print(f"{source}: relative error {error:.1e}")
            failures += error > TOLERANCE
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
