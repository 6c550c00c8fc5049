"""Write a model as a Hugging Face directory: config, generation config, two bf16 shards and their index."""

import json
import os

from safetensors.torch import save_file

from model import hub_tensors


def write_json(path, value):
    with open(path, "w") as file:
        json.dump(value, file, indent=2)
        file.write("\n")


def in_two(tensors):
    """The tensors in their order, cut where the first half of the bytes is full."""
    half, size, shards = sum(t.nbytes for t in tensors.values()) / 2, 0, ({}, {})
    for name, tensor in tensors.items():
        shards[size >= half][name] = tensor
        size += tensor.nbytes
    return shards


def write_model(model, config, folder):
    os.makedirs(folder, exist_ok=True)
    tensors = hub_tensors(model)
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": {}}
    for number, shard in enumerate(in_two(tensors), 1):
        name = "model-%05d-of-00002.safetensors" % number
        save_file(shard, os.path.join(folder, name), metadata={"format": "pt"})
        index["weight_map"].update(dict.fromkeys(sorted(shard), name))
    write_json(os.path.join(folder, "model.safetensors.index.json"), index)
    write_json(os.path.join(folder, "config.json"), config)
    write_json(os.path.join(folder, "generation_config.json"), {
        "do_sample": True, "temperature": 0.7, "top_p": 0.9, "eos_token_id": config["eos_token_id"],
        "pad_token_id": config["eos_token_id"], "max_new_tokens": 256})
