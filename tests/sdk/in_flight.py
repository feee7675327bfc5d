"""A call that does not fit beside one in flight: in_flight.py BASE_URL KEY MODEL.

First the one in flight never ends: the SDK tries again, and then says so. Then it ends meanwhile: the SDK is served.
"""

import sys
import threading

from counted import Counted, say

base_url, key, model = sys.argv[1:]
client = Counted(base_url, key)
messages = [{"role": "user", "content": "Count to three."}]


def stalled():
    """A stream that says one word and then nothing, until it is closed."""
    return client.openai.chat.completions.create(
        model=model,
        messages=messages,
        max_tokens=50,
        stream=True,
        extra_headers={"x-mock-stall-after-events": "2"},
    )


def chat(openai):
    openai.chat.completions.create(model=model, messages=messages, max_tokens=50)
    return "served"


in_flight = stalled()
next(iter(in_flight))
never = client.attempt(chat)
closing = threading.Timer(0.1, in_flight.close)
closing.start()
meanwhile = client.attempt(chat)
closing.join()
say({"never": never, "meanwhile": meanwhile})
