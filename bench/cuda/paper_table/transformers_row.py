#!/usr/bin/env python3
"""One baseline row by Hugging Face transformers: random weights in bfloat16 on the device, eager experts where the version has the choice.

transformers_row.py mixtral|deepseek OUT. Prints the settings; writes OUT/<family>-transformers.row as paper_table does. Without torch,
transformers, a device, or the memory for the model it writes why.
"""
import inspect
import sys
import time

PREFILL, CONTEXT, STEPS, RUNS = 2048, 512, 64, 3


def save(path, figures, texts):
    with open(path, "w", encoding="utf-8") as file:
        for name, value in figures.items():
            file.write(f"number {name} {value:.9g}\n")
        for name, value in texts.items():
            file.write(f"text {name} {value}\n")


def median(values):
    return sorted(values)[len(values) // 2]


def main():
    family, out = sys.argv[1], sys.argv[2]
    path = f"{out}/{family}-transformers.row"
    try:
        import torch
        import transformers
    except ImportError as missing:
        save(path, {}, {"not_measured": f"{missing.name} is not installed"})
        return
    if not torch.cuda.is_available():
        save(path, {}, {"not_measured": "torch sees no CUDA device"})
        return
    if family == "mixtral":
        config = transformers.MixtralConfig(vocab_size=32000, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
                                            num_attention_heads=32, num_key_value_heads=8, num_local_experts=8, num_experts_per_tok=2,
                                            max_position_embeddings=32768, rope_theta=1e6)
        kind, needed = transformers.MixtralForCausalLM, 93.5e9
    else:
        save(path, {}, {"not_measured": "transformers has no class for DeepSeek-MoE version 1 without remote code"})
        return
    left, _ = torch.cuda.mem_get_info()
    if left < needed + 4e9:
        save(path, {}, {"not_measured": f"the model needs {needed / 1e9:.0f} GB, the device has {left / 1e9:.0f} GB free"})
        return
    if "experts_implementation" in inspect.signature(kind.from_pretrained).parameters or hasattr(config, "_experts_implementation"):
        config._experts_implementation = "eager"
    setting = f"transformers {transformers.__version__}, torch {torch.__version__}, " \
              f"experts_implementation {getattr(config, '_experts_implementation', 'eager (only one)')}, " \
              f"attention {getattr(config, '_attn_implementation', 'default')}"
    print(setting)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = kind(config).eval()
    figures, texts = {}, {"device": torch.cuda.get_device_name(), "setting": setting}

    def timed(run):
        times = []
        for i in range(RUNS + 1):
            torch.cuda.synchronize()
            begin = time.perf_counter()
            run()
            torch.cuda.synchronize()
            if i > 0:
                times.append(time.perf_counter() - begin)
        return median(times)

    with torch.inference_mode():
        prompt = torch.randint(0, config.vocab_size, (1, PREFILL), device="cuda")
        figures["prefill_seconds"] = timed(lambda: model(prompt, use_cache=True))
        for texts_at_once in (1, 8, 32):
            prompt = torch.randint(0, config.vocab_size, (texts_at_once, CONTEXT), device="cuda")

            def decode():
                state = model(prompt, use_cache=True)
                cache, token = state.past_key_values, state.logits[:, -1:].argmax(-1)
                torch.cuda.synchronize()
                begin = time.perf_counter()
                for _ in range(STEPS):
                    state = model(token, past_key_values=cache, use_cache=True)
                    cache, token = state.past_key_values, state.logits[:, -1:].argmax(-1)
                torch.cuda.synchronize()
                return (time.perf_counter() - begin) / STEPS

            decode()
            figures[f"decode_seconds_{texts_at_once}"] = median([decode() for _ in range(RUNS)])
            figures[f"memory_bytes_{texts_at_once}"] = torch.cuda.max_memory_allocated()
    save(path, figures, texts)


main()
