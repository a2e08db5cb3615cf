#!/usr/bin/env python3
"""Holds `medevo-worker generate` and `medevo-worker logprobs` against transformers, on one model directory.

    python tests/peers/check.py [--model DIR] [--bin target/debug] [--images FILE...]

`make peers` makes the Python environment and calls it. Without --model it takes the newest checkpoint of the
demo (`make demo`), as the run left it, or else a model of random weights. What must be equal, and how nearly:

prompt ids        equal to the processor's
greedy ids        equal to generate(do_sample=False); where the two best tokens of a place are nearer than
                  rounding, either will do
log-probabilities relative 1e-4 (and 1e-5 absolute, for those that are almost 0) to
                  log_softmax(logits / T) over the whole vocabulary, nothing cut off; T is 1 for greedy answers
                  and for `logprobs`, and --temperature for drawn ones, --top-p and --top-k or not

JPEGs count too: both sides decode them with libjpeg-turbo's arithmetic.

A special token written in a question stays text here, on purpose. The reference prompt is therefore put
together from the template's pieces, with the question encoded by `split_special_tokens=True`; for questions
without such text the script checks that this is what the processor itself gives.
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import torch
from PIL import Image, ImageOps
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging

ROOT = pathlib.Path(__file__).resolve().parents[2]
RELATIVE, ABSOLUTE = 1e-4, 1e-5
NEW_TOKENS = 12
QUESTIONS = [
    "in which organ is the lesion ?",
    "is this a ct image ?",
    "  spaces before and behind  ",
    "line\nbreak\tand tab",
    "Größe der Läsion? 肿瘤在哪里？ 🩻 e\u0301",
    "what does <|image_pad|> or <image> show?",
    "<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>",
    "{{ messages }} {% raw %} %s {0}",
    "",
]
ANSWERS = ["yes", "it is the left lung", "", " Ödem,  beidseits ", "<|im_end|>"]


class Peer:
    """The reference: model and processor of a directory, by transformers."""

    def __init__(self, model):
        self.processor = AutoProcessor.from_pretrained(model)
        self.model, info = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32, output_loading_info=True)
        assert not any(info.values()), f"{model} does not load cleanly: {info}"
        self.model.eval()
        tokenizer = self.processor.tokenizer
        self.specials = [t.content for t in tokenizer.added_tokens_decoder.values()]
        self.end_of_turn = tokenizer.convert_tokens_to_ids("<|im_end|>")

    def plain(self, text):
        """Ids of a text in which nothing is a special token."""
        return self.processor.tokenizer(text, split_special_tokens=True, add_special_tokens=False)["input_ids"]

    def prompt(self, image, question):
        """Batch and ids of the prompt."""
        content = [{"type": "image"}] * (image is not None)
        message = lambda text: [{"role": "user", "content": content + [{"type": "text", "text": text}]}]
        render = lambda text: self.processor.apply_chat_template(message(text), add_generation_prompt=True, tokenize=False)
        images = None if image is None else [ImageOps.exif_transpose(Image.open(image))]
        marked = self.processor(text=[render("@@@")], images=images, return_tensors="pt")
        if any(s in question for s in self.specials):
            # The question goes between the ids before and after it; the template has "\n" or a special token
            # before a question and a special token behind it, so no merge of the tokenizer reaches across.
            text = render("@@@")
            before, _ = text.split("@@@")
            tail = before[before.rindex("|>") + 2:]
            ids = marked["input_ids"][0].tolist()
            mark = self.plain(tail + "@@@")
            at = next(i for i in range(len(ids)) if ids[i:i + len(mark)] == mark)
            ids = ids[:at] + self.plain(tail + question) + ids[at + len(mark):]
        else:
            ids = self.processor(text=[render(question)], images=images, return_tensors="pt")["input_ids"][0].tolist()
        given = {k: marked[k] for k in ["pixel_values", "image_grid_thw"] if k in marked}
        return ids, given

    def inputs(self, ids, given):
        ids = torch.tensor([ids])
        kinds = (ids == self.model.config.image_token_id).int()
        return dict(input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=kinds, **given)

    @torch.no_grad()
    def greedy(self, ids, given):
        out = self.model.generate(**self.inputs(ids, given), do_sample=False, max_new_tokens=NEW_TOKENS)
        return out[0, len(ids):].tolist()

    @torch.no_grad()
    def logprobs(self, ids, given, answer, temperature=1.0):
        """Of each token of the answer over the whole vocabulary [tokens, vocabulary], and of itself [tokens]."""
        logits = self.model(**self.inputs(ids + answer, given)).logits[0, len(ids) - 1:-1]
        every = torch.log_softmax(logits.double() / temperature, -1)
        return every, every[torch.arange(len(answer)), torch.tensor(answer)]


class Check:
    """Counts comparisons, and prints those that fail."""

    def __init__(self):
        self.count, self.failures, self.worst = 0, 0, 0.0

    def equal(self, what, ours, theirs):
        self.count += 1
        if ours != theirs:
            self.failures += 1
            print(f"FAIL {what}\n  ours   {ours}\n  theirs {theirs}")

    def near(self, what, ours, theirs):
        self.count += 1
        ours = torch.tensor(ours, dtype=torch.float64)
        if ours.shape != theirs.shape:
            return self.equal(what, len(ours), len(theirs))
        error = (ours - theirs).abs()
        self.worst = max(self.worst, (error / (ABSOLUTE / RELATIVE + theirs.abs())).max().item())
        if (error > ABSOLUTE + theirs.abs() * RELATIVE).any():
            self.failures += 1
            print(f"FAIL {what}: off by {error.max():.2e}\n  ours   {ours.tolist()}\n  theirs {theirs.tolist()}")


def worker(binary, *arguments):
    done = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"{binary} {arguments}: {done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_generate(check, peer, binary, model, image, question):
    ids, given = peer.prompt(image, question)
    where = f"{image and image.name} {question!r}"
    base = ["generate", "--model", model, f"--question={question}", "--max-new-tokens", NEW_TOKENS, "--json"]
    base += ["--image", image] if image else []
    modes = {
        "greedy": (1.0, 1, ["--greedy"]),
        "n 4": (1.0, 4, ["--n", 4, "--temperature", 1, "--seed", 3]),
        "n 8, T 0.7": (0.7, 8, ["--n", 8, "--temperature", 0.7]),
        "n 8, T 0.7, top-p 0.8": (0.7, 8, ["--n", 8, "--temperature", 0.7, "--top-p", 0.8, "--top-k", 20]),
    }
    for mode, (temperature, n, flags) in modes.items():
        (got,) = worker(binary, *base, *flags)
        check.equal(f"{where}: prompt ids", got["prompt_ids"], ids)
        check.equal(f"{where}, {mode}: number of answers", len(got["answers"]), n)
        if got["prompt_ids"] != ids:
            return
        seen = set()
        for answer in got["answers"]:
            if tuple(answer["ids"]) in seen:
                continue
            seen.add(tuple(answer["ids"]))
            every, own = peer.logprobs(ids, given, answer["ids"], temperature)
            check.near(f"{where}, {mode}", answer["logprobs"], own)
            text = peer.processor.tokenizer.decode(answer["ids"], skip_special_tokens=True).strip()
            check.equal(f"{where}, {mode}: text", answer["text"], text)
            ended = answer["ids"][-1] == peer.end_of_turn
            check.equal(f"{where}, {mode}: ends once", answer["ids"].count(peer.end_of_turn), int(ended))
            if mode == "greedy":
                theirs = peer.greedy(ids, given)
                same = next((i for i, (a, b) in enumerate(zip(answer["ids"], theirs)) if a != b), None)
                if same is None:
                    check.equal(f"{where}: greedy length", len(answer["ids"]), len(theirs))
                elif abs(every[same, answer["ids"][same]] - every[same, theirs[same]]) > ABSOLUTE:
                    check.equal(f"{where}: greedy ids", answer["ids"], theirs)


def check_logprobs(check, peer, binary, model, cases, scratch):
    path = scratch / "pairs.jsonl"
    lines = [dict(image=i and str(i), question=q, answer=a) for i, q, a in cases]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for (image, question, answer), got in zip(cases, worker(binary, "logprobs", "--model", model, "--input", path, "--json"), strict=True):
        where = f"logprobs {image and image.name} {question!r} {answer!r}"
        ids, given = peer.prompt(image, question)
        check.equal(f"{where}: prompt ids", got["prompt_ids"], ids)
        check.equal(f"{where}: answer ids", got["answer_ids"], peer.plain(answer) + [peer.end_of_turn])
        if got["prompt_ids"] == ids:
            check.near(where, got["logprobs"], peer.logprobs(ids, given, got["answer_ids"])[1])


def pictures(scratch, given):
    """No picture, those given (or the demo's), the goldens', a large one and an odd one."""
    found = list(given) or sorted((ROOT / "runs/demo/data-s0/target/imgs").glob("*/source.jpg"))[:4]
    # 16-bit pictures are not among these: there we differ on purpose.
    found += sorted((ROOT / "tests/golden/model/images").iterdir())
    noise = random.Random(1)
    for name, size in [("huge.png", (2311, 1733)), ("thin.png", (31, 977))]:
        small = Image.new("RGB", (size[0] // 31 + 1, size[1] // 31 + 1))
        small.putdata([tuple(noise.randrange(256) for _ in range(3)) for _ in range(small.width * small.height)])
        small.resize(size, Image.Resampling.BICUBIC).save(scratch / name)
        found.append(scratch / name)
    return [None, *found]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "target/debug")
    parser.add_argument("--images", type=pathlib.Path, nargs="*", default=[])
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    binary = arguments.bin.resolve() / "medevo-worker"
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        model = arguments.model
        if model is None:
            runs = sorted((ROOT / "runs/demo").glob("*/checkpoints/step-*"), key=lambda p: p.name)
            model = runs[-1] if runs else scratch / "model"
            if not runs:
                config = ROOT / "ops/demo/tiny-qwen2.5-vl"
                subprocess.run([binary, "init", "--config", config, "--seed", "1", "--out", model], check=True)
        print(f"model {model}")
        peer, check = Peer(model), Check()
        images = pictures(scratch, [path.resolve() for path in arguments.images])
        cases = [(image, QUESTIONS[0]) for image in images]
        cases += [(image, question) for image in (None, images[1]) for question in QUESTIONS]
        for image, question in cases:
            check_generate(check, peer, binary, model, image, question)
        scored = [(image, q, a) for image, q in cases for a in ANSWERS[:2]]
        scored += [(image, QUESTIONS[1], a) for image in (None, images[1]) for a in ANSWERS]
        check_logprobs(check, peer, binary, model, scored, scratch)
    print(f"largest error of a log-probability: {check.worst:.1e} (relative, from 0.1 upwards)")
    print(f"{check.count} comparisons, {check.failures} failures")
    sys.exit(1 if check.failures or not check.count else 0)


if __name__ == "__main__":
    main()
