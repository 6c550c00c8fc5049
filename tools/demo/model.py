"""Qwen3-MoE for training: the same function as transformers' Qwen3MoeForCausalLM, shaped for one large GPU.

Every expert computes every token and the router's weights (zero for all but the top k) are applied before the down
projection. At 32 experts of width 48 three large matrix products are faster than sorting tokens, drop nothing, and give
the exact gradient.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

CONFIG = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "vocab_size": 4096, "hidden_size": 256,
    "intermediate_size": 192, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 32,
    "num_experts": 32, "num_experts_per_tok": 4, "moe_intermediate_size": 48, "norm_topk_prob": True,
    "decoder_sparse_step": 1, "mlp_only_layers": [], "hidden_act": "silu", "attention_bias": False, "attention_dropout": 0.0,
    "max_position_embeddings": 2048, "rope_theta": 10000.0, "rope_scaling": None, "rms_norm_eps": 1e-06,
    "tie_word_embeddings": True, "use_sliding_window": False, "sliding_window": None, "output_router_logits": False,
    "router_aux_loss_coef": 0.005, "initializer_range": 0.02, "use_cache": True, "eos_token_id": 4095,
    "torch_dtype": "bfloat16",
}


class Norm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x):
        return F.rms_norm(x.float(), (x.shape[-1],), self.weight, self.eps).to(x.dtype)


def rotary(length, head_dim, theta):
    frequency = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * frequency[None]
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos().float(), angle.sin().float()


def rotate(x, cos, sin):
    first, second = x.chunk(2, dim=-1)
    return (x.float() * cos + torch.cat([-second, first], dim=-1).float() * sin).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        wide, narrow = self.heads * self.head_dim, self.kv_heads * self.head_dim
        self.q_proj = nn.Linear(c["hidden_size"], wide, bias=False)
        self.k_proj = nn.Linear(c["hidden_size"], narrow, bias=False)
        self.v_proj = nn.Linear(c["hidden_size"], narrow, bias=False)
        self.o_proj = nn.Linear(wide, c["hidden_size"], bias=False)
        self.q_norm, self.k_norm = Norm(self.head_dim, c["rms_norm_eps"]), Norm(self.head_dim, c["rms_norm_eps"])

    def forward(self, x, cos, sin):
        batch, length, _ = x.shape

        def split(y):
            return y.view(batch, length, -1, self.head_dim)
        q = rotate(self.q_norm(split(self.q_proj(x))).transpose(1, 2), cos, sin)
        k = rotate(self.k_norm(split(self.k_proj(x))).transpose(1, 2), cos, sin)
        v = split(self.v_proj(x)).transpose(1, 2)
        repeat = self.heads // self.kv_heads
        k, v = k.repeat_interleave(repeat, dim=1), v.repeat_interleave(repeat, dim=1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(batch, length, -1))


class Experts(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.count, self.top_k, self.width = c["num_experts"], c["num_experts_per_tok"], c["moe_intermediate_size"]
        hidden, wide = c["hidden_size"], c["num_experts"] * c["moe_intermediate_size"]
        self.router = nn.Linear(hidden, self.count, bias=False)
        self.gate_proj = nn.Linear(hidden, wide, bias=False)
        self.up_proj = nn.Linear(hidden, wide, bias=False)
        self.down_proj = nn.Linear(wide, hidden, bias=False)

    def forward(self, x):
        """Returns the layer's output, the balance loss (1 when even) and the router's z loss."""
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(x.float(), self.router.weight.float())
        probability = logits.softmax(-1)
        top, chosen = probability.topk(self.top_k, dim=-1)
        weights = torch.zeros_like(probability).scatter(-1, chosen, top / top.sum(-1, keepdim=True))
        used = torch.zeros_like(probability).scatter(-1, chosen, 1.0)
        batch, length, _ = x.shape
        inner = F.silu(self.gate_proj(x)) * self.up_proj(x)
        inner = inner.view(batch, length, self.count, self.width) * weights.to(inner.dtype).unsqueeze(-1)
        out = self.down_proj(inner.reshape(batch, length, -1))
        balance = self.count / self.top_k * (used.mean((0, 1)).detach() * probability.mean((0, 1))).sum()
        return out, balance, logits.logsumexp(-1).square().mean(), used.sum((0, 1))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_norm, self.self_attn = Norm(c["hidden_size"], c["rms_norm_eps"]), Attention(c)
        self.post_norm, self.mlp = Norm(c["hidden_size"], c["rms_norm_eps"]), Experts(c)

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_norm(x), cos, sin)
        y, balance, z, load = self.mlp(self.post_norm(x))
        return x + y, balance, z, load


def head_loss(norm, embedding, x, targets):
    logits = F.linear(norm(x), embedding)
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c, self.run_layer, self.run_head = c, Layer.forward, head_loss
        self.embed = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.norm = Norm(c["hidden_size"], c["rms_norm_eps"])
        cos, sin = rotary(c["max_position_embeddings"], c["head_dim"], c["rope_theta"])
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                scale = 0.02
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    scale /= math.sqrt(2 * c["num_hidden_layers"])
                nn.init.normal_(parameter, std=scale)

    def compile_parts(self):
        """One layer is compiled and serves all: seconds, where the whole model takes minutes."""
        self.run_layer, self.run_head = torch.compile(Layer.forward), torch.compile(head_loss)

    def forward(self, tokens, targets, compiled=True):
        """Mean next-token loss in nats, mean balance loss and z loss over layers, load [layers, experts]."""
        length = tokens.shape[1]
        x = self.embed(tokens)
        balances, zs, loads = [], [], []
        run_layer, run_head = (self.run_layer, self.run_head) if compiled else (Layer.forward, head_loss)
        for layer in self.layers:
            x, balance, z, load = run_layer(layer, x, self.cos[:length], self.sin[:length])
            balances.append(balance)
            zs.append(z)
            loads.append(load)
        loss = run_head(self.norm, self.embed.weight, x, targets)
        return loss, torch.stack(balances).mean(), torch.stack(zs).mean(), torch.stack(loads)


def hub_tensors(model):
    """Tensors in bf16 under the names of Hugging Face's hub, layer by layer."""
    c, out = model.c, {"model.embed_tokens.weight": model.embed.weight}
    width = c["moe_intermediate_size"]
    for number, layer in enumerate(model.layers):
        base = "model.layers.%d." % number
        out[base + "input_layernorm.weight"] = layer.input_norm.weight
        out[base + "post_attention_layernorm.weight"] = layer.post_norm.weight
        for name in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm"):
            out[base + "self_attn.%s.weight" % name] = getattr(layer.self_attn, name).weight
        out[base + "mlp.gate.weight"] = layer.mlp.router.weight
        for expert in range(c["num_experts"]):
            rows = slice(expert * width, (expert + 1) * width)
            name = base + "mlp.experts.%d." % expert
            out[name + "gate_proj.weight"] = layer.mlp.gate_proj.weight[rows]
            out[name + "up_proj.weight"] = layer.mlp.up_proj.weight[rows]
            out[name + "down_proj.weight"] = layer.mlp.down_proj.weight[:, rows]
    out["model.norm.weight"] = model.norm.weight
    return {name: tensor.detach().to(torch.bfloat16).cpu().contiguous() for name, tensor in out.items()}
