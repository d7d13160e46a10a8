"""Latency of a batch in Hugging Face transformers, with random weights of a shape: the fields of `bun bench latency` that both have.

python3 transformers_latency.py FOLDER --batch-size 1 --input-len 32 --output-len 64 --output-json FILE
"""

import argparse
import json
import statistics
import time

import torch
import transformers


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--input-len", type=int, default=32)
    parser.add_argument("--output-len", type=int, default=64)
    parser.add_argument("--num-iters", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--output-json", required=True)
    return parser.parse_args()


def main():
    args = parse()
    config = transformers.AutoConfig.from_pretrained(args.folder)
    with torch.device(args.device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.eval()
    prompts = torch.randint(0, config.vocab_size, (args.batch_size, args.input_len), device=args.device)

    def seconds(tokens):
        if args.device == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=False,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            pad_token_id=0,
        )
        if args.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    with torch.inference_mode():
        seconds(2)
        prefill = statistics.median(seconds(1) for _ in range(args.num_iters))
        latencies = [seconds(args.output_len) for _ in range(args.num_iters)]
    total = statistics.median(latencies)
    figures = {
        "peer": f"transformers {transformers.__version__}, torch {torch.__version__}",
        "batch_size": args.batch_size,
        "input_len": args.input_len,
        "output_len": args.output_len,
        "avg_latency": statistics.mean(latencies),
        "latencies": latencies,
        "prefill_tokens_per_s": args.batch_size * args.input_len / prefill,
        "decode_tokens_per_s": args.batch_size * (args.output_len - 1) / (total - prefill),
    }
    with open(args.output_json, "w") as file:
        json.dump(figures, file)
    print(json.dumps(figures, indent=2))


main()
