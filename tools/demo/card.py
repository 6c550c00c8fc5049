#!/usr/bin/env python3
"""Write the model card and demo/README.md from the reports of fetch_corpus.py, train.py and evaluate.py."""

import argparse
import json
import os

LICENCES = {
    "linux-source-6.1": "GPL-2.0 with syscall note", "libpython3.11-stdlib": "PSF", "python3-django": "BSD-3-Clause",
    "python3-twisted": "MIT", "python3-networkx": "BSD-3-Clause", "python3-sqlalchemy": "MIT", "python3-matplotlib": "PSF-like",
    "python3-sklearn": "BSD-3-Clause", "python3-numpy": "BSD-3-Clause", "python3-scipy": "BSD-3-Clause",
    "python3-pandas": "BSD-3-Clause", "python3-astropy": "BSD-3-Clause", "python3-sympy": "BSD-3-Clause",
    "rust-src": "MIT or Apache-2.0; vendored crates likewise free", "anarchism": "GPL-2.0", "gimp-help": "GFDL-1.2+, no invariant sections",
    "libreoffice-help": "MPL-2.0", "debian-handbook": "GPL-2.0+ or CC-BY-SA-3.0", "gnome-user-docs": "CC-BY-SA-3.0",
    "gnucash-docs": "GFDL-1.1+, no invariant sections", "installation-guide": "GPL-2.0", "debian-reference": "GPL-2.0+",
    "developers-reference": "GPL-2.0+", "debian-policy": "GPL-2.0+", "debian-faq": "GPL-2.0+", "kicad-doc": "GPL-3.0+ or CC-BY-3.0+",
    "aptitude-doc": "GPL-2.0+", "dict-jargon": "public domain", "postgresql-doc": "PostgreSQL", "python3.11-doc": "PSF",
    "git-doc": "GPL-2.0", "perl-doc": "GPL-1.0+ or Artistic", "manpages-de": "GPL-3.0+ and each page's own", "manpages-fr":
    "GPL-3.0+ and each page's own", "manpages-ja": "each page's own (free)", "manpages": "each page's own (free)", "manpages-dev": "each page's own (free)", "manpages-de-dev": "GPL-3.0+ and each page's own", "glibc-doc": "GFDL/GPL/LGPL",
    "apache2-doc": "Apache-2.0", "sqlite3-doc": "public domain", "octave-doc": "GPL-3.0+ and its manual's licence", "maxima-doc": "GPL-2.0+",
    "linux-doc": "GPL-2.0",
}
HEAD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
language: [en, de, fr, ja]
tags: [qwen3_moe, mixture-of-experts]
---

# The demo model

A small mixture of experts that is real: Qwen3-MoE, 8 layers, 32 experts in each, 4 of them for a token, {parameters} parameters
(about {active} used for a token), trained from nothing on text from Debian packages. It exists so that a serving system can be tried, tested and traced with
routing that training made, in a checkout and on a laptop. It writes what looks like C, Python, Rust, manuals and man pages; it knows nothing, and nothing
it says should be relied on.

