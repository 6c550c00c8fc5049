#!/usr/bin/env python3
"""Train the demo model on one GPU for a given wall time.

    train.py --text DIR/text --tokenizer demo/model/tokenizer.json --out DIR --seconds 900

The learning rate falls to zero with the clock, so the run may be given any time. Writes config.json, two bf16 shards with
their index and train.json (the log) into --out, every --save-every seconds and at the end.
"""

import argparse
import json
import math
import os
import time

import numpy as np
import torch
from tokenizers import Tokenizer

import export
from corpus import DOMAINS, documents
from model import CONFIG, Model
from muon import Muon


def encode(tokenizer, texts, end):
    """uint16 token ids of all texts, each followed by the end token."""
    out = []
    for start in range(0, len(texts), 2048):
        for encoding in tokenizer.encode_batch_fast(texts[start:start + 2048], add_special_tokens=False):
            out.append(np.array(encoding.ids + [end], dtype=np.uint16))
    return out


def load_tokens(arguments, end):
    """One shuffled stream of training documents over all domains, and a short held-out stream per domain."""
    tokenizer = Tokenizer.from_file(arguments.tokenizer)
    train, heldout, sizes = [], {}, {}
    for domain in DOMAINS:
        texts = [text for _, text in documents(arguments.text, domain, "train")][:arguments.documents]
        encoded = encode(tokenizer, texts, end)
        train += encoded
        sizes[domain] = {"train_tokens": int(sum(map(len, encoded))), "train_bytes": sum(len(t.encode()) for t in texts)}
        texts = [text for _, text in documents(arguments.text, domain, "heldout")]
        stream = np.concatenate(encode(tokenizer, texts[:64], end))
        heldout[domain] = stream[:arguments.eval_rows * arguments.length + 1]
    order = np.random.default_rng(arguments.seed).permutation(len(train))
    return np.concatenate([train[i] for i in order]), heldout, sizes


class Windows:
    """Rows of length + 1 tokens; each epoch cuts the stream at another offset and in another order."""

    def __init__(self, tokens, length, rows, device, seed):
        self.tokens = torch.from_numpy(tokens.astype(np.int32)).to(device)
        self.length, self.rows, self.device, self.seed = length, rows, device, seed
        self.epoch, self.next, self.starts = -1, 0, None

    def batch(self):
        if self.starts is None or self.next + self.rows > len(self.starts):
            self.epoch, self.next = self.epoch + 1, 0
            generator = np.random.default_rng(self.seed + self.epoch)
            offset = int(generator.integers(self.length))
            starts = np.arange(offset, len(self.tokens) - self.length - 1, self.length)
            self.starts = torch.from_numpy(generator.permutation(starts)).to(self.device)
        starts = self.starts[self.next:self.next + self.rows]
        self.next += self.rows
        rows = self.tokens[starts[:, None] + torch.arange(self.length + 1, device=self.device)].long()
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def optimisers(model, arguments, on_gpu):
    c, matrices, rest = model.c, [], []
    for name, parameter in model.named_parameters():
        if "self_attn" in name and parameter.dim() == 2:
            matrices.append((parameter, 0, 1))
        elif ".mlp." in name and "router" not in name:
            matrices.append((parameter, 1 if "down_proj" in name else 0, c["num_experts"]))
        else:
            rest.append(parameter)
    adam = torch.optim.AdamW(rest, lr=arguments.adam_lr, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0, fused=on_gpu)
    return Muon(matrices, compile=on_gpu), adam


def rate(arguments, step, elapsed):
    """Warm-up by steps, then half a cosine by the clock: the fraction of the peak learning rate."""
    fraction = min(elapsed / arguments.seconds, 1.0)
    return min((step + 1) / arguments.warmup, 1.0) * 0.5 * (1 + math.cos(math.pi * fraction))


@torch.no_grad()
def evaluate(model, heldout, arguments, device):
    """Held-out loss by domain in nats per token; not compiled, its shapes are others."""
    out = {}
    for domain, stream in heldout.items():
        rows = (len(stream) - 1) // arguments.length
        tokens = torch.from_numpy(stream[:rows * arguments.length + 1].astype(np.int64)).to(device)
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = model(tokens[:-1].view(rows, -1), tokens[1:].view(rows, -1), compiled=False)[0]
        out[domain] = round(float(loss), 4)
    return out


