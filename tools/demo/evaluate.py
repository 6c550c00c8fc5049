#!/usr/bin/env python3
"""Evaluate the demo model with transformers itself, in float32 from the bf16 weights, on held-out text.

    evaluate.py --model demo/model --text DIR/text --demo demo [--report evaluation.json]

Writes demo/prompts/<domain>.{fit,heldout}.jsonl, demo/reference/{prompts,score}.jsonl and a report with perplexity and
routing load per domain, which card.py turns into the tables of the model card.
"""

import argparse
import hashlib
import json
import math
import os
import random

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from corpus import DOMAINS, documents

PROMPTS = 64
SHORTEST, LONGEST = 64, 512


def by_file(folder, domain):
    """Held-out documents grouped by the file they come from, in hash order."""
    files = {}
    for source, text in documents(folder, domain, "heldout"):
        files.setdefault(source.split("#")[0], []).append((source, text))
    return sorted(files.items(), key=lambda item: hashlib.sha256(item[0].encode()).digest())


def excerpt(tokenizer, text, generator):
    """A stretch of SHORTEST to LONGEST tokens that begins at the start of a line, or None."""
    lines = text.split("\n")
    begin = generator.randrange(max(1, len(lines) * 3 // 4))
    ids = tokenizer("\n".join(lines[begin:]).lstrip("\n"), add_special_tokens=False)["input_ids"]
    wanted = generator.randint(SHORTEST, LONGEST)
    if len(ids) < wanted:
        return None
    out = tokenizer.decode(ids[:wanted])
    return None if "\ufffd" in out else out


def prompts_of(tokenizer, files, seed):
    """PROMPTS excerpts, taken from the files in turn."""
    generator, out, seen = random.Random(seed), [], set()
    for _ in range(200):
        for _, pieces in files:
            source, text = generator.choice(pieces)
            found = excerpt(tokenizer, text, generator)
            if found and found not in seen:
                seen.add(found)
                out.append({"text": found, "source": source})
            if len(out) == PROMPTS:
                return out
    return out


def write_lines(path, rows):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def rows_of(tokenizer, texts, length, limit):
    """Held-out documents, each ended by the end token, in rows of `length`; and the bytes they stand for."""
    ids, size = [], 0
    for text in texts:
        ids += tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        size += len(text.encode())
        if len(ids) > limit:
            break
    rows = min(limit, len(ids)) // length
    return torch.tensor(ids[:rows * length]).view(rows, length), size / len(ids)


@torch.no_grad()
def measure(model, rows, top_k):
    """Sum of -log p over predicted tokens, their number, load [layers, experts] and repeats of an expert in the next token."""
    nats, count, load, repeats = 0.0, 0, 0, 0
    for row in rows.to(model.device).split(1):
        out = model(row, output_router_logits=True)
        logp = out.logits[:, :-1].float().log_softmax(-1)
        nats -= float(logp.gather(-1, row[:, 1:, None]).sum())
        count += row.numel() - 1
        chosen = torch.stack([logits.view(-1, logits.shape[-1]).topk(top_k, -1).indices for logits in out.router_logits])
        used = torch.zeros(*chosen.shape[:2], model.config.num_experts, device=chosen.device).scatter(-1, chosen, 1.0)
        load = load + used.sum(1)
        repeats += float((used[:, 1:] * used[:, :-1]).sum() / used.shape[0] / top_k)
    return {"nats": nats / count, "tokens": count, "load": load.double().cpu(), "repeat": repeats / count}


@torch.no_grad()
def reference(model, tokenizer, prompts):
    inputs, scores = [], []
    for prompt in prompts:
        tokens = tokenizer(prompt["text"], add_special_tokens=False)["input_ids"]
        logp = model(torch.tensor([tokens])).logits[0].float().log_softmax(-1)
        picked = logp[:-1].gather(-1, torch.tensor(tokens[1:])[:, None])[:, 0].tolist()
        inputs.append({"tokens": tokens})
        scores.append({"tokens": tokens, "logprobs": [None] + [round(value, 7) for value in picked], "top1": logp.argmax(-1).tolist()})
    return inputs, scores


def likeness(loads):
    """Mean over layers of the cosine between two domains' loads."""
    flat = {name: load / load.norm(dim=1, keepdim=True) for name, load in loads.items()}
    return {a: {b: round(float((flat[a] * flat[b]).sum(1).mean()), 3) for b in flat} for a in flat}


def summary(name, result, rows, bytes_per_token):
    load = result["load"] / result["load"].sum(1, keepdim=True)
    bits = result["nats"] / math.log(2)
    return {"perplexity": round(math.exp(result["nats"]), 3), "nats_per_token": round(result["nats"], 4),
            "bits_per_byte": round(bits / bytes_per_token, 4), "bytes_per_token": round(bytes_per_token, 3), "tokens": result["tokens"],
            "busiest_over_mean": [round(float(x), 2) for x in load.max(1).values * load.shape[1]],
            "favourites": [load[layer].topk(4).indices.tolist() for layer in range(len(load))],
            "next_token_keeps_expert": round(result["repeat"], 3),
            "load_per_mille": [[round(float(x) * 1000, 1) for x in row] for row in load]}


def continuations(model, tokenizer, texts):
    """80 tokens after each text by the model's own generation config (temperature 0.7, top-p 0.9), seed 1."""
    out = {}
    for domain, text in texts.items():
        torch.manual_seed(1)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"][:, :96].to(model.device)
        made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=80)
        out[domain] = {"prompt": tokenizer.decode(ids[0]), "continuation": tokenizer.decode(made[0, ids.shape[1]:])}
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--demo", required=True)
    parser.add_argument("--report", default="evaluation.json")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tokens", type=int, default=122880, help="held-out tokens per domain at most")
    arguments = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval().to(arguments.device)
    length, top_k = model.config.max_position_embeddings, model.config.num_experts_per_tok
    report, loads, chosen = {"domains": {}}, {}, {}
    for number, domain in enumerate(DOMAINS):
        files = by_file(arguments.text, domain)
        for offset, name in enumerate(("fit", "heldout")):
            rows = prompts_of(tokenizer, files[offset::2], 100 * number + offset)
            write_lines(os.path.join(arguments.demo, "prompts", "%s.%s.jsonl" % (domain, name)), rows)
        chosen[domain] = min(rows, key=lambda row: abs(len(row["text"]) - 500))
        rows, bytes_per_token = rows_of(tokenizer, [text for _, pieces in files for _, text in pieces], length, arguments.tokens)
        result = measure(model, rows, top_k)
        loads[domain] = result["load"]
        report["domains"][domain] = summary(domain, result, rows, bytes_per_token)
        print(domain, {k: v for k, v in report["domains"][domain].items() if k != "load_per_mille"}, flush=True)
    even = sum(load / load.sum() for load in loads.values())
    even = even / even.sum(1, keepdim=True)
    report["overall_busiest_over_mean"] = [round(float(x), 2) for x in even.max(1).values * even.shape[1]]
    report["overall_idlest_over_mean"] = [round(float(x), 2) for x in even.min(1).values * even.shape[1]]
    report["likeness"] = likeness(loads)
    report["continuations"] = continuations(model, tokenizer, {name: row["text"] for name, row in chosen.items()})
    inputs, scores = reference(model.cpu(), tokenizer, list(chosen.values()))
    write_lines(os.path.join(arguments.demo, "reference", "prompts.jsonl"), inputs)
    write_lines(os.path.join(arguments.demo, "reference", "score.jsonl"), scores)
    with open(arguments.report, "w") as file:
        json.dump(report, file, ensure_ascii=False)


if __name__ == "__main__":
    main()
