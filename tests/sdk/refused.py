"""One chat call, plain and streamed, that is refused: refused.py BASE_URL KEY MODEL."""

import sys

from counted import Counted, say

base_url, key, model = sys.argv[1:]
client = Counted(base_url, key)


def chat(openai, **more):
    messages = [{"role": "user", "content": "Count to three."}]
    openai.chat.completions.create(model=model, messages=messages, max_tokens=50, **more)
    return "served"


say({
    "plain": client.attempt(chat),
    "streamed": client.attempt(lambda openai: chat(openai, stream=True)),
})
