"""An app that asks a model, through the sidecar beside it: GET /ask. It stands for yours, and needs nothing but Python."""

import json
import os
import signal
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# The same two variables that OpenAI's SDK reads.
BASE_URL = os.environ["OPENAI_BASE_URL"]
KEY = os.environ["OPENAI_API_KEY"]
MODEL = os.environ.get("MODEL", "gpt-4o-mini")
CALL = {"model": MODEL, "max_tokens": 20, "messages": [{"role": "user", "content": "Say hello."}]}
TIMEOUT_S = 30


def ask():
    """One call; a refusal is passed on as it is, because it says what to do."""
    request = urllib.request.Request(f"{BASE_URL}/chat/completions", json.dumps(CALL).encode())
    request.add_header("Authorization", f"Bearer {KEY}")
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read()
    except OSError as error:
        return 502, json.dumps({"error": f"the sidecar does not answer: {error}"}).encode()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/healthz":
            status, body = 200, b'{"ok": true}'
        elif self.path == "/ask":
            status, body = ask()
        else:
            status, body = 404, b'{"error": "there are /ask and /healthz"}'
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    # Its end waits for the requests that are being answered.
    daemon_threads = False


server = Server(("", int(os.environ.get("PORT", "8000"))), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print(f"listening on {server.server_port}")
server.serve_forever()
server.server_close()