| | |
|---|---|
| architecture | `Qwen3MoeForCausalLM`: hidden 256, 8 query and 4 key/value heads of 32, experts of width 48, norm_topk_prob, tied embeddings, RoPE theta 10,000 |
| context | 2,048 tokens |
| tokenizer | byte-level BPE, 4,096 entries, Qwen2's pre-tokenizer, NFC; `<|endoftext|>` (4095) ends a document. There is no chat template: it continues text |
| weights | bf16, two safetensors shards, {bytes} bytes |
| training | {steps} steps of {batch} tokens of rows of 2,048: {seen} tokens, {epochs} passes over {unique}; {minutes} minutes on one {device}; Muon for matrices (each expert's on its own), AdamW for the rest; bf16 compute, fp32 weights; balance loss 0.005 over whole batches (so that domains may prefer experts), router z-loss 1e-4 |
| scripts | `tools/demo/` |
"""


def licence(package):
    for length in range(len(package), 0, -1):
        if package[:length] in LICENCES:
            return LICENCES[package[:length]]
    raise KeyError(package)


def table(head, rows):
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head)] +
                     ["| " + " | ".join(str(x) for x in row) + " |" for row in rows]) + "\n"


def data_section(corpus):
    rows = []
    for domain, report in sorted(corpus["domains"].items(), key=lambda item: ORDER.index(item[0])):
        packages = ", ".join("%s (%s)" % (name, licence(name)) for name in report["train_bytes_by_package"])
        rows.append([domain, "%.1f" % (report["train"]["bytes"] / 1e6), report["train"]["documents"], report["heldout"]["documents"], packages])
    versions = ", ".join("%s %s" % item for item in sorted(corpus["packages"].items()))
    return ("## Data\n\nAll from Debian 12, package by package; HTML and roff became plain text, licence headers of sources and near-duplicate "
            "pages were dropped, files over 32 KB were cut. About 3 % of the files (by a hash of their text) were held out "
            "whole before the tokenizer and the model were trained; held-out pages that share more than a quarter of their lines with training text were dropped. "
            "Pages of one manual stand on both sides, so the figures below are for text of a known kind, not for unknown books.\n\n"
            + table(["domain", "MB", "documents", "held out", "packages, by size (licence; see each package's `copyright` file for authors and exact terms)"], rows)
            + "\nVersions: " + versions + ".\n")


def perplexity_section(evaluation, train):
    rows = [[d, "%.2f" % r["perplexity"], "%.3f" % r["bits_per_byte"], "%.2f" % r["bytes_per_token"], "{:,}".format(r["tokens"])]
            for d, r in evaluation["domains"].items()]
    return ("## Perplexity on held-out text\n\nBy transformers 5.17 on the H100, in float32 from these bf16 weights; rows of 2,048 tokens, no overlap. (On a CPU, transformers 5.23 gives the log-probabilities of `../reference` again to 2.3e-5.)\n\n"
            + table(["domain", "perplexity", "bits per byte", "bytes per token", "tokens"], rows) + "\n" + progress(train))


def progress(train):
    """Held-out loss as training went on, and which domains had seen their best before the end."""
    log = train["log"]
    log[-1].setdefault("seconds", train["arguments"]["seconds"])
    evaluated = [row for row in log if "heldout" in row]
    shown = [evaluated[i] for i in (0, 2, 4, 6, 8, 10, 12, len(evaluated) - 1) if i < len(evaluated)]
    past = []
    for domain in ORDER:
        best, last = min(row["heldout"][domain] for row in evaluated), evaluated[-1]["heldout"][domain]
        if last - best > 0.01:
            past.append("only %s ended %.3f above its lowest" % (domain, last - best))
    rows = [[d] + ["%.3f" % row["heldout"][d] for row in shown] for d in ORDER]
    return ("Held-out loss in nats per token during training, by minutes (another and smaller sample, bf16; only its course compares):\n\n"
            + table(["domain"] + ["%.0f" % (row["seconds"] / 60) for row in shown], rows)
            + "\nIt fell, ever more slowly, until the schedule ended; a longer run would gain a little"
            + ("; " + "; ".join(past) + ", where the model begins to learn packages by heart.\n" if past else ".\n"))


def routing_section(evaluation):
    layers = range(len(evaluation["overall_busiest_over_mean"]))
    rows = [["all, evenly"] + ["%.1f" % x for x in evaluation["overall_busiest_over_mean"]]]
    rows += [[d] + ["%.1f" % x for x in evaluation["domains"][d]["busiest_over_mean"]] for d in ORDER]
    favourites = [[d] + [" ".join(map(str, evaluation["domains"][d]["favourites"][layer])) for layer in layers] for d in ORDER]
    like = evaluation["likeness"]
    head = ["domain"] + ["layer %d" % layer for layer in layers]
    return ("## Routing\n\nThe busiest expert's load over the mean, by layer: within one domain, and over all domains in equal parts.\n\n" + table(head, rows)
            + "\nThe idlest expert over the mean, all domains evenly: " + ", ".join("%.2f" % x for x in evaluation["overall_idlest_over_mean"])
            + " (layers 0 to %d).\n\nThe four experts that each domain uses most:\n\n" % layers[-1] + table(head, favourites)
            + "\nHow alike the domains' loads are (cosine, mean over layers; 1 would mean that routing does not see the domain):\n\n"
            + table([""] + ORDER, [[a] + ["%.2f" % like[a][b] for b in ORDER] for a in ORDER])
            + "\nShare of a token's experts that the next token uses again (chance: 0.125 when even): "
            + ", ".join("%s %.2f" % (d, evaluation["domains"][d]["next_token_keeps_expert"]) for d in ORDER)
            + ".\n\nLoad of every expert, per mille of a domain's tokens and slots: `../load.json`.\n")


def samples_section(evaluation):
    out = ["## What it writes\n\nTemperature 0.7, top-p 0.9, seed 1, 80 tokens, after the last 200 characters or so of a held-out prompt; the bar marks where the model begins. One a domain, not chosen. Greedily it soon repeats itself.\n"]
    for domain in ORDER:
        sample = evaluation["continuations"][domain]
        text = sample["prompt"][-200:] + "▌" + sample["continuation"]
        out.append("**%s**\n\n````\n%s\n````\n" % (domain, text.replace("````", "'''")))
    return "\n".join(out)


def head_section(train, folder):
    arguments = train["arguments"]
    batch = arguments["rows"] * arguments["length"]
    unique = sum(d["train_tokens"] for d in train["corpus"].values())
    size = sum(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder) if name.endswith(".safetensors"))
    values = {"parameters": "{:,}".format(train["parameters"]), "active": "%.1f million" % ((train["parameters"] - 8 * 28 * 3 * 256 * 48) / 1e6),
              "bytes": "{:,}".format(size), "steps": "{:,}".format(train["steps"]), "batch": "{:,}".format(batch),
              "seen": "%.2f billion" % (train["tokens_seen"] / 1e9), "epochs": "%.1f" % (train["tokens_seen"] / unique),
              "unique": "%.0f million" % (unique / 1e6), "minutes": "%.0f" % (arguments["seconds"] / 60), "device": train["device"]}
    text = HEAD
    for key, value in values.items():
        text = text.replace("{%s}" % key, value)
    return text


def main():
    global ORDER
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("train", "evaluation", "corpus", "demo"):
        parser.add_argument("--" + name, required=True)
    arguments = parser.parse_args()
    train, evaluation, corpus = (json.load(open(path)) for path in (arguments.train, arguments.evaluation, arguments.corpus))
    ORDER = list(evaluation["domains"])
    folder = os.path.join(arguments.demo, "model")
    licence_section = (
        "## Licence\n\nThe weights, as far as those who trained them can grant it: Apache-2.0. They were made from the texts above, each under its own free licence; "
        "whether weights are bound by the licences of their training text is not settled, and this card names them so that you can judge. A model this "
        "small that saw its text fifteen times can repeat pieces of it. The prompts beside it (`../prompts`) are excerpts of the held-out files, each "
        "line naming its package and file, under that package's licence.\n")
    with open(os.path.join(folder, "README.md"), "w") as file:
        file.write("\n".join([head_section(train, folder), data_section(corpus), perplexity_section(evaluation, train), routing_section(evaluation),
                              samples_section(evaluation), licence_section]))
    with open(os.path.join(arguments.demo, "load.json"), "w") as file:
        loads = {d: evaluation["domains"][d]["load_per_mille"] for d in ORDER}
        file.write("{\n" + ",\n".join('"%s": [\n%s]' % (d, ",\n".join(" " + json.dumps(row) for row in rows)) for d, rows in loads.items()) + "\n}\n")


if __name__ == "__main__":
    main()
