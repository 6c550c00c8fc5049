#!/usr/bin/env python3
"""Compares `coterie tokenize` with the `tokenizers` library on real vocabularies, and measures its speed.

The vocabularies are llama.cpp's models/ggml-vocab-*.gguf, which the source distribution of llama-cpp-python carries:

    pip download --no-binary llama-cpp-python --no-deps llama-cpp-python && tar xzf llama_cpp_python-*.tar.gz
    python tools/tokenizer/check_real.py --models llama_cpp_python-*/vendor/llama.cpp/models \\
        --command "build/bin/coterie tokenize"

A tokenizer.json is put together from each (vocabulary and merges from the file, the components as the real model's file
states them) in a temporary directory: nothing of them stays.
"""
import argparse
import json
import pathlib
import resource
import subprocess
import sys
import tempfile

import gguf
from tokenizers import Tokenizer

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import corpus
import families

VOCABULARIES = {"gpt-2": "gpt2", "gpt-neox": "neox", "llama-bpe": "llama3", "qwen2": "qwen2", "qwen35": "qwen35",
                "deepseek-coder": "deepseek-coder", "deepseek-llm": "deepseek-llm", "starcoder": "starcoder",
                "refact": "starcoder", "mpt": "neox", "command-r": "starcoder", "llama-spm": "llama2",
                "phi-3": "mixtral"}
CONTROL, USER_DEFINED, BYTE = 3, 4, 6


def read_vocabulary(path):
    """Tokens, their types, scores, merges; as the gguf file has them."""
    fields = gguf.GGUFReader(str(path)).fields

    def strings(name):
        field = fields.get(name)
        return [bytes(field.parts[i]).decode() for i in field.data] if field else []

    def numbers(name):
        field = fields.get(name)
        return [field.parts[i][0].item() for i in field.data] if field else []

    return (strings("tokenizer.ggml.tokens"), numbers("tokenizer.ggml.token_type"), numbers("tokenizer.ggml.scores"),
            [m.split(" ") for m in strings("tokenizer.ggml.merges")])


def merges_from_scores(tokens, scores):
    """SentencePiece files have no merges: every split of a token into two others, best token first."""
    score = dict(zip(tokens, scores))
    merges = []
    for token in tokens:
        for cut in range(1, len(token)):
            if token[:cut] in score and token[cut:] in score:
                merges.append((-score[token], len(token[:cut]), token[:cut], token[cut:]))
    return [[left, right] for _, _, left, right in sorted(merges)]


def build(path, family_name):
    family = families.FAMILIES[family_name]
    tokens, types, scores, merges = read_vocabulary(path)
    vocab = {}
    for i, token in enumerate(tokens):
        vocab.setdefault(token, i)
    normal = [t for i, t in enumerate(tokens) if types[i] not in (CONTROL, USER_DEFINED, BYTE)]
    if not merges:
        merges = merges_from_scores(normal, [s for i, s in enumerate(scores) if types[i] not in (3, 4, 6)])
    merges = [m for m in merges if len(m) == 2 and m[0] in vocab and m[1] in vocab and m[0] + m[1] in vocab]
    added = [{"id": vocab[t], "content": t, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": types[i] == USER_DEFINED, "special": types[i] == CONTROL}
             for i, t in enumerate(tokens) if types[i] in (CONTROL, USER_DEFINED) and vocab[t] == i]
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
             "vocab": vocab, "merges": merges if family["pairs"] else [" ".join(m) for m in merges]}
    model.update(family["model"])
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
            "normalizer": family["normalizer"], "pre_tokenizer": family["pre_tokenizer"],
            "post_processor": families.post_processor(None, {}), "decoder": family["decoder"], "model": model}


def core_seconds():
    """What the programs started so far have used of a core: other work on the machine does not count."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run(command, directory, lines):
    (directory / "in.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in lines))
    start = core_seconds()
    subprocess.run(command.split() + [str(directory), "--in", str(directory / "in.jsonl"), "--out",
                                      str(directory / "out.jsonl")], check=True)
    seconds = core_seconds() - start
    return [json.loads(line) for line in (directory / "out.jsonl").read_text().split("\n")[:-1]], seconds


def check(command, directory, texts):
    """Number of lines that differ from the library's answer."""
    library = Tokenizer.from_file(str(directory / "tokenizer.json"))
    answers, _ = run(command, directory, texts)
    wrong = 0
    for text, answer in zip(texts, answers, strict=True):
        ids = library.encode(text, add_special_tokens=False).ids
        want = {"ids": ids, "text": library.decode(ids, skip_special_tokens=False)}
        if want != answer:
            wrong += 1
            if wrong <= 3:
                print("   ", json.dumps(text)[:200], "\n      want", json.dumps(want)[:200], "\n      got ",
                      json.dumps(answer)[:200])
    return wrong


def speed(command, directory, prose, line_bytes):
    """Seconds to load; MB/s a core of plain English beyond what loading takes."""
    text = (prose * (1 + 16_000_000 // len(prose)))[:16_000_000]
    lines = [text[i : i + line_bytes] for i in range(0, len(text), line_bytes)]
    _, load = run(command, directory, ["a"])
    _, whole = run(command, directory, lines)
    return load, len(text) / 1e6 / (whole - load)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", required=True, type=pathlib.Path)
    parser.add_argument("--command", required=True)
    parser.add_argument("--prose", type=pathlib.Path, help="plain English for the speed test")
    parser.add_argument("--only")
    parser.add_argument("--randoms", type=int, default=1500)
    options = parser.parse_args()
    texts = corpus.strings(seed=7, randoms=options.randoms)
    prose = options.prose.read_text() if options.prose else None
    failed = 0
    for name, family in VOCABULARIES.items():
        path = options.models / f"ggml-vocab-{name}.gguf"
        if (options.only and options.only != name) or not path.exists():
            continue
        with tempfile.TemporaryDirectory() as temporary:
            directory = pathlib.Path(temporary)
            parts = build(path, family)
            (directory / "tokenizer.json").write_text(json.dumps(parts))
            wrong = check(options.command, directory, texts)
            line = f"{name:16} {family:14} {len(parts['model']['vocab']):7} tokens  {len(texts)} strings  {wrong} differ"
            if prose:
                load, rate = speed(options.command, directory, prose, 1_000_000)
                _, short = speed(options.command, directory, prose, 200)
                line += f"  load {load:.2f} s  {rate:.1f} MB/s in 1 MB lines, {short:.1f} MB/s in 200 B lines"
            print(line, flush=True)
            failed += wrong > 0
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
