"""Learns a small model of bytes on a GPU with PyTorch: it stands for a trainer that a user has already.

Without a GPU it fails. Notes beside the model when it had which GPU, for those who check that no other had it meanwhile.
"""

import argparse
import json
import os
import pathlib
import sys
import time

import torch
from safetensors.torch import save_file

VOCABULARY, WIDTH, CONTEXT, BATCH = 256, 256, 128, 64


class Bytes(torch.nn.Module):
    """Two layers of causal attention."""

    def __init__(self):
        super().__init__()
        self.tokens = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.places = torch.nn.Embedding(CONTEXT, WIDTH)
        layer = torch.nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
        self.body = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = torch.nn.Linear(WIDTH, VOCABULARY)

    def forward(self, ids):
        mask = torch.nn.Transformer.generate_square_subsequent_mask(ids.shape[1], device=ids.device)
        places = torch.arange(ids.shape[1], device=ids.device)
        return self.head(self.body(self.tokens(ids) + self.places(places), mask=mask, is_causal=True))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--notes", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no GPU was given")
    began = time.time()
    torch.manual_seed(args.seed)
    rows = [json.loads(line) for line in open(args.data, encoding="utf-8")]
    text = "\n".join(turn["content"] for row in rows for turn in row["messages"])
    data = torch.tensor(list(text.encode()), device="cuda")
    model = Bytes().cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
    for step in range(1, args.steps + 1):
        starts = torch.randint(len(data) - CONTEXT - 1, (BATCH,), device="cuda")
        window = data[starts[:, None] + torch.arange(CONTEXT + 1, device="cuda")]
        logits = model(window[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0 or step == args.steps:
            print("LLMFLOW", json.dumps({"progress": [step, args.steps, "steps"]}), flush=True)
            print("LLMFLOW", json.dumps({"metric": ["loss", loss.item(), step]}), flush=True)
    save_file({name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}, args.out / "model.safetensors")
    config = {"architectures": ["Bytes"], "vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "dtype": "float32"}
    (args.out / "config.json").write_text(json.dumps(config))
    notes = {
        "began": began,
        "ended": time.time(),
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "gpus": [torch.cuda.get_device_name(ordinal) for ordinal in range(torch.cuda.device_count())],
        "peak_bytes": torch.cuda.max_memory_allocated(),
    }
    (args.notes / "notes.json").write_text(json.dumps(notes))


main()
