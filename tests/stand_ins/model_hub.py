#!/usr/bin/env python3
"""A stand-in for ModelScope and the Hugging Face hub: their download API over a directory, misbehaving on demand.

    model_hub.py --root DIR --port 8090          DIR/ORGANISATION/NAME/… are the models

It speaks as much of both APIs as their official clients use to download. It is told to misbehave over HTTP:

    POST /_control  {"path": "*.safetensors", "do": "cut", "value": 0.7, "times": 1}
    POST /_control  {"reset": true}              rules and figures          {"behave": true}   the rules only
    GET  /_stats    {"bytes": {path: bytes sent}, "requests": {path: n}, "tokens": [seen], "answers": {code: n}}

cut: the connection ends after that share of the file.   wrong: bytes are flipped.   status: answers that code
(429 with Retry-After 1).   slow: bytes per second.   nohash: the listing has no sha256.   stall: sends nothing more.

A rule holds `times` times, from the one after `after` on. The path `listing` stands for the list of a model's files.
Worse manners:

answer: this in place of what was asked for: {code, headers: {}, body, drip: seconds between its bytes, repeat: what is
sent after it without end}; a Content-Length is sent when neither drip nor repeat is there.
listed: these entries more in the list, as {path, size, sha256}.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import re
import sys
import threading
import time
import urllib.parse
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CHUNK = 256 * 1024


class Hub(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, root, address=("127.0.0.1", 0), rate=0):
        super().__init__(address, Handler)
        self.root = Path(root)
        self.rate = rate
        self.guard = threading.Lock()
        self.hashes = {}
        self.reset()

    @property
    def url(self):
        return f"http://{self.server_address[0]}:{self.server_address[1]}"

    def reset(self):
        self.rules, self.bytes, self.requests, self.answers, self.tokens = [], Counter(), Counter(), Counter(), set()
        self.stopped = threading.Event()

    def misbehave(self, do, path="*", value=None, times=None, after=0):
        self.rules.append({"do": do, "path": path, "value": value, "times": times, "after": after})

    def rule(self, do, path):
        """The value of a rule that holds for this path now; it is used up when it counts."""
        with self.guard:
            for rule in self.rules:
                if rule["do"] == do and fnmatch.fnmatch(path, rule["path"]) and rule["times"] != 0:
                    if rule["after"]:
                        rule["after"] -= 1
                        continue
                    if rule["times"]:
                        rule["times"] -= 1
                    return rule["value"] if rule["value"] is not None else True
        return None

    def hash_of(self, path):
        """(sha256, git sha1) of a file, kept while the file stays the same."""
        info = path.stat()
        key = (str(path), info.st_size, info.st_mtime_ns)
        if key not in self.hashes:
            sha256, sha1 = hashlib.sha256(), hashlib.sha1(f"blob {info.st_size}\0".encode())
            with path.open("rb") as handle:
                while chunk := handle.read(CHUNK * 4):
                    sha256.update(chunk)
                    sha1.update(chunk)
            self.hashes[key] = sha256.hexdigest(), sha1.hexdigest()
        return self.hashes[key]

    def files(self, model):
        directory = self.root / model
        return {str(p.relative_to(directory)): p for p in sorted(directory.rglob("*")) if p.is_file()}

    def commit(self, model):
        listing = "".join(f"{path} {self.hash_of(full)[0]}\n" for path, full in self.files(model).items())
        return hashlib.sha1(listing.encode()).hexdigest()

    def stats(self):
        return {
            "bytes": dict(self.bytes),
            "requests": dict(self.requests),
            "answers": {str(code): n for code, n in self.answers.items()},
            "tokens": sorted(self.tokens),
        }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_args):
        pass

    def answer_json(self, data, code=200, **headers):
        body = json.dumps(data).encode()
        self.server.answers[code] += 1
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self):
        order = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}")
        if self.path != "/_control":
            return self.answer_json({"error": "not here"}, 404)
        if order.pop("reset", False):
            self.server.reset()
        if order.pop("behave", False):
            self.server.rules = []
        if order:
            self.server.misbehave(**order)
        return self.answer_json({"ok": True})

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        try:
            self.route()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def route(self):
        url = urllib.parse.urlsplit(self.path)
        path, query = urllib.parse.unquote(url.path), urllib.parse.parse_qs(url.query)
        token = self.headers.get("Authorization", "").replace("Bearer ", "")
        if token:
            self.server.tokens.add(token)
        if path == "/_stats":
            return self.answer_json(self.server.stats())
        for pattern, method in (
            (r"/api/v1/models/([^/]+/[^/]+)/repo/files", self.modelscope_listing),
            (r"/api/v1/models/([^/]+/[^/]+)/repo", self.modelscope_file),
            (r"/api/models/([^/]+/[^/]+)/revision/([^/]+)", self.hf_revision),
            (r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", self.hf_tree),
            (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.hf_file),
            (r"/mirror/([^/]+/[^/]+)/(.+)", self.mirror_file),
        ):
            match = re.fullmatch(pattern, path)
            if match and (self.server.root / match.group(1)).is_dir():
                return method(query, *match.groups())
        return self.answer_json({"Code": 404, "Success": False, "Message": "not found"}, 404)

    # ModelScope

    def modelscope_listing(self, query, model):
        if self.refused("listing"):
            return None
        files = []
        root = query.get("Root", [""])[0].strip("/")
        for path, full in self.server.files(model).items():
            if root and not path.startswith(root + "/"):
                continue
            sha256 = "" if self.server.rule("nohash", path) else self.server.hash_of(full)[0]
            size = full.stat().st_size
            files.append({"Path": path, "Name": full.name, "Type": "blob", "Size": size, "Sha256": sha256})
        for more in self.more_entries():
            files.append({"Path": more["path"], "Type": "blob", "Size": more["size"], "Sha256": more["sha256"]})
        return self.answer_json({"Code": 200, "Success": True, "Data": {"Files": files}})

    def modelscope_file(self, query, model):
        path = query.get("FilePath", [""])[0]
        if not path:
            return self.answer_json({"Code": 200, "Success": True, "Data": {"Id": 1, "Name": model}})
        return self.send_file(model, path, {})

    # Hugging Face

    def hf_revision(self, _query, model, _revision):
        if self.refused("listing"):
            return None
        siblings = [{"rfilename": path} for path in self.server.files(model)]
        return self.answer_json({"id": model, "modelId": model, "sha": self.server.commit(model), "siblings": siblings})

    def hf_tree(self, _query, model, _revision):
        files = []
        for path, full in self.server.files(model).items():
            sha256, sha1 = self.server.hash_of(full)
            size = full.stat().st_size
            entry = {"type": "file", "path": path, "size": size, "oid": sha1}
            if self.server.rule("nohash", path):
                entry["oid"] = ""
            elif path.endswith(".safetensors"):
                entry["lfs"] = {"oid": sha256, "size": size, "pointerSize": 134}
            files.append(entry)
        for more in self.more_entries():
            lfs = {"oid": more["sha256"], "size": more["size"], "pointerSize": 134}
            files.append({"type": "file", "path": more["path"], "size": more["size"], "oid": "", "lfs": lfs})
        return self.answer_json(files)

    def hf_file(self, _query, model, _revision, path):
        full = self.server.root / model / path
        if not full.is_file():
            return self.answer_json({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
        sha256, sha1 = self.server.hash_of(full)
        etag = sha256 if path.endswith(".safetensors") else sha1
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": self.server.commit(model)}
        if etag == sha256:
            headers.update({"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(full.stat().st_size)})
        return self.send_file(model, path, headers)

    def mirror_file(self, _query, model, path):
        return self.send_file(model, path, {})

    # bytes

    def answered_by_order(self, path):
        """Whether a rule has answered in place of what was asked for."""
        order = self.server.rule("answer", path)
        if order is None:
            return False
        body, endless = order.get("body", "").encode("latin-1"), order.get("repeat", "").encode("latin-1")
        headers = dict(order.get("headers", {}))
        if not endless and not order.get("drip"):
            headers.setdefault("Content-Length", str(len(body)))
        self.server.answers[order.get("code", 200)] += 1
        self.send_response(order.get("code", 200))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        if order.get("drip"):
            for byte in body:
                self.wfile.write(bytes([byte]))
                if self.server.stopped.wait(order["drip"]):
                    return True
        else:
            self.wfile.write(body)
        while endless and not self.server.stopped.is_set():
            self.wfile.write(endless * (CHUNK // len(endless) + 1))
            with self.server.guard:
                self.server.bytes[path] += CHUNK
        return True

    def more_entries(self):
        return self.server.rule("listed", "listing") or []

    def refused(self, path):
        if self.answered_by_order(path):
            return True
        code = self.server.rule("status", path)
        if code:
            headers = {"Retry-After": "1"} if code == 429 else {}
            self.answer_json({"Code": code, "Success": False, "Message": "refused by order"}, code, **headers)
        return bool(code)

    def send_file(self, model, path, headers):
        full = self.server.root / model / path
        if not full.is_file():
            return self.answer_json({"Code": 404, "Message": "no such file"}, 404)
        if self.command == "GET":
            self.server.requests[path] += 1
            if self.refused(path):
                return None
        size = full.stat().st_size
        start, end = 0, size - 1
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            start, end = int(asked.group(1)), min(int(asked.group(2) or size - 1), size - 1)
            if start >= size:
                return self.answer_json({"error": "range"}, 416, Content_Range=f"bytes */{size}")
        code = 206 if asked else 200
        self.server.answers[code] += 1
        self.send_response(code)
        self.send_header("Content-Length", str(end - start + 1))
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.send_bytes(full, path, start, end, size)
        return None

    def send_bytes(self, full, path, start, end, size):
        cut = self.server.rule("cut", path)
        last = min(end, int(size * cut) - 1) if cut else end
        wrong = self.server.rule("wrong", path)
        stall = self.server.rule("stall", path)
        rate = self.server.rule("slow", path) or self.server.rate
        began, sent = time.monotonic(), 0
        with full.open("rb") as handle:
            handle.seek(start)
            while start <= last:
                chunk = handle.read(min(CHUNK, last - start + 1))
                if wrong:
                    chunk = bytes([chunk[0] ^ 1]) + chunk[1:]
                self.wfile.write(chunk)
                start += len(chunk)
                sent += len(chunk)
                with self.server.guard:
                    self.server.bytes[path] += len(chunk)
                if rate and sent / rate > time.monotonic() - began:
                    self.server.stopped.wait(sent / rate - (time.monotonic() - began))
                if stall and sent > size * stall:
                    self.server.stopped.wait(600)
        if last < end:
            self.close_connection = True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True)
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--rate", type=int, default=0, help="bytes per second of each file")
    args = parser.parse_args()
    hub = Hub(args.root, (args.host, args.port), args.rate)
    print(f"stand-in hub on {hub.url}", flush=True)
    try:
        hub.serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
