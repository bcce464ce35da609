"""The `openai` package talks with the server at LLMFLOW_PEERS_SERVER, such as http://127.0.0.1:8080."""

import os

import openai
from common import finish, tell

client = openai.OpenAI(base_url=os.environ["LLMFLOW_PEERS_SERVER"] + "/v1", api_key="none", max_retries=0)
models = [model.id for model in client.models.list()]
tell("models", len(models) >= 1, ", ".join(models))

ask = {
    "model": models[0],
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
    "max_tokens": 24,
}
whole = client.chat.completions.create(**ask)
text = whole.choices[0].message.content
tell("chat", bool(text) and whole.choices[0].finish_reason in ("stop", "length"), repr(text))
usage = whole.usage
counts = usage is not None and usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
tell("usage", counts and usage.completion_tokens > 0, str(usage and usage.total_tokens))

pieces, ends, streamed_usage = [], [], None
for chunk in client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}):
    streamed_usage = chunk.usage or streamed_usage
    for choice in chunk.choices:
        pieces.append(choice.delta.content or "")
        ends += [choice.finish_reason] if choice.finish_reason else []
tell("streamed chat equals the whole one", "".join(pieces) == text and len(pieces) > 2, f"{len(pieces)} pieces")
tell("stream ends once, with usage", ends == [whole.choices[0].finish_reason] and streamed_usage == usage, str(ends))

completed = client.completions.create(model=models[0], prompt="Gravity is", temperature=0, max_tokens=8)
tell("completion", bool(completed.choices[0].text), repr(completed.choices[0].text))
try:
    client.chat.completions.create(**{**ask, "messages": []})
    tell("an empty conversation is refused", False, "it was answered")
except openai.BadRequestError as error:
    tell("an empty conversation is refused", True, str(error.body["message"] if error.body else error))
try:
    client.chat.completions.create(**{**ask, "model": "no-such-model"})
    tell("another model's name is refused", False, "it was answered")
except openai.NotFoundError as error:
    tell("another model's name is refused", True, str(error.body["message"] if error.body else error))
finish()
