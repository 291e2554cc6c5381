#!/usr/bin/env python3
"""Writes tests/data/tiny-deepseek: a tiny random DeepSeek-MoE (v1) checkpoint and golden numbers in float64.

Independent of the library: the forward pass below is written from the paper (arXiv 2401.06066, equations 9 to 11) and
the names of Hugging Face checkpoints, token by token, with numpy. Run: python3 deepseek_golden.py OUTPUT_FOLDER
"""
import json
import struct
import sys
from pathlib import Path

import numpy as np

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, VOCABULARY = 32, 3, 4, 2, 8, 64
EXPERTS, TOP_K, SHARED, WIDTH, DENSE_WIDTH = 8, 3, 2, 16, 48
THETA, EPSILON, TOKENS = 10000.0, 1e-6, 24

CONFIG = {
    "architectures": ["DeepseekForCausalLM"],
    "model_type": "deepseek",
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": DENSE_WIDTH,
    "moe_intermediate_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "n_routed_experts": EXPERTS,
    "n_shared_experts": SHARED,
    "num_experts_per_tok": TOP_K,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "norm_topk_prob": False,
    "scoring_func": "softmax",
    "hidden_act": "silu",
    "max_position_embeddings": 128,
    "rms_norm_eps": EPSILON,
    "rope_theta": THETA,
    "rope_scaling": None,
    "attention_bias": False,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


def to_bfloat16(values):
    """Rounds to nearest even; returns the 16-bit patterns and the exact values as float64."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    stored = bits.astype(np.uint16)
    return stored, (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def make_weights():
    random = np.random.Generator(np.random.PCG64(20240111))
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for i in range(LAYERS):
        layer = f"model.layers.{i}."
        shapes[layer + "input_layernorm.weight"] = (HIDDEN,)
        shapes[layer + "self_attn.q_proj.weight"] = (HEADS * HEAD_DIM, HIDDEN)
        shapes[layer + "self_attn.k_proj.weight"] = (KV_HEADS * HEAD_DIM, HIDDEN)
        shapes[layer + "self_attn.v_proj.weight"] = (KV_HEADS * HEAD_DIM, HIDDEN)
        shapes[layer + "self_attn.o_proj.weight"] = (HIDDEN, HEADS * HEAD_DIM)
        shapes[layer + "post_attention_layernorm.weight"] = (HIDDEN,)
        mlps = {"mlp.": DENSE_WIDTH}
        if i >= 1:
            shapes[layer + "mlp.gate.weight"] = (EXPERTS, HIDDEN)
            mlps = {f"mlp.experts.{e}.": WIDTH for e in range(EXPERTS)}
            mlps["mlp.shared_experts."] = SHARED * WIDTH
        for name, width in mlps.items():
            shapes[layer + name + "gate_proj.weight"] = (width, HIDDEN)
            shapes[layer + name + "up_proj.weight"] = (width, HIDDEN)
            shapes[layer + name + "down_proj.weight"] = (HIDDEN, width)
    shapes["model.norm.weight"] = (HIDDEN,)
    shapes["lm_head.weight"] = (VOCABULARY, HIDDEN)

    stored, values = {}, {}
    for name, shape in shapes.items():
        drawn = random.standard_normal(shape)
        drawn = 1 + 0.2 * drawn if len(shape) == 1 else drawn * (1.6 / np.sqrt(shape[1]))
        if name.endswith("mlp.gate.weight"):  # one tensor kind in float32, so that types are mixed
            stored[name] = drawn.astype(np.float32)
            values[name] = stored[name].astype(np.float64)
        else:
            stored[name], values[name] = to_bfloat16(drawn)
    return stored, values


def norm(x, weight):
    return weight * x / np.sqrt(np.mean(x * x) + EPSILON)


def mlp(x, values, prefix):
    gate = values[prefix + "gate_proj.weight"] @ x
    up = values[prefix + "up_proj.weight"] @ x
    return values[prefix + "down_proj.weight"] @ (gate / (1 + np.exp(-gate)) * up)


def rotate(head, position):
    out = np.empty_like(head)
    half = HEAD_DIM // 2
    for j in range(half):
        angle = position * THETA ** (-2.0 * j / HEAD_DIM)
        out[j] = head[j] * np.cos(angle) - head[j + half] * np.sin(angle)
        out[j + half] = head[j + half] * np.cos(angle) + head[j] * np.sin(angle)
    return out


def forward(values, ids):
    states = [values["model.embed_tokens.weight"][i].copy() for i in ids]
    chosen, weights = [], []
    for i in range(LAYERS):
        layer = f"model.layers.{i}."
        queries, keys, vectors = [], [], []
        for t, x in enumerate(states):
            n = norm(x, values[layer + "input_layernorm.weight"])
            q = (values[layer + "self_attn.q_proj.weight"] @ n).reshape(HEADS, HEAD_DIM)
            k = (values[layer + "self_attn.k_proj.weight"] @ n).reshape(KV_HEADS, HEAD_DIM)
            queries.append([rotate(h, t) for h in q])
            keys.append([rotate(h, t) for h in k])
            vectors.append((values[layer + "self_attn.v_proj.weight"] @ n).reshape(KV_HEADS, HEAD_DIM))
        for t in range(len(states)):
            context = []
            for h in range(HEADS):
                g = h // (HEADS // KV_HEADS)
                scores = np.array([queries[t][h] @ keys[s][g] for s in range(t + 1)]) / np.sqrt(HEAD_DIM)
                p = np.exp(scores - scores.max())
                p /= p.sum()
                context.append(sum(p[s] * vectors[s][g] for s in range(t + 1)))
            states[t] = states[t] + values[layer + "self_attn.o_proj.weight"] @ np.concatenate(context)
        layer_chosen, layer_weights = [], []
        for t in range(len(states)):
            n = norm(states[t], values[layer + "post_attention_layernorm.weight"])
            if i < 1:
                states[t] = states[t] + mlp(n, values, layer + "mlp.")
                continue
            logits = values[layer + "mlp.gate.weight"] @ n
            p = np.exp(logits - logits.max())
            p /= p.sum()
            order = sorted(range(EXPERTS), key=lambda e: (-p[e], e))[:TOP_K]
            y = mlp(n, values, layer + "mlp.shared_experts.")
            for e in order:
                y = y + p[e] * mlp(n, values, f"{layer}mlp.experts.{e}.")
            states[t] = states[t] + y
            layer_chosen.append(order)
            layer_weights.append([float(p[e]) for e in order])
        chosen.append(layer_chosen)
        weights.append(layer_weights)
    logits = [values["lm_head.weight"] @ norm(x, values["model.norm.weight"]) for x in states]
    return np.array(logits), chosen, weights, np.array(states)


def write_shard(path, tensors):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name in sorted(tensors, key=lambda n: (tensors[n].dtype != np.float32, n)):
        data = tensors[name]
        kind = "F32" if data.dtype == np.float32 else "BF16"
        header[name] = {"dtype": kind, "shape": list(data.shape), "data_offsets": [offset, offset + data.nbytes]}
        offset += data.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in header:
            if name != "__metadata__":
                file.write(tensors[name].tobytes())
    return offset


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    stored, values = make_weights()
    ids = [int(i) for i in np.random.Generator(np.random.PCG64(7)).integers(0, VOCABULARY, TOKENS)]
    logits, chosen, weights, states = forward(values, ids)

    names = list(stored)
    half = next(k for k, name in enumerate(names) if name.startswith("model.layers.2."))
    weight_map, total = {}, 0
    for number, part in enumerate([names[:half], names[half:]], start=1):
        shard = f"model-{number:05d}-of-00002.safetensors"
        total += write_shard(out / shard, {name: stored[name] for name in part})
        weight_map.update({name: shard for name in part})
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    (out / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    golden = {
        "ids": ids,
        "logits": [[round(float(v), 9) for v in row] for row in logits],
        "last_state": [round(float(v), 9) for v in states[-1]],
        "experts": chosen,
        "weights": [[[round(v, 9) for v in token] for token in layer] for layer in weights],
    }
    (out / "golden.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
