#!/usr/bin/env python3
"""Trains the tokenizer of the demo model and writes it into ops/demo/tiny-qwen2.5-vl.

Byte-level BPE in the layout of Qwen2.5-VL's tokenizer (the same pre-tokenizer and special tokens), about
512 tokens, trained on the questions and answers of mini-SLAKE as they stand in a prompt. Run it after a
change of mini-SLAKE's wording:

    python ops/demo/make_tokenizer.py

Needs the `tokenizers` package. The result is deterministic.
"""
import itertools
import pathlib

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

OUT = pathlib.Path(__file__).parent / "tiny-qwen2.5-vl"
VOCABULARY = 512
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
# Qwen2's rule for what a token may span.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

ORGANS = {
    "chest": ["right lung", "left lung", "heart"],
    "abdomen": ["liver", "spleen", "right kidney", "left kidney"],
    "head": ["right hemisphere", "left hemisphere", "cerebellum"],
}
SUBJECTS = {
    "modality": ["ct", "mri", "x-ray"],
    "region": list(ORGANS),
    "organ": list(itertools.chain.from_iterable(ORGANS.values())),
    "type": ["nodule", "mass", "cyst"],
    "closed": ["yes", "no"],
}
QUESTIONS = {
    "modality": [
        "what modality is this image ?", "which imaging modality was used ?", "what type of scan is this ?",
        "how was this image taken ?", "which modality is shown ?", "what imaging type is this ?",
        "what modality was used ?",
    ],
    "region": [
        "which part of the body is shown ?", "what body region does the image show ?",
        "what region of the body is this ?", "which body part was imaged ?", "what body part is this ?",
        "which body region was imaged ?", "what part of the body does the image show ?",
    ],
    "organ": [
        "which organ is abnormal ?", "where is the lesion ?", "in which organ is the lesion ?",
        "what organ has the abnormality ?", "where is the abnormality ?", "which organ has a lesion ?",
        "where is the abnormal organ ?",
    ],
    "type": [
        "what kind of lesion is present ?", "what is the abnormality ?", "which kind of abnormality is this ?",
        "what lesion does the image show ?", "what kind of abnormality is present ?", "what is the lesion ?",
        "which lesion is shown ?",
    ],
    "closed": [
        *(f"is this a {x} image ?" for x in SUBJECTS["modality"]),
        *(f"is there a {x} ?" for x in SUBJECTS["type"]),
        *(f"is the {x} shown ?" for x in SUBJECTS["region"]),
    ],
}
ANSWERS = {
    "modality": ["{}", "{} scan", "this is a {}", "a {} image"],
    "region": ["{}", "{} region", "this is the {}", "in the {}"],
    "organ": ["{}", "{} region", "it is the {}", "in the {}"],
    "type": ["{}", "{} lesion", "it is a {}", "there is a {}"],
    "closed": ["{}"],
}
# How often each text counts: an answer's head occurs in every image, a system line once a prompt.
WEIGHT = 8


def corpus():
    """Texts as they stand between special tokens."""
    for _ in range(WEIGHT * 4):
        yield "system\nYou are a helpful assistant."
        yield "user\n"
        yield "assistant\n"
    for family, subjects in SUBJECTS.items():
        for question in QUESTIONS[family]:
            for _ in range(WEIGHT):
                yield question
                yield question.capitalize().replace(" ?", "?")
        for subject in subjects:
            for answer in ANSWERS[family]:
                for _ in range(WEIGHT):
                    yield answer.format(subject)


def main():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    OUT.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(OUT / "tokenizer.json"))
    print(f"{OUT / 'tokenizer.json'}: {tokenizer.get_vocab_size()} tokens")
    for text in ["assistant\n", "what modality is this image ?", "it is the right kidney", "there is a nodule"]:
        print(" ", repr(text), tokenizer.encode(text).tokens)


if __name__ == "__main__":
    main()
