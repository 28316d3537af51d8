# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which routes of an engine answer without the key, and what that means.

vLLM's key guards some prefixes of paths and leaves the rest. Every path of every recorded version is judged here: it
does the model's WORK, it CHANGES the engine, or it only TELLS. Routes that work are asked with a body that cannot be
parsed: whoever wants the key says so before the body is read. What changes the engine is never asked; that it is there
is enough.
"""

from __future__ import annotations

import re

from ansible_collections.inferops.gpu_host.plugins.module_utils import _service_values as values
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import printable
from ansible_collections.inferops.gpu_host.plugins.module_utils._vllm_options import version_tuple
from ansible_collections.inferops.gpu_host.plugins.module_utils._vllm_route_table import GUARDED, ROUTES, VERSIONS

WORK = frozenset(
    """
    /classify /cohere/v2/chat /cohere/v2/chat/render /detokenize /generative_scoring /inference/v1/generate /invocations
    /pooling /rerank /score /tokenize /v1/audio/transcriptions /v1/audio/translations /v1/chat/completions
    /v1/chat/completions/batch /v1/chat/completions/derender /v1/chat/completions/render /v1/completions
    /v1/completions/derender /v1/completions/render /v1/decisions /v1/embeddings /v1/messages /v1/messages/count_tokens
    /v1/messages/render /v1/realtime /v1/rerank /v1/responses /v1/responses/render /v1/score /v1/systemone /v2/embed
    /v2/rerank
    """.split()
)
CHANGES = frozenset(
    """
    /abort_requests /collective_rpc /fault_tolerance/apply /finish_weight_update /inference/v1/abort_requests
    /init_weight_transfer_engine /pause /release_kv_cache_memory /reset_encoder_cache /reset_mm_cache
    /reset_prefix_cache /resume /scale_elastic_ep /shutdown_weight_transfer_engine /sleep /start_draft_weight_update
    /start_profile /start_weight_update /stop_profile /update_weight_version /update_weights /v1/load_lora_adapter
    /v1/responses/{response_id}/cancel /v1/unload_lora_adapter /wake_up /weight_checker
    """.split()
)
TELLS = frozenset(
    """
    / /docs /docs/oauth2-redirect /fault_tolerance/status /get_world_size /health /info /is_paused
    /is_scaling_elastic_ep /is_sleeping /kv_event_sources /load /metrics /openapi.json /ping /ready /redoc /server_info
    /tokenizer_info /v1/models /v1/responses/{response_id} /version /weight_info
    """.split()
)
# text-embeddings-inference (router/src/http/server.rs): its key guards all of them, or none.
TEI_WORK = frozenset("/decode /embed /embed_all /embed_sparse /embeddings /predict /rerank /tokenize /vertex".split())
# What every version has without being asked for it, in no development mode; without its document, this is known.
ALWAYS = frozenset(["/scale_elastic_ep"])

MOST_ROUTES = 400  # of a document; vLLM has about seventy
CURE = (
    "set bind_address: 127.0.0.1 for the service and let a proxy pass /v1 only, or say inference_open_routes: accept "
    "where only trusted machines reach the port"
)


def recorded(version):
    """({path: methods}, guarded prefixes) of a version: of it, or of both neighbours; of all where it is not known."""
    wanted = version_tuple(version)
    known = [(version_tuple(name), at) for at, name in enumerate(VERSIONS)]
    below = [at for found, at in known if wanted and found <= wanted][-1:]
    above = [at for found, at in known if wanted and found >= wanted][:1]
    columns = set(below + above) if below else {at for _found, at in known}
    routes = {}
    for name, row in ROUTES.items():
        method, path = name.split(" ")
        if any(row[at] == "x" for at in columns):
            routes.setdefault(path, set()).add(method)
    return routes, tuple(set.intersection(*(set(GUARDED[VERSIONS[at]]) for at in columns)))


def documented(document):
    """{path: {method: whether it must have a body}} of an OpenAPI document that anyone may have written."""
    paths = document.get("paths") if isinstance(document, dict) else None
    found = {}
    for path, item in list(paths.items())[:MOST_ROUTES] if isinstance(paths, dict) else ():
        if not isinstance(item, dict) or not re.fullmatch(r"/[\x21-\x7e]{0,300}", path):
            continue
        methods = {}
        for method, operation in item.items():
            if str(method).lower() in ("get", "post", "put", "patch", "delete"):
                body = operation.get("requestBody") if isinstance(operation, dict) else None
                methods[method.upper()] = isinstance(body, dict) and body.get("required") is True
        if methods:
            found[path] = methods
    return found


def kind(path, methods=(), tei=False):
    """work, changes, tells or unknown."""
    path = path.rstrip("/") or "/"
    if path in WORK or (tei and path in TEI_WORK):
        return "work"
    if path in CHANGES:
        return "changes"
    if path in TELLS or set(methods) <= {"GET", "HEAD", "OPTIONS"}:
        return "tells"
    return "unknown"


def questions(document, version, tei=False):
    """What to do about each route: {probe: [path], judged: {path: why}, unseen: [path]}, in the order of their names.

    probe: asked with a body that cannot be parsed. judged: open by what is known of them. document: None where none is
    served; then routes that only some ways of starting have cannot be seen.
    """
    served = documented(document) if document is not None else None
    listed, guarded = recorded(version) if not tei else ({path: {"POST"} for path in TEI_WORK}, ("/",))
    probe, judged, unseen = set(), {}, set()
    for path in {*listed, *(served or {})}:
        methods = set((served or {}).get(path, listed.get(path, ())))
        what = kind(path, methods, tei)
        under_key = path.startswith(guarded)
        if what == "work" and "{" not in path and "POST" in methods:
            probe.add(path)
        elif what == "changes" and not under_key:
            if served is None:
                (judged.setdefault(path, "changes the engine") if path in ALWAYS and version else unseen.add(path))
            elif path in served:
                judged[path] = "changes the engine"
        elif what == "unknown" and not under_key:
            # With a body that it must have, nothing happens before that is read. Otherwise to ask may be to do.
            if served[path].get("POST") and "{" not in path:
                probe.add(path)
            else:
                judged[path] = "is known of no version, and takes " + ", ".join(sorted(methods - {"GET"}))
    return {"probe": sorted(probe), "judged": judged, "unseen": sorted(unseen)}


def verdict(open_work, judged):
    """One line about what is open; empty when nothing is."""
    parts = []
    if open_work:
        parts.append(f"work is done without a key by {_some(open_work)}")
    if judged:
        by_reason = {}
        for path, reason in sorted(judged.items()):
            by_reason.setdefault(reason, []).append(path)
        parts += [f"{_some(paths)} {reason} without one" for reason, paths in sorted(by_reason.items())]
    return "; ".join(parts)


def _some(paths, most=12):
    shown = ", ".join(printable(path, 80) for path in paths[:most])
    return shown + (f" and {len(paths) - most} more" if len(paths) > most else "")


def warnings(services, default_key=None, accepted=False):
    """{service: line} of the services whose open routes others will reach, known before anything is started."""
    lines = {}
    for service in services:
        key = str(service.get("api_key") or default_key or "").strip().lower()
        if service["engine"] != "vllm" or service["state"] != "started" or key == values.OPEN or accepted:
            continue
        if not values.is_loopback(service["bind_address"]):
            lines[service["name"]] = (
                f"{service['name']} would listen on {service['bind_address']}, and vLLM's key does not guard routes "
                f"that take work, such as /invocations and /tokenize: {CURE}"
            )
    return lines
