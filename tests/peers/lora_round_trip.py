#!/usr/bin/env python3
"""Opens with PEFT what medevo-model saved with an adapter: tensors and logits must be equal.

    python tests/peers/lora_round_trip.py MODEL SAVED [MODEL SAVED ...]

MODEL is the base; SAVED holds `adapter`, `merged`, and the logits of a fixed prompt in `logits.safetensors`.
worker/model/tests/peft.rs makes them and runs this.
"""
import pathlib
import sys
import warnings

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import Qwen2_5_VLForConditionalGeneration

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
    arguments = [pathlib.Path(argument) for argument in sys.argv[1:]]
    for source, saved in zip(arguments[::2], arguments[1::2], strict=True):
        ours = load_file(saved / "logits.safetensors")
        with warnings.catch_warnings():
            # PEFT only warns of keys that it misses or does not know.
            warnings.filterwarnings("error", message=".*(missing|unexpected).*keys.*")
            adapted = PeftModel.from_pretrained(base(source), saved / "adapter")
        held, tensors = get_peft_model_state_dict(adapted), load_file(saved / "adapter/adapter_model.safetensors")
        same = held.keys() == tensors.keys() and all(torch.equal(held[key], tensors[key]) for key in tensors)
        adapted, merged = error(adapted, ours), error(base(saved / "merged"), ours)
        equal = "equal" if same else "DIFFER"
        print(f"{saved.name}: {len(tensors)} tensors {equal}, relative error {adapted:.1e}, merged {merged:.1e}")
        failures += not same or adapted > TOLERANCE or merged > TOLERANCE
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
