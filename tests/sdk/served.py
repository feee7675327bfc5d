"""Chat, streaming and embeddings, as the SDK does them: served.py BASE_URL KEY MODEL EMBEDDING_MODEL."""

import sys

from counted import Counted, say

base_url, key, model, embedding_model = sys.argv[1:]
client = Counted(base_url, key)
messages = [{"role": "user", "content": "Count to three."}]


def chat(openai):
    answer = openai.chat.completions.create(model=model, messages=messages, max_tokens=5)
    return {"text": answer.choices[0].message.content, "output": answer.usage.completion_tokens}


def raw_chat(openai):
    completions = openai.chat.completions.with_raw_response
    answer = completions.create(model=model, messages=messages, max_completion_tokens=4)
    return {"charge": answer.headers["x-tollgate-charge"], "output": answer.parse().usage.completion_tokens}


def stream(openai, **more):
    chunks = openai.chat.completions.create(
        model=model, messages=messages, max_tokens=5, stream=True, **more
    )
    text, usage, without_choices = "", None, 0
    for chunk in chunks:
        if not chunk.choices:
            without_choices += 1
        for choice in chunk.choices:
            text += choice.delta.content or ""
        usage = chunk.usage or usage
    output = usage.completion_tokens if usage else None
    return {"text": text, "output": output, "without_choices": without_choices}


def stream_with_usage(openai):
    return stream(openai, stream_options={"include_usage": True})


def embeddings(openai):
    answer = openai.embeddings.create(model=embedding_model, input=["one", "two"])
    return {"vectors": len(answer.data), "input": answer.usage.total_tokens}


def models(openai):
    return {"models": len(openai.models.list().data)}


calls = [chat, raw_chat, stream, stream_with_usage, embeddings, models]
say({call.__name__: client.attempt(call) for call in calls})
