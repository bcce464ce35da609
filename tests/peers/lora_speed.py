"""LoRA training, tokens a second: ours against transformers + peft, in turn, on the same rows and cores, in f32.

Rank 16 on all linear layers, AdamW, no dropout, no gradient checkpointing. Tokens counted are the rows' own: padding,
which peft needs and ours does not, counts for nobody. Both sides' first losses must agree, so both learn the same thing.
The verdict is on the clock and needs a quiet machine; processor time is told beside it, for where there is none
(OMP_WAIT_POLICY=passive then keeps torch's threads from spinning while they wait).
"""

import json
import os
import statistics
import subprocess
import sys
import time

import torch
from common import MADE, OURS, ROOT, THREADS, finish, open_in_transformers, tell, tokenizer
from peft import LoraConfig, get_peft_model

ROUNDS = int(os.environ.get("LLMFLOW_PEERS_ROUNDS", "5"))
#: What the project promises, and hopes for 2.
LEAST = 1.2
encoder = tokenizer()


def chat_rows(batch: int, batches: int) -> list[list[dict]]:
    """Rows as the assistant pipeline trains them: one question, one short answer, only the answer supervised."""
    batch_rows, rows = [], []
    for line in (ROOT / "pipelines/data/instructions.jsonl").read_text().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if not isinstance(row.get("output"), str) or not row.get("instruction") or row.get("input"):
            continue  # the file has broken rows on purpose
        turns = [{"role": "system", "content": ""}, {"role": "user", "content": row["instruction"]}]
        prompt = encoder.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        prompt = encoder.encode(prompt, add_special_tokens=False)
        answer = encoder.encode(row["output"] + "<|im_end|>", add_special_tokens=False)
        rows.append({"ids": prompt + answer, "mask": [False] * len(prompt) + [True] * len(answer)})
    for start in range(0, batch * batches, batch):
        batch_rows.append(rows[start : start + batch])
    return batch_rows


def text_rows(batch: int, batches: int, length: int) -> list[list[dict]]:
    """Rows of one length that share no beginning, every token supervised: nothing to gain but arithmetic."""
    documents = sorted((ROOT / "pipelines/data/docs").glob("*.md"))
    ids = encoder.encode("\n".join(document.read_text() for document in documents), add_special_tokens=False)
    ids = (ids * (1 + batch * batches * length // len(ids)))[: batch * batches * length]
    rows = [{"ids": ids[start : start + length], "mask": [True] * length} for start in range(0, len(ids), length)]
    return [rows[start : start + batch] for start in range(0, len(rows), batch)]


def padded(rows: list[dict]) -> dict:
    width = max(len(row["ids"]) for row in rows)
    fill = lambda values, with_: values + [with_] * (width - len(values))
    labels = [[token if kept else -100 for token, kept in zip(row["ids"], row["mask"])] for row in rows]
    return {
        "input_ids": torch.tensor([fill(row["ids"], 0) for row in rows]),
        "attention_mask": torch.tensor([fill([1] * len(row["ids"]), 0) for row in rows]),
        "labels": torch.tensor([fill(label, -100) for label in labels]),
    }


class Ours:
    """Our trainer in its own process; idle unless asked."""

    def __init__(self, batches: list[list[dict]], name: str) -> None:
        rows = MADE / f"rows_{name}.json"
        rows.write_text(json.dumps(batches))
        words = [OURS, "train", str(MADE / "base"), str(rows), str(MADE / "trained")]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def round(self) -> tuple[float, float]:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["seconds"], answer["losses"][0]

    def processor_seconds(self) -> float:
        ticks = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()[11:13]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


class Theirs:
    def __init__(self, batches: list[list[dict]]) -> None:
        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        config = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM")
        self.model = get_peft_model(open_in_transformers(MADE / "base"), config).train()
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=2e-4, weight_decay=0.0, fused=True)
        self.batches = [padded(rows) for rows in batches]

    def round(self) -> tuple[float, float]:
        losses, start = [], time.perf_counter()
        for batch in self.batches:
            loss = self.model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
        return time.perf_counter() - start, losses[0]

    def processor_seconds(self) -> float:
        return time.process_time()

    def close(self) -> None:
        pass


SHAPES = {
    "chat rows, 4 a step": chat_rows(4, 8),
    "text rows, 4 × 256": text_rows(4, 1, 256),
}
torch.set_num_threads(THREADS)
for name, batches in SHAPES.items():
    tokens = sum(len(row["ids"]) for rows in batches for row in rows)
    peers = [Ours(batches, name.split()[0]), Theirs(batches)]
    seconds, busy, first = [[], []], [[], []], [0.0, 0.0]
    for turn in range(ROUNDS + 1):
        for index, peer in enumerate(peers):
            before = peer.processor_seconds()
            took, loss = peer.round()
            if turn == 0:  # warms up, and shows the loss of the untouched model
                first[index] = loss
            else:
                seconds[index].append(took)
                busy[index].append(peer.processor_seconds() - before)
    for peer in peers:
        peer.close()
    ours, theirs = (tokens / statistics.median(took) for took in seconds)
    work = statistics.median(busy[1]) / statistics.median(busy[0])
    tell(f"{name}: same first loss", abs(first[0] - first[1]) < 1e-3, f"ours {first[0]:.5f}, peft {first[1]:.5f}")
    ratio = ours / theirs
    figures = (
        f"{ratio:.2f}× ({ours:.0f} against {theirs:.0f} tokens/s, median of {ROUNDS}); {work:.2f}× by processor time; "
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"
    )
    tell(f"{name}: LoRA training against transformers + peft", ratio >= LEAST, figures)
finish()
