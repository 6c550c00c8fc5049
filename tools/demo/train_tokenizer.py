#!/usr/bin/env python3
"""Train the demo model's byte-level BPE tokenizer on an equal share of every domain's training text.

    train_tokenizer.py --text DIR/text --out demo/model [--vocab 4096] [--mb-per-domain 6]

Writes tokenizer.json and tokenizer_config.json. <|endoftext|>, the last id, ends every document.
"""

import argparse
import json
import os

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from corpus import DOMAINS, documents

END = "<|endoftext|>"
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def empty_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    return tokenizer


def sample(folder, bytes_per_domain):
    for domain in DOMAINS:
        left = bytes_per_domain
        for _, text in documents(folder, domain, "train"):
            yield text
            left -= len(text.encode())
            if left <= 0:
                break


def config(vocab, context):
    return {
        "add_bos_token": False, "add_prefix_space": False, "bos_token": None, "clean_up_tokenization_spaces": False,
        "eos_token": END, "pad_token": END, "unk_token": None, "errors": "replace", "model_max_length": context,
        "split_special_tokens": False, "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": {str(vocab - 1): {"content": END, "lstrip": False, "normalized": False, "rstrip": False,
                                                  "single_word": False, "special": True}},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--text", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--mb-per-domain", type=float, default=6.0)
    arguments = parser.parse_args()
    tokenizer = empty_tokenizer()
    trainer = trainers.BpeTrainer(vocab_size=arguments.vocab - 1, min_frequency=2, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), max_token_length=24)
    tokenizer.train_from_iterator(sample(arguments.text, int(arguments.mb_per_domain * 1e6)), trainer)
    tokenizer.add_special_tokens([AddedToken(END, special=True, normalized=False)])
    assert tokenizer.get_vocab_size() == arguments.vocab and tokenizer.token_to_id(END) == arguments.vocab - 1
    os.makedirs(arguments.out, exist_ok=True)
    tokenizer.save(os.path.join(arguments.out, "tokenizer.json"))
    with open(os.path.join(arguments.out, "tokenizer_config.json"), "w") as file:
        json.dump(config(arguments.vocab, arguments.context), file, indent=2)
        file.write("\n")


if __name__ == "__main__":
    main()
