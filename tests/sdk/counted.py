"""An OpenAI client as any caller makes it, whose HTTP requests are counted."""

import json
import time

import openai


class Counted:
    """A client, and how many requests it has really sent."""

    def __init__(self, base_url, key):
        self.requests = 0
        hooks = {"request": [self._count]}
        http_client = openai.DefaultHttpxClient(event_hooks=hooks)
        # Nothing else is set: what is proved is what the SDK does by itself.
        self.openai = openai.OpenAI(base_url=base_url, api_key=key, http_client=http_client)

    def _count(self, _request):
        self.requests += 1

    def attempt(self, call):
        """What one call came to: its result, or the exception, as JSON can say it."""
        before, began = self.requests, time.monotonic()
        try:
            seen = {"result": call(self.openai)}
        except openai.APIStatusError as error:
            seen = {
                "exception": type(error).__name__,
                "status": error.status_code,
                "code": error.code,
                "type": error.type,
                "message": error.message,
                "body": error.body,
            }
        seen["requests"] = self.requests - before
        seen["seconds"] = time.monotonic() - began
        return seen


def say(seen):
    print(json.dumps(seen))
