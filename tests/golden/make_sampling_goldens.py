"""Writes worker/engine/tests/golden/sampling.json: what temperature, top-k and top-p leave of a distribution.

The numbers are transformers' own logits processors, in the order in which `generate` applies them. A row is
some logits; a case gives, for each row, the tokens that stay and their probabilities.

Run: python tests/golden/make_sampling_goldens.py   (needs transformers 5.23 and torch 2.11)
"""

import json
import pathlib

import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

OUT = pathlib.Path(__file__).resolve().parents[2] / "worker/engine/tests/golden/sampling.json"
VOCABULARY = 40


def rows():
    torch.manual_seed(7)
    wide = torch.randn(VOCABULARY) * 3
    narrow = torch.randn(VOCABULARY) * 0.2
    peaked = torch.randn(VOCABULARY)
    peaked[11] += 12
    # Multiples of 1/8 are printed without rounding.
    return [(row * 8).round().div(8) + torch.arange(VOCABULARY) / 1024 for row in (wide, narrow, peaked)]


def kept(row, temperature, top_p, top_k):
    scores = row[None]
    if temperature != 1.0:
        scores = TemperatureLogitsWarper(temperature)(None, scores)
    if top_k:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1.0:
        scores = TopPLogitsWarper(top_p)(None, scores)
    probability = scores.double().softmax(-1)[0]
    ids = probability.nonzero()[:, 0].tolist()
    return {"ids": ids, "probabilities": [round(probability[i].item(), 9) for i in ids]}


def main():
    logits = rows()
    cases = []
    for temperature in (1.0, 0.7, 1.3):
        for top_p, top_k in ((1.0, 0), (0.9, 0), (1.0, 20), (0.9, 20), (0.3, 1), (0.5, VOCABULARY)):
            cases.append({
                "temperature": temperature, "top_p": top_p, "top_k": top_k,
                "rows": [kept(row, temperature, top_p, top_k) for row in logits],
            })
    whole = {"logits": [row.tolist() for row in logits], "cases": cases}
    OUT.write_text(json.dumps(whole, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
