"""Learns a bigram model of bytes: how often each byte follows each other one. Standard library alone.

It stands for a trainer you already have. What LLMflow asks of one: paths as arguments, results where it is told, exit
status 0 if all went well. The lines that start with `LLMFLOW` are optional: they show progress and record metrics.
"""
import argparse
import json
import math
import pathlib
import random
import struct

BYTES = 256
START = 10  # a line break stands before the first byte
UNSEEN = 0.05  # counted for every pair, so that none is impossible


def texts(path):
    """What was said in each row, as bytes."""
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            yield "\n".join(turn["content"] for turn in json.loads(line)["messages"]).encode()


def log_probabilities(counts):
    """Each row of counts as log2 of shares."""
    for row in counts:
        total = sum(row) + BYTES * UNSEEN
        yield [math.log2((count + UNSEEN) / total) for count in row]


def bits_per_byte(model, documents):
    bits, length = 0.0, 0
    for document in documents:
        for before, after in zip([START, *document], document):
            bits -= model[before][after]
        length += len(document)
    return bits / max(length, 1)


def sample(model, draw):
    """Bytes drawn one after the other, as text."""
    written = [START]
    for _ in range(80):
        weights = [2**bits for bits in model[written[-1]]]
        written.append(draw.choices(range(BYTES), weights)[0])
    return bytes(written[1:]).decode("utf-8", "replace")


def save(model, folder):
    """A folder as the ecosystem reads it: config.json and model.safetensors, one tensor in it."""
    numbers = [number for row in model for number in row]
    data = struct.pack(f"<{len(numbers)}f", *numbers)
    tensors = {"log2_probabilities": {"dtype": "F32", "shape": [BYTES, BYTES], "data_offsets": [0, len(data)]}}
    header = json.dumps(tensors).encode()
    folder.joinpath("model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data)
    config = {"architectures": ["ByteBigram"], "vocab_size": BYTES, "max_position_embeddings": 2, "dtype": "float32"}
    folder.joinpath("config.json").write_text(json.dumps(config, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser()
    for name in ("data", "eval", "out", "samples"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    parser.add_argument("--passes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    draw = random.Random(arguments.seed)
    documents, held_out = list(texts(arguments.data)), list(texts(arguments.eval))
    counts = [[0] * BYTES for _ in range(BYTES)]
    for step in range(1, arguments.passes + 1):
        draw.shuffle(documents)
        for document in documents:
            for before, after in zip([START, *document], document):
                counts[before][after] += 1
        model = list(log_probabilities(counts))
        print("LLMFLOW", json.dumps({"progress": [step, arguments.passes, "passes"]}))
        print("LLMFLOW", json.dumps({"metric": ["bits_per_byte", bits_per_byte(model, held_out), step]}))
    save(model, arguments.out)
    with open(arguments.samples, "w", encoding="utf-8") as rows:
        for _ in range(5):
            rows.write(json.dumps({"text": sample(model, draw)}) + "\n")


if __name__ == "__main__":
    main()
