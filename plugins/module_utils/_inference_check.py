# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks an OpenAI-compatible endpoint what a client would ask, and judges the answers.

A broken deployment can answer 200 on /health and die on the first request, so nothing here trusts a status code alone.
What answers may be anything that listens on the port: its answers are bounded in size and time, and may have any form.
"""

from __future__ import annotations

import base64
import http.client
import json
import math
import ssl
import struct
import time
import urllib.request
import zlib

from ansible_collections.inferops.gpu_host.plugins.module_utils import _authorization, _bounded_http
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import MIB
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import (
    UntrustedError,
    bounded_json,
    printable,
)

LONGEST_ANSWER = 16 * MIB  # ten times what the description of all routes takes
LONGEST_EVENT = MIB
MOST_MODELS = 1000
PATIENCE = 10  # an answer may take that many times what its next byte may
TYPES = ("chat", "completion", "embedding", "rerank", "vision")
JOKE = "Tell me a joke."
COUNTING = "Count from 1 to 100: 1, 2, 3,"
# What /health of a server that works says; text-embeddings-inference may want its key even there.
ALIVE = (200, 401)

# Present only with VLLM_SERVER_DEV_MODE: anyone may then put the engine to sleep or run code in it.
DEV_ROUTES = ("/collective_rpc", "/sleep", "/reset_prefix_cache", "/server_info")

# (query, related, unrelated): a model passes in the language it knows.
RELATED = (
    (
        "How do I reset my password?",
        "Steps to recover access to your account when the password is forgotten.",
        "The volcano on the island erupted in the eighteenth century.",
    ),
    ("如何重置我的密码？", "忘记密码时恢复账户访问权限的步骤。", "岛上的火山在十八世纪喷发过。"),
)


class Reply:
    """One answer; `status` 0 when there was none, and then `error` says why."""

    def __init__(self, status, text="", error="", content_type="", seconds=0.0):
        self.status = status
        self.text = text
        self.error = error
        self.content_type = content_type
        self.seconds = seconds

    @property
    def data(self):
        try:
            return bounded_json(self.text, "the answer", limit=LONGEST_ANSWER, infinite=True)
        except UntrustedError:
            return None

    def complaint(self):
        """What went wrong, in the server's own words where it has any."""
        if not self.status:
            return self.error
        data = self.data
        message = ""
        if isinstance(data, dict):
            error = data.get("error", data.get("detail", data.get("message")))
            message = error.get("message") if isinstance(error, dict) else error
        return f"HTTP {self.status}: {_short(str(message or self.text))}"


class Stream:
    """The server-sent events of one streamed answer."""

    def __init__(self, reply):
        self.reply = reply
        self.events = []  # decoded JSON of each `data:` line
        self.arrivals = []  # seconds after the request, for each event
        self.done = False


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would turn POST into GET and carry the key to another host: it is an answer, and a wrong one."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        return None


