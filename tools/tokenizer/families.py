"""The components of real tokenizer.json files, by family: normalizer, pre-tokenizer, decoder, post-processor and the
options of the model, as those files state them. The vocabulary is added by whoever uses them."""

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN35 = (CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
DEEPSEEK3 = [
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
]
# Written with escapes: several of these letters change when a text is normalised.
DEEPSEEK_LETTERS = (
    "[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    "\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-"
    "\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec"
    "\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-"
    "\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3"
    "\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17"
    "\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-"
    "\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943]+")
DEEPSEEK_SIGNS = "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"
DEEPSEEK_HAN = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
GPT4O = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}


def byte_level(space=False, regex=True):
    return {"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": True, "use_regex": regex}


def sequence(key, parts):
    return {"type": "Sequence", key: parts}


def pre(*parts):
    return sequence("pretokenizers", list(parts))


def deepseek(*parts):
    return pre(split("[\r\n]"), *parts, {"type": "Digits", "individual_digits": True}, byte_level(regex=False))


BYTES = {"normalizer": None, "decoder": byte_level(space=True), "model": {}, "pairs": False}
NFC = {"type": "NFC"}
SPM_DECODER = sequence("decoders", [
    {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0}])
SPM_MODEL = {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}
SPACE_TO_MARK = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}


def metaspace(scheme, split_words):
    return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": split_words}


FAMILIES = {
    "gpt2": dict(BYTES, pre_tokenizer=byte_level()),
    "gpt2-space": dict(BYTES, pre_tokenizer=byte_level(space=True)),
    "neox": dict(BYTES, normalizer=NFC, pre_tokenizer=byte_level(), added="neox"),
    "llama3": dict(BYTES, pre_tokenizer=pre(split(LLAMA3), byte_level(regex=False)), model={"ignore_merges": True},
                   template="bos"),
    "qwen2": dict(BYTES, normalizer=NFC, pre_tokenizer=pre(split(QWEN2), byte_level(regex=False)), pairs=True),
    "qwen35": dict(BYTES, normalizer=NFC, pre_tokenizer=pre(split(QWEN35), byte_level(regex=False)), pairs=True),
    "deepseek3": dict(BYTES, normalizer=sequence("normalizers", []),
                      pre_tokenizer=pre(*[split(p) for p in DEEPSEEK3], byte_level(regex=False)), template="bos"),
    "deepseek-coder": dict(BYTES, normalizer=sequence("normalizers", []),
                           pre_tokenizer=deepseek(split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split(DEEPSEEK_HAN))),
    "deepseek-llm": dict(BYTES, normalizer=sequence("normalizers", []),
                         pre_tokenizer=deepseek(split(r"\s?" + DEEPSEEK_LETTERS),
                                                split(DEEPSEEK_SIGNS), split(r"\s+$"),
                                                split(DEEPSEEK_HAN))),
    "starcoder": dict(BYTES, pre_tokenizer=pre({"type": "Digits", "individual_digits": True}, byte_level())),
    "gpt4o": dict(BYTES, pre_tokenizer=pre(split(GPT4O), byte_level(regex=False)), template="both"),
    "llama2": {"normalizer": sequence("normalizers", [{"type": "Prepend", "prepend": "\u2581"}, SPACE_TO_MARK]),
               "pre_tokenizer": None, "decoder": SPM_DECODER, "model": SPM_MODEL, "template": "bos", "pairs": False},
    "mixtral": {"normalizer": None, "pre_tokenizer": metaspace("first", False), "decoder": SPM_DECODER,
                "model": SPM_MODEL, "template": "bos", "pairs": True},
    "metaspace": {"normalizer": None, "pre_tokenizer": metaspace("always", True), "decoder": metaspace("always", True),
                  "model": dict(SPM_MODEL, fuse_unk=False, byte_fallback=False), "template": "both", "pairs": True},
}


def post_processor(kind, ids):
    """`ids`: the id of each special token by its text."""
    if kind is None:
        return byte_level(space=True)
    names = ["<s>"] if kind == "bos" else ["<s>", "</s>"]
    single = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    if kind == "both":
        single.append({"SpecialToken": {"id": "</s>", "type_id": 0}})
    template = {"type": "TemplateProcessing", "single": single,
                "pair": single + [{"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {n: {"id": n, "ids": [ids[n]], "tokens": [n]} for n in names}}
    return sequence("processors", [byte_level(), template])
