"""transformers loads the folders that LLMflow writes, and computes the same with them."""

import gzip
import json
import os
from pathlib import Path

import numpy
from common import MADE, finish, open_in_transformers, our_logits, ours, tell, texts, tokenizer, torch_logits

ids = texts()
for name in ["base", "merged"]:
    model = open_in_transformers(MADE / name)
    difference = numpy.abs(torch_logits(model, ids) - our_logits(MADE / name, ids)).max()
    tell(f"{name} folder, logits in transformers", difference < 1e-3, f"largest difference {difference:.2e}")

encoder = tokenizer()
chat = [{"role": "user", "content": "What is the capital of France?"}]
prompt = encoder.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
base = open_in_transformers(MADE / "base")
answer = base.generate(**prompt, max_new_tokens=20, do_sample=False)[0, prompt["input_ids"].shape[1] :].tolist()
said = encoder.decode(answer, skip_special_tokens=True)
tell("chat template and end token in transformers", answer == [504, 3575, 282, 4649, 314, 7042, 30, 2], repr(said))

shared = Path(os.environ.get("LLMFLOW_SHARED_DATA", ""), "perplexity/wikitext-2-valid.txt.gz")
if shared.is_file():
    import torch

    text = gzip.open(shared, "rt", encoding="utf-8").read()[:60_000]
    tokens = encoder.encode(text, add_special_tokens=False)
    windows = [tokens[start : start + 1024] for start in range(0, 8192, 1024)]
    losses = []
    with torch.no_grad():
        for window in windows:
            window = torch.tensor([window])
            losses.append(base(window, labels=window).loss.item())
    theirs = sum(losses) / len(losses)
    request = MADE / "windows.json"
    request.write_text(json.dumps(windows))
    own = float(ours("nll", MADE / "base", request))
    # 2.78771: an independent float32 forward pass over the same 8 windows of 1,024 tokens.
    holds = abs(theirs - 2.78771) < 1e-3 and abs(own - 2.78771) < 1e-3
    tell("mean NLL of wikitext-2, 8 × 1,024 tokens", holds, f"transformers {theirs:.5f}, ours {own:.5f}, reference 2.78771")
else:
    print("skipped: LLMFLOW_SHARED_DATA has no perplexity/wikitext-2-valid.txt.gz")
finish()
