"""Cleans chats: one JSON object a line in, one a line out. A row that is not printed is dropped."""
import argparse
import json
import sys

arguments = argparse.ArgumentParser()
arguments.add_argument("--min-words", type=int, required=True)
arguments = arguments.parse_args()

for line in sys.stdin:
    row = json.loads(line)  # {"id": …, "messages": [{"role": …, "content": …}]}: the id goes back with the row
    for message in row["messages"]:
        message["content"] = " ".join(message["content"].split())
    answer = row["messages"][-1]["content"]
    if len(answer.split()) >= arguments.min_words:
        print(json.dumps(row, ensure_ascii=False))
    else:
        print(f"too short: {answer!r}", file=sys.stderr)  # standard error is the stage's log: llmflow logs @/tidy