class Endpoint:
    """An OpenAI-compatible server at a base URL, with or without the trailing /v1."""

    def __init__(self, url, api_key=None, timeout=60, validate_certs=True, ca_path=None, use_proxy=False):
        url = url.rstrip("/")
        self.root = url[: -len("/v1")] if url.endswith("/v1") else url
        self.api_key = api_key
        self._timeout = timeout
        self._how = {"validate_certs": validate_certs, "ca_path": ca_path, "use_proxy": use_proxy}
        context = None
        if url.startswith("https:"):
            context = ssl.create_default_context(cafile=ca_path)
            if not validate_certs:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        handlers = [_NoRedirect(), *_bounded_http.handlers(timeout, PATIENCE * timeout, context)]
        if not use_proxy:
            handlers.append(urllib.request.ProxyHandler({}))
        # Not ansible's open_url: it reads the whole trust store again for each of some thirty requests.
        self._opener = urllib.request.build_opener(*handlers)

    def within(self, seconds):
        """The same endpoint, asked with less patience."""
        return Endpoint(self.root, self.api_key, min(self._timeout, seconds), **self._how)

    def get(self, path, **kwargs):
        return self._read("GET", path, None, **kwargs)

    def post(self, path, body, **kwargs):
        return self._read("POST", path, body, **kwargs)

    def stream(self, path, body):
        started = time.monotonic()
        response, failure = self._open("POST", path, dict(body, stream=True, stream_options={"include_usage": True}))
        if failure:
            return Stream(failure)
        stream = Stream(Reply(response.status, content_type=response.headers.get("Content-Type", "")))
        try:
            for line in _bounded_http.lines(response, LONGEST_ANSWER, LONGEST_EVENT):
                if not line.startswith(b"data:"):
                    continue
                payload = line[len(b"data:") :].strip()
                if payload == b"[DONE]":
                    stream.done = True
                    break
                stream.events.append(bounded_json(payload, "an event", limit=LONGEST_EVENT))
                stream.arrivals.append(time.monotonic() - started)
        except (OSError, ValueError, http.client.HTTPException) as exc:
            stream.reply.error = f"the stream broke after {len(stream.events)} events: {exc}"
        finally:
            response.close()
        return stream

    def _read(self, method, path, body, **kwargs):
        started = time.monotonic()
        response, failure = self._open(method, path, body, **kwargs)
        if failure:
            return failure
        try:
            text = _bounded_http.read(response, LONGEST_ANSWER).decode("utf-8", "replace")
        except Exception as exc:
            return Reply(0, error=f"{self.root}{path}: the answer broke off: {printable(exc)}")
        finally:
            response.close()
        return Reply(
            response.status,
            text,
            content_type=response.headers.get("Content-Type", ""),
            seconds=time.monotonic() - started,
        )

    def _open(self, method, path, body, key=True):
        """(response, None) or (None, Reply); `key`: True the right one, None none, else the one given."""
        headers = {"Accept": "*/*", "User-Agent": "inferops.gpu_host"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if not self.root.startswith(("http://", "https://")):  # it may be a container's label: no file:, no ftp:
            return None, Reply(0, error=f"{printable(self.root)} is no address of a server")
        key = self.api_key if key is True else key
        if key:
            headers["Authorization"] = f"Bearer {key}"
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode("utf-8")
        try:
            request = urllib.request.Request(self.root + path, data, headers, method=method)
            return self._opener.open(request, timeout=self._timeout), None
        except Exception as exc:  # urllib, ssl and http.client raise many kinds, and all mean: no answer
            status = getattr(exc, "code", 0) or 0
            if not status:
                return None, Reply(0, error=f"{self.root}{path}: {printable(getattr(exc, 'reason', None) or exc)}")
            try:
                text = _bounded_http.read(exc, LONGEST_ANSWER).decode("utf-8", "replace")
            except Exception:
                text = ""
            finally:
                exc.close()
            return None, Reply(status, text, content_type=exc.headers.get("Content-Type", "") if exc.headers else "")


def check(
    endpoint,
    model=None,
    type="chat",
    semantic=True,
    max_tokens=100,
    dimension=None,
    documented=True,
    brief=False,
    exposed=True,
    open_routes="refuse",
):
    """Run every check that fits the type; plain data out.

    semantic: also judge what the answers mean; meaningless for random weights.
    brief: only that it does its work at all: the list of models and one answer.
    exposed, open_routes: whether others than the host reach it, and whether routes without a key are accepted then.
    """
    run = _Run(endpoint, model, semantic, max_tokens, dimension)
    served = run.models()
    if served and brief:
        work = {"chat": run.chat, "vision": run.chat, "embedding": run.embeddings, "rerank": run.rerank}
        work.get(type, lambda: run.completion(required=True))()
    elif served:
        if type in ("chat", "vision"):
            run.chat()
            run.chat_stream()
            run.completion(required=False)
            run.finish_reasons("/v1/chat/completions")
        if type == "completion":
            run.completion(required=True)
            run.finish_reasons("/v1/completions")
        if type == "vision":
            run.vision()
        if type == "embedding":
            run.embeddings()
        if type == "rerank":
            run.rerank()
        _authorization.check(run, exposed, open_routes == "accept")
        run.surroundings(documented)
    return run.result(type)


class _Run:
    def __init__(self, endpoint, model, semantic, max_tokens, dimension):
        self.endpoint = endpoint
        self.model = model
        self.semantic = semantic
        self.max_tokens = max_tokens
        self.dimension = dimension
        self.checks = []
        self.unasked = []
        self.figures = {}

    def add(self, name, ok, detail, severity="error"):
        key = self.endpoint.api_key
        detail = detail.replace(key, "********") if key else detail
        self.checks.append({"name": name, "ok": bool(ok), "severity": severity, "detail": detail})
        return bool(ok)

    def skip(self, name, reason):
        self.unasked.append({"name": name, "reason": reason})

    def result(self, type):
        failed = [check for check in self.checks if not check["ok"]]
        return {
            "endpoint": self.endpoint.root + "/v1",
            "model": self.model,
            "type": type,
            "ok": not any(check["severity"] == "error" for check in failed),
            "errors": [check["name"] for check in failed if check["severity"] == "error"],
            "doubts": [check["name"] for check in failed if check["severity"] == "warning"],
            "checks": self.checks,
            "unasked": self.unasked,
            "figures": self.figures,
        }

    # What is served

    def models(self):
        """False when it makes no sense to go on."""
        reply = self.endpoint.get("/v1/models")
        if reply.status in (401, 403):
            given = "the API key was refused" if self.endpoint.api_key else "it wants an API key and none was given"
            return self.add("models", False, f"{given} ({reply.complaint()})")
        if reply.status in (404, 405) and self._info():
            return True
        if reply.status != 200:
            return self.add("models", False, f"no list of models: {reply.complaint()}")
        entries = [entry for entry in _listed(reply.data, "data")[:MOST_MODELS] if isinstance(entry.get("id"), str)]
        served = [entry["id"] for entry in entries]
        if not served:
            return self.add("models", False, "the list of models is empty or not a list")
        self.model = self.model or served[0]
        if self.model not in served:
            return self.add("models", False, f"{self.model} is not served here; served: {_short(', '.join(served))}")
        length = _count(entries[served.index(self.model)].get("max_model_len"))
        if length:
            self.figures["max_model_len"] = length
        return self.add("models", True, _short(", ".join(served)))

    def _info(self):
        """text-embeddings-inference has no list of models: it serves one, whatever a client calls it."""
        info = self.endpoint.get("/info").data
        if not isinstance(info, dict) or not isinstance(info.get("model_id"), str) or not info["model_id"]:
            return False
        self.model = self.model or info["model_id"]
        if _count(info.get("max_input_length")):
            self.figures["max_model_len"] = info["max_input_length"]
        if info.get("version"):
            self.figures["engine_version"] = f"text-embeddings-inference {printable(info['version'], 40)}"
        return self.add("models", True, _short(info["model_id"]))

    # Text

    def chat(self):
        reply = self.endpoint.post("/v1/chat/completions", self._chat_body(JOKE, self.max_tokens))
        self._judge_text("chat", reply)

    def completion(self, required):
        reply = self.endpoint.post("/v1/completions", self._body(prompt=JOKE, max_tokens=self.max_tokens))
        if reply.status in (404, 405) and not required:
            self.add("completion", False, f"no /v1/completions here ({reply.complaint()})", "warning")
        else:
            self._judge_text("completion", reply)

    def _judge_text(self, name, reply, expected=None):
        if reply.status != 200:
            return self.add(name, False, reply.complaint())
        text, reason, tokens = _answer(reply.data)
        if not text.strip() and (self.semantic or not tokens):
            return self.add(name, False, f"the answer is empty (finish_reason {reason}, {tokens} tokens)")
        if expected and self.semantic and not any(word in text.lower() for word in expected):
            return self.add(name, False, f"expected {' or '.join(expected)}, got: {_short(text)}")
        return self.add(name, True, f"{tokens} tokens in {reply.seconds:.2f} s: {_short(text)}")

    def chat_stream(self):
        name = "chat_stream"
        stream = self.endpoint.stream("/v1/chat/completions", self._chat_body(JOKE, self.max_tokens))
        if stream.reply.status != 200 or stream.reply.error:
            return self.add(name, False, stream.reply.error or stream.reply.complaint())
        refused = [event["error"] for event in stream.events if isinstance(event, dict) and event.get("error")]
        if refused:
            return self.add(name, False, f"the stream carried an error: {_short(str(refused[0]))}")
        times = [at for event, at in zip(stream.events, stream.arrivals) if _delta(event)]
        usage = [_part(event, "usage") for event in stream.events if _part(event, "usage")]
        tokens = _count(usage[-1].get("completion_tokens")) if usage else 0
        if not stream.done:
            return self.add(name, False, "the stream ended without [DONE]")
        if len(times) < 2 and (self.semantic or tokens < 2):
            return self.add(name, False, f"{len(times)} piece of text: the answer came in one go, not as a stream")
        if not usage:
            self.add("stream_usage", False, "stream_options.include_usage brought no usage", "warning")
        if not times:
            return self.add(name, True, f"{tokens} tokens, none of them text")
        span, total = times[-1] - times[0], stream.arrivals[-1]
        self.figures["time_to_first_token_seconds"] = round(times[0], 3)
        if tokens > 1 and span > 0:
            self.figures["tokens_per_second"] = round((tokens - 1) / span, 1)
        if total > 1 and span < 0.1 * total:
            detail = (
                f"all pieces came within {span:.2f} s after {times[0]:.2f} s: a proxy in between buffers the stream"
            )
            self.add("stream_unbuffered", False, detail, "warning")
        return self.add(name, True, f"{len(times)} pieces, first after {times[0]:.2f} s, [DONE] after {total:.2f} s")

    def finish_reasons(self, path):
        """`length` when the budget ends it, `stop` when a stop string does."""
        chat = path.endswith("chat/completions")
        body = self._chat_body(COUNTING, 8) if chat else self._body(prompt=COUNTING, max_tokens=8)
        body["temperature"] = 0
        reply = self.endpoint.post(path, body)
        if reply.status != 200:
            return self.add("finish_length", False, reply.complaint())
        text, reason, tokens = _answer(reply.data)
        self.add("finish_length", reason == "length", f"finish_reason {reason} after {tokens} of 8 tokens", "warning")
        middle = text.strip()[len(text.strip()) // 3 :].strip()[:1]
        if not middle:
            return self.skip("finish_stop", "no text to choose a stop string from")
        # A character that greedy decoding has just produced: it will come again, whatever the model.
        reply = self.endpoint.post(path, dict(body, stop=[middle]))
        if reply.status != 200:
            return self.add("finish_stop", False, reply.complaint())
        stopped, reason, tokens = _answer(reply.data)
        ok = reason == "stop" and middle not in stopped
        return self.add("finish_stop", ok, f"finish_reason {reason} with stop string {middle!r}", "warning")

    def vision(self):
        picture = base64.b64encode(png(224, 224, (255, 0, 0))).decode("ascii")
        content = [
            {"type": "text", "text": "What colour is this picture? Answer with one word."},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
        ]
        reply = self.endpoint.post("/v1/chat/completions", self._chat_body(content, self.max_tokens))
        self._judge_text("vision", reply, expected=("red", "红"))

    # Vectors

    def embeddings(self):
        texts = [text for triple in RELATED for text in triple]
        reply = self.endpoint.post("/v1/embeddings", self._body(input=texts, encoding_format="float"))
        if reply.status != 200:
            return self.add("embeddings", False, reply.complaint())
        vectors = _vectors(reply.data)
        fault = _vector_fault(vectors, len(texts), self.dimension)
        if fault:
            return self.add("embeddings", False, fault)
        self.figures["embedding_dimension"] = len(vectors[0])
        self.add("embeddings", True, f"{len(vectors)} vectors of {len(vectors[0])} finite numbers")
        if self.semantic:
            scores = [
                (cosine(vectors[at], vectors[at + 1]), cosine(vectors[at], vectors[at + 2]))
                for at in range(0, len(texts), 3)
            ]
            detail = "; ".join(f"related {near:.3f}, unrelated {far:.3f}" for near, far in scores)
            self.add("embedding_closeness", any(near > far for near, far in scores), detail)
        else:
            self.skip("embedding_closeness", "semantic is false")
        # What the OpenAI SDK asks for unless told otherwise.
        reply = self.endpoint.post("/v1/embeddings", self._body(input=texts[:1], encoding_format="base64"))
        try:
            size = len(base64.b64decode(_listed(reply.data, "data")[0]["embedding"])) // 4
            detail = f"{size} numbers; {len(vectors[0])} as float"
            return self.add("embeddings_base64", size == len(vectors[0]), detail, "warning")
        except (KeyError, IndexError, TypeError, ValueError):
            return self.add("embeddings_base64", False, f"not base64: {reply.complaint()}", "warning")

    def rerank(self):
        scored = []
        for query, related, unrelated in RELATED:
            documents = [unrelated, related]
            reply = self.endpoint.post("/v1/rerank", self._body(query=query, documents=documents))
            if reply.status in (404, 405):  # text-embeddings-inference
                reply = self.endpoint.post("/rerank", {"query": query, "texts": documents})
            if reply.status != 200:
                return self.add("rerank", False, reply.complaint())
            scores = _rerank_scores(reply.data)
            if sorted(scores) != [0, 1] or not all(_finite(score) for score in scores.values()):
                return self.add(
                    "rerank", False, f"expected one finite score for each of 2 documents: {_short(reply.text)}"
                )
            scored.append((scores[1], scores[0]))
        detail = "; ".join(f"related {near:.4f}, unrelated {far:.4f}" for near, far in scored)
        self.add("rerank", True, detail)
        if self.semantic:
            return self.add("rerank_order", any(near > far for near, far in scored), detail)
        return self.skip("rerank_order", "semantic is false")

    # Around it

    def surroundings(self, documented):
        docs = self.endpoint.get("/docs")
        if documented:
            ok = docs.status == 200 and "html" in docs.content_type + docs.text[:200].lower()
            self.add("docs", ok, "the page is there" if ok else docs.complaint(), "warning")
        metrics = self.endpoint.get("/metrics")
        ok = metrics.status == 200 and "# TYPE" in metrics.text
        lines = sum(1 for line in metrics.text.splitlines() if line and not line.startswith("#"))
        self.add("metrics", ok, f"{lines} values" if ok else metrics.complaint(), "warning")
        version = self.endpoint.get("/version")
        if version.status == 200 and isinstance(version.data, dict) and version.data.get("version"):
            self.figures["engine_version"] = printable(version.data["version"], 40)
        paths = _part(self.endpoint.get("/openapi.json").data, "paths")
        dev = [path for path in DEV_ROUTES if path in paths]
        if dev:
            self.add("dev_mode_off", False, f"VLLM_SERVER_DEV_MODE is set: {', '.join(dev)} are open", "warning")

    def _body(self, **body):
        return dict(body, model=self.model)

    def _chat_body(self, content, max_tokens):
        return self._body(messages=[{"role": "user", "content": content}], max_tokens=max_tokens)


def _part(data, name):
    """The mapping of that name in an answer; empty where there is none."""
    value = data.get(name) if isinstance(data, dict) else None
    return value if isinstance(value, dict) else {}


def _listed(data, name):
    """The mappings in the list of that name in an answer; empty where there is none."""
    value = data.get(name) if isinstance(data, dict) else None
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _count(value):
    """A count as an answer gives it; 0 where it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _text_of(message):
    """What a model said; reasoning counts."""
    texts = (message.get(name) for name in ("text", "content", "reasoning_content", "reasoning"))
    return next((text for text in texts if isinstance(text, str) and text), "")


def _answer(data):
    """(text, finish_reason, completion tokens) of a chat or plain completion."""
    choice = (_listed(data, "choices") or [{}])[0]
    text = _text_of({**_part(choice, "message"), **{key: choice[key] for key in ("text",) if choice.get(key)}})
    reason = choice.get("finish_reason")
    tokens = _count(_part(data, "usage").get("completion_tokens"))
    return text, None if reason is None else printable(reason, 40), tokens


def _delta(event):
    choices = _listed(event, "choices")
    return _text_of(_part(choices[0], "delta")) if choices else ""


def _vectors(data):
    return [entry.get("embedding") for entry in _listed(data, "data")]


def _vector_fault(vectors, count, dimension):
    if len(vectors) != count:
        return f"{len(vectors)} vectors for {count} texts"
    if not all(isinstance(vector, list) and vector for vector in vectors):
        return "an embedding is missing or empty"
    sizes = sorted({len(vector) for vector in vectors})
    if len(sizes) > 1:
        return f"vectors of different lengths: {sizes}"
    if dimension and sizes[0] != dimension:
        return f"vectors of {sizes[0]} numbers, expected {dimension}"
    bad = sum(1 for vector in vectors for value in vector if not _finite(value))
    if bad:
        return f"{bad} of {count * sizes[0]} numbers are NaN, infinite or null"
    if not all(any(vector) for vector in vectors):
        return "a vector is all zeros"
    return None


def _rerank_scores(data):
    """{document index: score} from vLLM's, Cohere's or text-embeddings-inference's answer."""
    entries = data.get("results", data.get("data")) if isinstance(data, dict) else data
    scores = {}
    for entry in entries[:MOST_MODELS] if isinstance(entries, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("index"), int):
            scores[entry["index"]] = entry.get("relevance_score", entry.get("score"))
    return scores


def _finite(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def cosine(a, b):
    """Cosine of the angle between two vectors, of which neither is all zeros."""
    # Each by its largest number first: squares of very small and very large ones are 0 and infinite.
    a, b = ([x / max(map(abs, vector)) for x in vector] for vector in (a, b))
    return sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def png(width, height, colour):
    """A PNG of one RGB colour."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\x00" + bytes(colour) * width
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(row * height))
        + chunk(b"IEND", b"")
    )


def _short(text, limit=160):
    return printable(" ".join(text[: 10 * limit].split()), limit)


def summary(result):
    """The result as lines that a person reads."""
    marks = {"error": "FAIL", "warning": "warn", "info": "note"}
    lines = [f"{result['model'] or '?'} ({result['type']}) at {result['endpoint']}"]
    lines += [
        f"  {'ok' if check['ok'] else marks[check['severity']]:<4}  {check['name']:<20} {check['detail']}"
        for check in result["checks"]
    ]
    lines += [f"  skip  {unasked['name']:<20} {unasked['reason']}" for unasked in result["unasked"]]
    figures = result["figures"]
    if "time_to_first_token_seconds" in figures:
        first, rate = figures["time_to_first_token_seconds"], figures.get("tokens_per_second", "?")
        lines.append(f"  one request alone: first token after {first} s, {rate} tokens/s")
    return lines
