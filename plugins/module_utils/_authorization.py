# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may ask an endpoint: which of its routes refuse a missing and a wrong key, and which do not."""

from __future__ import annotations

import time

from ansible_collections.inferops.gpu_host.plugins.module_utils import _open_routes

WRONG_KEY = "wrong-key-of-inference-check"
# Routes that a key must protect.
GUARDED_ROUTES = (
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/rerank"),
    ("POST", "/v1/score"),
    ("POST", "/v2/rerank"),
)
# No JSON. Whoever wants the key says so first; whoever reads this first has let everyone in.
UNREADABLE = b"{"
REFUSED, NOT_THERE = (401, 403), (404, 405, 501)
PATIENCE = 5  # seconds for one route: nothing is computed for it
PATIENCE_FOR_ALL = 90
DOCUMENTS = ("/openapi.json", "/api-doc/openapi.json")


def check(run, exposed=True, accepted=False):
    """Adds to a run of _inference_check what its endpoint says to those who have no key, or a wrong one.

    exposed: others than the host itself reach it. accepted: routes that are open are wanted so.
    """
    if not run.endpoint.api_key:
        detail = "OPEN: no key is wanted, and whoever reaches the port may use it"
        return run.add("api_key", False, detail, "info")
    asked = _Asked(run.endpoint.within(PATIENCE))
    for name, key in (("no_key_refused", None), ("wrong_key_refused", WRONG_KEY)):
        answers = [(path, asked.status(method, path, key)) for method, path in GUARDED_ROUTES]
        served = [(path, status) for path, status in answers if status and status not in NOT_THERE]
        leaks = [f"{path} ({status})" for path, status in served if status not in REFUSED]
        detail = f"answered: {', '.join(leaks)}" if leaks else f"{len(served)} routes refuse it"
        run.add(name, served and not leaks, detail)
    return _open(run, asked, exposed, accepted)


def _open(run, asked, exposed, accepted):
    tei = str(run.figures.get("engine_version", "")).startswith("text-embeddings-inference")
    document, version = _document(run.endpoint), _version(run.endpoint)
    what = _open_routes.questions(document, version, tei)
    answers = {path: asked.status("POST", path, None) for path in what["probe"]}
    # 3xx: something in between sends elsewhere, and the engine has not been asked.
    shut = (*REFUSED, *NOT_THERE, 0)
    found = [path for path, status in answers.items() if status not in shut and not 300 <= status < 400]
    silent = [path for path, status in answers.items() if status == 0]
    if silent:
        run.skip("unguarded_routes", f"{len(silent)} routes gave no answer in time: {', '.join(silent[:5])}")
    if what["unseen"]:
        reason = "no OpenAPI document is served, so routes of a development mode cannot be seen"
        run.skip("unguarded_routes", reason)
    said = _open_routes.verdict(found, what["judged"])
    if not said:
        return run.add("unguarded_routes", True, "every route that does work or changes the engine wants the key")
    if accepted:
        return run.add("unguarded_routes", False, f"{said}; accepted by inference_open_routes", "info")
    if not exposed:
        return run.add("unguarded_routes", False, f"{said}; none but this host reaches them", "info")
    return run.add("unguarded_routes", False, f"{said}. Cure: {_open_routes.CURE}", "error")


class _Asked:
    """Questions without the right key, all of them within a time."""

    def __init__(self, endpoint):
        self.endpoint = endpoint
        self.deadline = time.monotonic() + PATIENCE_FOR_ALL

    def status(self, method, path, key):
        """0 when there was no answer, or no time left to ask."""
        if time.monotonic() > self.deadline:
            return 0
        if method == "GET":
            return self.endpoint.get(path, key=key).status
        return self.endpoint.post(path, UNREADABLE, key=key).status


def _document(endpoint):
    """What the engine says of its routes; None when it says nothing, or nothing that can be read."""
    for path in DOCUMENTS:
        reply = endpoint.get(path)
        if reply.status == 200 and _open_routes.documented(reply.data):
            return reply.data
    return None


def _version(endpoint):
    data = endpoint.get("/version").data
    version = data.get("version") if isinstance(data, dict) else None
    return version if isinstance(version, str) and len(version) < 100 else None