def train(arguments):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(arguments.seed)
    torch.set_float32_matmul_precision("high")
    began = time.time()
    tokens, heldout, sizes = load_tokens(arguments, CONFIG["eos_token_id"])
    print("tokens %d, %.0f s to encode" % (len(tokens), time.time() - began), json.dumps(sizes), flush=True)
    model = Model(CONFIG).to(device)
    parameters = sum(p.numel() for p in model.parameters())
    print("parameters", parameters, flush=True)
    if device == "cuda":
        model.compile_parts()
    muon, adam = optimisers(model, arguments, device == "cuda")
    windows = Windows(tokens, arguments.length, arguments.rows, device, arguments.seed)
    log, step, clock = [], 0, Clock(arguments)
    while True:
        elapsed = clock.elapsed(step)
        if elapsed >= arguments.seconds:
            break
        factor = rate(arguments, step, elapsed)
        with torch.autocast(device, dtype=torch.bfloat16):
            loss, balance, z, load = model(*windows.batch())
        (loss + arguments.balance * balance + arguments.z * z).backward()
        adam.param_groups[0]["lr"] = arguments.adam_lr * factor
        torch.nn.utils.clip_grad_norm_(adam.param_groups[0]["params"], 1.0)
        adam.step()
        muon.step(arguments.lr * factor)
        model.zero_grad(set_to_none=True)
        step += 1
        if clock.due("log", step):
            log.append({"step": step, "seconds": round(elapsed, 1), "epoch": round(windows.epoch + windows.next / len(windows.starts), 2),
                        "loss": round(float(loss.detach()), 4), "balance": round(float(balance.detach()), 3), "z": round(float(z.detach()), 2),
                        "busiest": round(float((load / load.mean()).max()), 2), "idlest": round(float((load / load.mean()).min()), 3),
                        "million_tokens_per_s": round(step * arguments.rows * arguments.length / 1e6 / max(elapsed, 1e-9), 3)})
            if clock.due("eval", step):
                log[-1]["heldout"] = evaluate(model, heldout, arguments, device)
            print(json.dumps(log[-1]), flush=True)
        if clock.due("save", step):
            save(model, arguments, log, sizes, step, parameters)
    log.append({"step": step, "heldout": evaluate(model, heldout, arguments, device)})
    print(json.dumps(log[-1]), flush=True)
    save(model, arguments, log, sizes, step, parameters)


class Clock:
    """Training time without compilation (the first two steps), and what is due by it."""

    def __init__(self, arguments):
        self.every = {"log": arguments.log_every, "eval": arguments.eval_every, "save": arguments.save_every}
        self.last, self.start, self.now = dict.fromkeys(self.every, 0.0), None, 0.0

    def elapsed(self, step):
        if step < 2:
            return 0.0
        if self.start is None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.start = time.time()
        if step % 8 == 0 and torch.cuda.is_available():
            torch.cuda.synchronize()  # keeps the clock honest: launches run ahead
        self.now = time.time() - self.start
        return self.now

    def due(self, what, step):
        if self.now - self.last[what] < self.every[what]:
            return False
        self.last[what] = self.now
        return True


def save(model, arguments, log, sizes, step, parameters):
    export.write_model(model, CONFIG, arguments.out)
    report = {"steps": step, "tokens_seen": step * arguments.rows * arguments.length, "parameters": parameters,
              "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu", "torch": torch.__version__,
              "arguments": vars(arguments), "corpus": sizes, "log": log}
    with open(os.path.join(arguments.out, "train.json"), "w") as file:
        json.dump(report, file)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--text", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--adam-lr", type=float, default=3e-3)
    parser.add_argument("--warmup", type=int, default=200)
    parser.add_argument("--balance", type=float, default=0.005)
    parser.add_argument("--z", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log-every", type=float, default=10)
    parser.add_argument("--eval-every", type=float, default=60)
    parser.add_argument("--eval-rows", type=int, default=48)
    parser.add_argument("--save-every", type=float, default=120)
    parser.add_argument("--documents", type=int, default=None, help="only so many training documents per domain (a trial)")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
