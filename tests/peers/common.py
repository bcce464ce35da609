"""What every check needs: where things are, the five texts, our own figures, and how a result is told."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parents[2]
#: Holds base/ adapter/ merged/ and F16.gguf Q8_0.gguf Q4_0.gguf, as peers.yaml publishes them.
MADE = Path(os.environ["LLMFLOW_PEERS_MADE"])
#: The `peers` example of operators/model.
OURS = os.environ["LLMFLOW_PEERS_BINARY"]
#: More than the cores that are free makes torch crawl, for its threads wait for one another busily.
THREADS = int(os.environ.get("LLMFLOW_PEERS_THREADS", "2"))
BLOCK_TYPES = ["F16", "Q8_0", "Q4_0"]

_failed = False


def tell(claim: str, holds: bool, figures: str) -> None:
    """Prints one result; the script ends with 1 if any did not hold."""
    global _failed
    _failed |= not holds
    print(f"{'ok  ' if holds else 'FAIL'} {claim}: {figures}", flush=True)


def finish() -> None:
    sys.exit(1 if _failed else 0)


def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(MADE / "base")


def texts(tokens: int = 100) -> list[list[int]]:
    """The first tokens of five documents of this repository."""
    documents = sorted((ROOT / "pipelines/data/docs").glob("*.md"))[:5]
    encode = tokenizer().encode
    ids = [encode(document.read_text(), add_special_tokens=False)[:tokens] for document in documents]
    assert len(ids) == 5 and all(len(text) == tokens for text in ids), "the documents are too short"
    return ids


def ours(*words: str) -> str:
    return subprocess.run([OURS, *map(str, words)], check=True, stdout=subprocess.PIPE, text=True).stdout


def our_logits(model: Path, ids: list[list[int]]) -> numpy.ndarray:
    """`[tokens of all texts, vocab]` from our own runtime."""
    request, answer = MADE / "ids.json", MADE / "logits.f32"
    request.write_text(json.dumps(ids))
    ours("logits", model, request, answer)
    logits = numpy.fromfile(answer, dtype="<f4")
    answer.unlink()
    return logits.reshape(sum(map(len, ids)), -1)


def torch_logits(model, ids: list[list[int]]) -> numpy.ndarray:
    """The same from a transformers model."""
    import torch

    with torch.no_grad():
        return numpy.concatenate([model(torch.tensor([text])).logits[0].float().numpy() for text in ids])


def open_in_transformers(folder: Path):
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(THREADS)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def log_softmax(logits: numpy.ndarray) -> numpy.ndarray:
    logits = logits.astype(numpy.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - numpy.log(numpy.exp(logits).sum(axis=-1, keepdims=True))


def agreement(reference: numpy.ndarray, other: numpy.ndarray) -> tuple[float, float]:
    """Share of rows with the same likeliest token, and mean KL(reference ‖ other) in nats."""
    p, q = log_softmax(reference), log_softmax(other)
    same = (p.argmax(-1) == q.argmax(-1)).mean()
    return float(same), float((numpy.exp(p) * (p - q)).sum(-1).mean())
