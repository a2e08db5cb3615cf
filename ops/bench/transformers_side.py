"""transformers' side of drawing alone: `generate` with its cache, all candidates of a step in one call.
`transformers_side.py SPEC.json`, then lines `rollout K` on standard input."""

import json
import sys

import torch
from PIL import Image
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration
from transformers.utils import logging as transformers_logging

from meter import clock, memory, say


def main() -> None:
    spec = json.load(open(sys.argv[1]))
    torch.set_num_threads(spec["threads"])
    transformers_logging.set_verbosity_error()
    processor = AutoProcessor.from_pretrained(spec["model"], padding_side="left")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(spec["model"], dtype=torch.float32).to(device).eval()
    say(memory())
    for line in sys.stdin:
        what, number = line.split()
        if what != "rollout":
            raise SystemExit(f"expected the order `rollout K`, got {line!r}")
        start = clock()
        texts, images = [], []
        for row in spec["steps"][int(number)]:
            content = [{"type": "image"} for _ in row["images"]] + [{"type": "text", "text": row["question"]}]
            message = [{"role": "user", "content": content}]
            texts.append(processor.apply_chat_template(message, add_generation_prompt=True))
            images += [Image.open(path).convert("RGB") for path in row["images"]]
        inputs = processor(text=texts, images=images or None, padding=True, return_tensors="pt").to(device)
        tokens = spec["answer_tokens"]
        with torch.no_grad():
            out = model.generate(
                **inputs,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                num_return_sequences=spec["n"],
                max_new_tokens=tokens,
                min_new_tokens=tokens,
            )
        wall, cpu = (now - then for now, then in zip(clock(), start))
        say(
            {
                "rollout_s": wall,
                "update_s": 0.0,
                "rollout_cpu_s": cpu,
                "update_cpu_s": 0.0,
                "prompt_tokens": int(inputs["attention_mask"].sum()) * spec["n"],
                "answer_tokens": out[:, inputs["input_ids"].shape[1] :].numel(),
                **memory(),
            }
        )


if __name__ == "__main__":
    main()
