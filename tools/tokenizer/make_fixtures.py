#!/usr/bin/env python3
"""Writes tests/fixtures/tokenizer/: small vocabularies with the components of real tokenizer.json files, strings, and what
the `tokenizers` library makes of them.

    /opt/oracle/bin/python tools/tokenizer/make_fixtures.py tests/fixtures/tokenizer

strings.jsonl holds one JSON string a line. FAMILY/tokenizer.json is trained by the library on made-up text.
FAMILY/golden.txt holds one line of eight hexadecimal digits for each string, then for each made-up list of ids: a
checksum (32-bit FNV-1a) of the library's ids and texts, in the layout of `string_sum` and `ids_sum` below. The sums keep
40,000 answers in a few hundred kilobytes; to see an answer, ask the library.
"""
import json
import pathlib
import sys

from tokenizers import Tokenizer, pre_tokenizers, trainers

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import corpus
import families

ID_LISTS = 400
BYTE_TOKENS = ["<0x%02X>" % b for b in range(256)]


def token(content, special=True, **flags):
    entry = {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": not special,
             "special": special}
    entry.update(flags)
    return entry


CHAT = [token("<|endoftext|>"), token("<|im_start|>"), token("<|im_end|>")]
TOOLS = [token("<tool>", special=False, normalized=False), token("<think>", special=False)]
ADDED = {
    "gpt2": [token("<|endoftext|>")],
    "gpt2-space": [token("<|endoftext|>"), token("<mask>", lstrip=True), token("<tool>", False, rstrip=True)],
    "neox": [token("<|endoftext|>")] + [token(" " * n, special=False) for n in range(24, 1, -1)],
    "llama3": [token("<|begin_of_text|>")] + CHAT,
    "qwen2": CHAT + TOOLS,
    "qwen35": CHAT + TOOLS + [token("é", special=False), token("de\u0301ja", special=False)],
    "deepseek3": CHAT + TOOLS + [token("<mask>", lstrip=True, rstrip=True, single_word=True)],
    "deepseek-coder": [token("ü", special=False), token("<|endoftext|>")],
    "deepseek-llm": [token("ü", special=False), token("<|endoftext|>")],
    "starcoder": CHAT + [token("def", special=False, single_word=True)],
    "gpt4o": CHAT,
    "llama2": [token("<tool>", special=False), token("<think>", special=False, normalized=False)],
    "mixtral": [token("<tool>", special=False), token("<|im_start|>"), token("<|im_end|>", normalized=True)],
    "metaspace": [token("<mask>", lstrip=True), token("▁▁", special=False), token("the", special=False, single_word=True)],
}


def train(name):
    """The parts of a tokenizer.json without the tokens that are added afterwards."""
    family = families.FAMILIES[name]
    byte_level = family["decoder"]["type"] == "ByteLevel"
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": {},
             "merges": []}
    parts = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
             "normalizer": family["normalizer"], "pre_tokenizer": family["pre_tokenizer"], "post_processor": None,
             "decoder": family["decoder"], "model": model}
    learner = Tokenizer.from_str(json.dumps(parts))
    first = ["<unk>", "<s>", "</s>"]
    if not byte_level:
        first += BYTE_TOKENS if family["model"]["byte_fallback"] else []
        learner.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=1250 if byte_level else 1400, special_tokens=first, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if byte_level else [])
    # Some scripts are left to the byte tokens and the unknown token of those families that have them.
    prose = corpus.PROSE if byte_level else corpus.PROSE[:9] + corpus.PROSE[20:]
    text = [t for t in prose for _ in range(2)] + ["    return x;\n        y = z\n", "12 123 2024 1999 50000"]
    learner.train_from_iterator(text, trainer)
    trained = json.loads(learner.to_str())["model"]
    model.update(family["model"], vocab=trained["vocab"])
    model["merges"] = trained["merges"] if family["pairs"] else [" ".join(m) for m in trained["merges"]]
    return parts, byte_level


def build(name):
    parts, _ = train(name)
    vocab = parts["model"]["vocab"]
    for entry in [token("<unk>"), token("<s>"), token("</s>")] + ADDED[name]:
        known = vocab.get(entry["content"])
        highest = max([len(vocab) - 1] + [e["id"] for e in parts["added_tokens"]])
        parts["added_tokens"].append(dict({"id": highest + 1 if known is None else known}, **entry))
    parts["post_processor"] = families.post_processor(families.FAMILIES[name].get("template"), vocab)
    return parts


def fnv(data):
    value = 0x811C9DC5
    for byte in data:
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


def pack(ids):
    return b"".join(i.to_bytes(4, "little") for i in ids) + b"\xff\xff\xff\xff"


def texts_of(library, ids):
    return b"\xff".join(library.decode(ids, skip_special_tokens=skip).encode() for skip in (False, True))


def string_sum(library, text):
    """Ids, ids with the post-processor's tokens, text of the former without and with special tokens skipped."""
    plain, special = (library.encode(text, add_special_tokens=add).ids for add in (False, True))
    return fnv(pack(plain) + pack(special) + texts_of(library, plain))


def id_lists(size):
    """Lists of ids that no text gives, some of no token at all; a test in C makes the same."""
    state = 1
    for index in range(ID_LISTS):
        ids = []
        for _ in range(index % 23):
            state = (state * 6364136223846793005 + 1442695040888963407) & (2**64 - 1)
            limit = 300 if state >> 63 else size + 3
            ids.append((state >> 33) % limit)
        yield ids


def ids_sum(library, ids):
    return fnv(texts_of(library, ids))


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    strings = corpus.strings()
    (folder / "strings.jsonl").write_text("".join(json.dumps(s, ensure_ascii=False) + "\n" for s in strings))
    for name in families.FAMILIES:
        parts = build(name)
        library = Tokenizer.from_str(json.dumps(parts))
        for entry in parts["added_tokens"]:
            assert library.token_to_id(entry["content"]) == entry["id"], (name, entry)
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "tokenizer.json").write_text(json.dumps(parts, ensure_ascii=False, separators=(",", ":")) + "\n")
        size = 1 + max([*parts["model"]["vocab"].values()] + [e["id"] for e in parts["added_tokens"]])
        sums = [string_sum(library, s) for s in strings] + [ids_sum(library, i) for i in id_lists(size)]
        (folder / name / "golden.txt").write_text("".join("%08x\n" % s for s in sums))
        print(f"{name}: {size} ids, {len(strings)} strings")


if __name__ == "__main__":
    main()
