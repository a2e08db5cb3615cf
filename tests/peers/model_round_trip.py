#!/usr/bin/env python3
"""Opens model directories that medevo saved with transformers: nothing missing, the same logits.

    .peers/bin/python tests/peers/model_round_trip.py DIR...

Called by medevo-model's test `transformers`, which saves the directories. Beside each lies DIR.prompt.safetensors:
ids [L], patches [patches, width] and grid [images, 3] of a prompt, and our f32 logits [L, vocabulary]. transformers
then writes what it opened to DIR.again, in several files, for the test to read back.
"""
import sys

import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging

TOLERANCE = 1e-4  # relative to the largest logit


@torch.no_grad()
def check(folder):
    """What is wrong with the directory; nothing if all is well."""
    model, info = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    if any(info.values()):
        return f"transformers does not load it cleanly: {info}"
    processor = AutoProcessor.from_pretrained(folder)
    if processor.image_processor is None or processor.tokenizer is None:
        return "transformers finds no processor in it"
    given = load_file(f"{folder}.prompt.safetensors")
    ids = given["ids"][None]
    kinds = (ids == model.config.image_token_id).int()
    logits = model.eval()(
        input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=kinds,
        pixel_values=given["patches"], image_grid_thw=given["grid"],
    ).logits[0]
    model.save_pretrained(f"{folder}.again", max_shard_size="300KB")
    error = ((given["logits"] - logits).abs().max() / logits.abs().max()).item()
    print(f"{folder}: relative error {error:.1e}")
    return "" if error <= TOLERANCE else f"its logits differ: relative error {error:.1e}"


def main():
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    faults = {folder: fault for folder in sys.argv[1:] if (fault := check(folder))}
    for folder, fault in faults.items():
        print(f"{folder}: {fault}", file=sys.stderr)
    sys.exit(1 if faults or len(sys.argv) < 2 else 0)


if __name__ == "__main__":
    main()
