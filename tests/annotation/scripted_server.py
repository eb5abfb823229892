"""An OpenAI-compatible server on loopback that says and does what a test tells it."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Script:
    """What the server does.

    Attributes:
        answer: Maps the messages of a request to the assistant's words, or to a status and
            headers, perhaps with words, or to "cut" (the connection ends).
        requests: What was asked, in order.
        keys: Authorization headers.
    """

    def __init__(self, answer):
        self.answer, self.requests, self.keys = answer, [], []
        self.lock = threading.Lock()


@contextmanager
def serve(answer):
    """Yield the address of a server and its script."""
    script = Script(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with script.lock:
                script.requests.append(body)
                script.keys.append(self.headers.get("Authorization"))
                said = script.answer(body)
            if said == "cut":
                self.close_connection = True
                self.connection.close()
                return
            status, headers = 200, {}
            if isinstance(said, tuple):
                (status, headers), said = said[:2], "".join(said[2:])
            content = {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {"role": "assistant", "content": said},
                    }
                ],
                "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
            }
            if status != 200:
                content = {"error": {"message": f"no: {body['messages'][-1]['content']}"}}
            data = json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", script
    finally:
        server.shutdown()
        server.server_close()
