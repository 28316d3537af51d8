#!/usr/bin/env python3
"""Stand-in for an OpenAI-compatible inference server: the real protocol over real TCP, invented answers.

Serves chat, completions (both also streamed), embeddings, rerank, models, docs, metrics. Faults make it lie in the ways
that real servers do. As a program:

    openai_server.py --port 8000 --model demo --api-key secret --fault nan_embeddings
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = (
    "auth_open",  # any key, or none, is let in
    "empty_text",
    "engine_dead",  # lists its model and answers /health, fails every request for work
    "nan_embeddings",
    "no_done",  # the stream ends without [DONE]
    "null_embeddings",  # how text-embeddings-inference writes NaN
    "one_chunk",  # a "stream" that is one piece
    "redirects",  # sends every GET elsewhere
    "reversed_order",  # unrelated texts come out closest
    "tei",  # no fault: the routes of text-embeddings-inference, which knows no names of models
    "stream_error",  # 200, then an error as an event
    "short_embeddings",  # one vector too few
    "blind",  # does not look at the picture
    "ignores_limits",  # neither max_tokens nor stop end the answer
)
JOKE = "Why did the GPU cross the bus? To get to the other slot, where the memory was wider."
DIMENSION = 8
TOPICS = (("password", "account", "密码", "账户"), ("volcano", "island", "火山"))


# What vLLM's own document lists, as far as it matters here: path → methods.
ROUTES = {
    "/health": ["get"],
    "/version": ["get"],
    "/metrics": ["get"],
    "/tokenize": ["post"],
    "/v1/models": ["get"],
    "/ping": ["get", "post"],
    "/invocations": ["post"],
    "/v1/chat/completions": ["post"],
    "/v1/completions": ["post"],
    "/v1/responses": ["post"],
    "/v1/embeddings": ["post"],
    "/v1/rerank": ["post"],
    "/rerank": ["post"],
    "/generative_scoring": ["post"],
    "/scale_elastic_ep": ["post"],
    "/inference/v1/generate": ["post"],
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class StandIn(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port=0, model="demo", api_key=None, faults=(), host="127.0.0.1", open_routes=("/rerank",)):
        unknown = set(faults) - set(FAULTS)
        if unknown:
            raise ValueError(f"unknown faults: {unknown}")
        super().__init__((host, port), Handler)
        self.model = model
        self.api_key = api_key
        self.faults = frozenset(faults)
        self.open_routes = open_routes
        self.more_routes = ()  # paths that take work or change the engine; they only say what came of it
        self.document = {"paths": {path: {method: {} for method in methods} for path, methods in ROUTES.items()}}
        self.version = "0.0.0-stand-in"
        self.requests = []  # (method, path, body) of each

    @property
    def url(self):
        return f"http://{self.server_address[0]}:{self.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_exc):
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for an acknowledgement

    def log_message(self, *_args):
        pass

    def do_GET(self):
        self.server.requests.append(("GET", self.path, None))
        pages = {"/docs": ("text/html", "<html>docs</html>"), "/metrics": ("text/plain", "# TYPE up gauge\nup 1\n")}
        if self._has("redirects"):
            self.send_response(307)
            self.send_header("Location", "http://elsewhere.invalid/")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path in pages:
            self._send(200, *pages[self.path])
        elif self.path == "/health":
            self._send(200, "text/plain", "")
        elif self.path == "/version" and not self._has("tei"):
            self._json(200, {"version": self.server.version})
        elif self.path == "/openapi.json" and self.server.document is not None:
            self._json(200, {"openapi": "3.1.0", "info": {"title": "FastAPI"}, **self.server.document})
        elif self.path == "/info" and self._has("tei"):
            self._json(200, {"model_id": "/models/demo", "max_input_length": 512, "version": "1.9.0"})
        elif self.path == "/v1/models" and not self._has("tei"):
            if self._allowed():
                entry = {"id": self.server.model, "object": "model", "max_model_len": 4096}
                self._json(200, {"object": "list", "data": [entry]})
        else:
            self._json(404, {"detail": "Not Found"})

    def do_POST(self):
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            body = json.loads(text or b"{}")
        except ValueError:
            body = None  # judged where an engine does: after the key
        self.server.requests.append(("POST", self.path, body))
        routes = {
            "/v1/chat/completions": self._chat,
            "/v1/completions": self._completion,
            "/v1/embeddings": self._embeddings,
            "/v1/rerank": self._rerank,
            "/rerank": self._rerank,
        }
        if self._has("tei"):
            (body or {}).pop("model", None)
            del routes["/v1/rerank"]
        if self.path in self.server.more_routes:
            if self.path in self.server.open_routes or self._allowed():
                self._json(*((400, {"detail": "no JSON"}) if body is None else (200, {"detail": "done"})))
        elif self.path not in routes:
            self._json(404, {"detail": "Not Found"})
        elif self.path in self.server.open_routes or self._allowed():
            if self._has("engine_dead"):
                self._json(500, {"error": {"message": "EngineCore encountered an issue."}})
            elif not body:
                self._json(400, {"error": {"message": "field required"}})
            elif body.get("model", self.server.model) != self.server.model:
                self._json(404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
            else:
                routes[self.path](body)

    def _has(self, fault):
        return fault in self.server.faults

    def _allowed(self):
        key = self.server.api_key
        if not key or self._has("auth_open") or self.headers.get("Authorization") == f"Bearer {key}":
            return True
        self._json(401, {"error": "Unauthorized"})
        return False

    def _chat(self, body):
        message = body["messages"][-1]["content"]
        if isinstance(message, list):
            return self._answer(body, ["Blue" if self._has("blind") else colour_of(message)], chat=True)
        return self._answer(body, JOKE.split(), chat=True)

    def _completion(self, body):
        self._answer(body, JOKE.split(), chat=False)

    def _answer(self, body, words, chat):
        limited = not self._has("ignores_limits")
        words, reason = list(words), "stop"
        if limited and len(words) > body.get("max_tokens", 16):
            words, reason = words[: body["max_tokens"]], "length"
        pieces = [] if self._has("empty_text") else [("" if at == 0 else " ") + word for at, word in enumerate(words)]
        for stop in body.get("stop") or [] if limited else []:
            text = "".join(pieces)
            if stop in text:
                pieces, reason = [text[: text.index(stop)]], "stop"
        usage = {"prompt_tokens": 5, "completion_tokens": len(words), "total_tokens": 5 + len(words)}
        if body.get("stream"):
            return self._stream(pieces, reason, usage, chat, body)
        text = "".join(pieces)
        choice = {"index": 0, "finish_reason": reason}
        choice.update({"message": {"role": "assistant", "content": text}} if chat else {"text": text})
        return self._json(200, {"object": "chat.completion", "choices": [choice], "usage": usage})

    def _stream(self, pieces, reason, usage, chat, body):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if self._has("one_chunk"):
            pieces = ["".join(pieces)]
        if self._has("stream_error"):
            self._event({"error": {"message": "EngineCore died", "code": 500}})
            pieces = []
        for piece in pieces:
            delta = {"delta": {"content": piece}} if chat else {"text": piece}
            self._event({"choices": [{"index": 0, **delta, "finish_reason": None}]})
        self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        if (body.get("stream_options") or {}).get("include_usage"):
            self._event({"choices": [], "usage": usage})
        if not self._has("no_done"):
            self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _embeddings(self, body):
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        vectors = [self._vector(text) for text in texts]
        if self._has("short_embeddings"):
            vectors = vectors[:-1]
        if body.get("encoding_format") == "base64":
            vectors = [base64.b64encode(struct.pack(f"<{DIMENSION}f", *vector)).decode() for vector in vectors]
        self._json(200, {"object": "list", "data": [{"index": at, "embedding": v} for at, v in enumerate(vectors)]})

    def _vector(self, text):
        if self._has("nan_embeddings"):
            return [float("nan")] * DIMENSION
        if self._has("null_embeddings"):
            return [None] * DIMENSION
        vector = [byte / 2550 for byte in hashlib.sha256(text.encode()).digest()[:DIMENSION]]
        vector[topic(text, self._has("reversed_order"))] += 1
        return vector

    def _rerank(self, body):
        documents = body.get("documents", body.get("texts"))
        wanted = topic(body["query"], self._has("reversed_order"))
        scores = [0.9 if topic(text) == wanted else 0.1 for text in documents]
        results = [{"index": at, "relevance_score": score} for at, score in enumerate(scores)]
        self._json(200, {"results": sorted(results, key=lambda entry: -entry["relevance_score"])})

    def _event(self, data):
        self._chunk(f"data: {json.dumps(data)}\n\n".encode())

    def _chunk(self, data):
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _json(self, status, data):
        self._send(status, "application/json", json.dumps(data))

    def _send(self, status, kind, text):
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def topic(text, reverse=False):
    """Which of the two topics a text is about; `reverse` mistakes questions, and only questions."""
    found = next((at for at, words in enumerate(TOPICS) if any(word in text for word in words)), 0)
    return 1 - found if reverse and text.endswith(("?", "？")) else found


def colour_of(content):
    """The first pixel of the picture in a message, in words: this stand-in really looks."""
    import zlib

    url = next(part["image_url"]["url"] for part in content if part["type"] == "image_url")
    data = base64.b64decode(url.split(",", 1)[1])
    at, pixels = 8, b""
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        kind, payload = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        (checksum,) = struct.unpack(">I", data[at + 8 + size : at + 12 + size])
        if zlib.crc32(kind + payload) != checksum:
            raise ValueError("broken PNG")
        pixels += payload if kind == b"IDAT" else b""
        at += 12 + size
    red, green, blue = zlib.decompress(pixels)[1:4]
    return "Red." if red > max(green, blue) else "Green." if green > blue else "Blue."


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--api-key")
    parser.add_argument("--fault", action="append", default=[], choices=FAULTS)
    args = parser.parse_args()
    StandIn(args.port, args.model, args.api_key, args.fault, args.host).serve_forever()


if __name__ == "__main__":
    main()
