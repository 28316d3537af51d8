"""Keeps 64 streamed requests going until a file exists, and tells how they ended: streams.py URL KEY MODEL FILE."""

import collections
import json
import os
import sys
import threading
import urllib.request

CLIENTS = 64
ended = collections.Counter()


def stream(url, key, model):
    """How one request ended: whole, or what was missing."""
    body = {"model": model, "messages": [{"role": "user", "content": "Go on"}], "max_tokens": 64, "stream": True}
    body["ignore_eos"] = True
    headers = {"Authorization": "Bearer " + key, "Content-Type": "application/json"}
    request = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode(), headers)
    pieces, reason = 0, None
    try:
        for line in urllib.request.urlopen(request, timeout=300):
            if line.strip() == b"data: [DONE]":
                return "whole" if reason == "length" else f"ended by {reason} after {pieces} pieces"
            if line.startswith(b"data:"):
                reason = json.loads(line[5:])["choices"][0]["finish_reason"]
                pieces += 1
    except OSError as error:
        return str(error)
    return f"broke off after {pieces} pieces"


def client(url, key, model, until):
    while True:
        ended[stream(url, key, model)] += 1  # += of one thread at a time: the interpreter holds its lock
        if os.path.exists(until):
            return


if __name__ == "__main__":
    threads = [threading.Thread(target=client, args=sys.argv[1:]) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(ended))
