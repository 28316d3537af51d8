# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Endpoints: which ones a host serves, and what a client must enter to use one."""

from __future__ import annotations

import base64
import json
import re
import shlex
from urllib.parse import urlsplit

from ansible_collections.inferops.gpu_host.plugins.module_utils import (
    _inference_check,
    _service_keys,
    _vllm_container,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils import _service_values as values
from ansible_collections.inferops.gpu_host.plugins.module_utils._redaction import redacted
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import printable

# Where curl and the OpenAI SDK of a client find the key.
CLIENT_VARIABLE = "OPENAI_API_KEY"
_ANYWHERE = (None, "", "0.0.0.0", "::")
_DIFY_TYPES = {"embedding": "Text Embedding", "rerank": "Rerank"}


class EndpointError(ValueError):
    """An endpoint that cannot be asked as it is declared."""


def on_host(plan, services, host, address, default_key=None, keys_dir="/etc/inferops/keys"):
    """The endpoints that one host serves: [{name, url, probe, model, type, key_variable, …}], without their keys.

    url is for clients, probe for a check on the host itself. services: as normalize_services returns them.
    key_variable or key_file say where the key is; neither, and the service is wanted open.
    """
    declared = {service["name"]: service for service in services if service["state"] == "started"}
    found = []
    for entry in plan.get("services") or []:
        service = declared.get(entry["name"])
        for placement in (entry.get("placements") or []) if service else []:
            if placement["nodes"][0]["host"] != host:
                continue
            bound = service["bind_address"]
            scheme = "https" if "ssl-certfile" in service["options"] else "http"
            inside = "127.0.0.1" if bound in _ANYWHERE else bound
            outside = (address or host) if bound in _ANYWHERE else bound
            outside = "127.0.0.1" if outside == "localhost" else outside
            made = _service_keys.given(service, default_key) == ""
            found.append(
                {
                    "name": _vllm_container.container_name(service, placement, entry),
                    "service": service["name"],
                    "url": _url(scheme, outside, placement["port"]),
                    "probe": _url(scheme, inside, placement["port"]),
                    "model": _first(service["served_model_name"]),
                    "type": service["type"] or entry.get("type") or "chat",
                    "semantic": service["hub"] != "generated",
                    "validate_certs": False if scheme == "https" else None,
                    "key_variable": _key_variable(service, default_key),
                    "key_file": f"{keys_dir}/{service['name']}" if made else None,
                    "exposed": not values.is_loopback(bound),
                    "host": host,
                }
            )
    return found


def keys(services, default=None, made=None):
    """{service: API key} of the services that want one. made: the keys that no operator gave."""
    wanted = {service["name"]: _service_keys.given(service, default) for service in services}
    found = {name: (made or {}).get(name) if key == "" else key for name, key in wanted.items()}
    return {name: key for name, key in found.items() if key}


def given(endpoints):
    """Endpoints that the operator names himself, in the shape of `on_host`, without their keys."""
    found = []
    for item in endpoints:
        root = item["endpoint"].rstrip("/")
        if redacted(root) != root:
            raise EndpointError(
                f"the endpoint {redacted(root)} holds a secret, which would stand on its card and in reports: "
                "give the address without it, and the key of its clients as api_key"
            )
        root = root[: -len("/v1")] if root.endswith("/v1") else root
        name = item.get("name") or "-".join(filter(None, [_slug(root.partition("://")[2]), _slug(item.get("model"))]))
        found.append(
            {
                "name": name,
                "service": name,
                "url": root,
                "probe": root,
                "model": item.get("model"),
                "type": item.get("type") or "chat",
                "semantic": item.get("semantic", True),
                "validate_certs": item.get("validate_certs"),
                "key_variable": CLIENT_VARIABLE if item.get("api_key") else None,
                "key_file": None,
                "exposed": not values.is_loopback(urlsplit(root).hostname or ""),
                "host": None,
            }
        )
    return found


def card(endpoint, result):
    """What a client must know; names the variable of the key, never the key. result: of inference_check."""
    key_variable, key_file = endpoint["key_variable"], endpoint.get("key_file")
    keyed = bool(key_variable or key_file)
    base, kind = endpoint["url"] + "/v1", endpoint["type"]
    model = _said(result.get("model") or endpoint["model"])
    figures = result.get("figures") or {}
    length = figures.get("max_model_len")
    path, body = _request(kind, model)
    body = shlex.quote(body)  # the server named its model, and people paste this into a shell
    key = f'  -H "Authorization: Bearer ${CLIENT_VARIABLE}" \\\n' if keyed else ""
    local = values.is_loopback(urlsplit(endpoint["url"]).hostname or "")
    return {
        "name": endpoint["name"],
        "base_url": base,
        "reachable_from": f"{endpoint['host'] or 'the controller'} only" if local else "the network",
        "model": model,
        "type": kind,
        "key_variable": key_variable,
        "key_file": f"{endpoint['host']}:{key_file}" if key_file else None,
        "context_length": length,
        "embedding_dimension": figures.get("embedding_dimension"),
        "engine_version": _said(figures.get("engine_version")),
        "curl": f"curl {shlex.quote(base + path)} \\\n{key}  -H 'Content-Type: application/json' \\\n  -d {body}",
        "dify": _dify(kind, model, base, _key_place(key_variable, key_file, endpoint), length),
        "python": _python(kind, base, model, keyed),
    }


def report(endpoint, result):
    """The check of one endpoint as it is kept: all of it, but no key ever was in it."""
    wanted = ("endpoint", "model", "type", "ok", "checks", "errors", "doubts", "unasked", "figures")
    return dict({key: result.get(key) for key in wanted}, name=endpoint["name"])


def _key_variable(service, default_key):
    if not _service_keys.given(service, default_key):
        return None
    if service["api_key"]:
        return f"api_key of {service['name']} in inference_services"
    return "inference_api_key"


def _url(scheme, address, port):
    return f"{scheme}://[{address}]:{port}" if ":" in address else f"{scheme}://{address}:{port}"


def _first(value):
    return value[0] if isinstance(value, list) else value


def _said(text):
    """What a server says of itself, as one line that ends no table and no code of a card."""
    return re.sub("[`|]", "'", printable(text)) if text else None


def _slug(text):
    return "".join(letter if letter.isalnum() or letter in ".-_" else "-" for letter in text or "").strip("-").lower()


def _request(kind, model):
    if kind == "embedding":
        return "/embeddings", json.dumps({"model": model, "input": ["Hello"]})
    if kind == "rerank":
        return "/rerank", json.dumps({"model": model, "query": "Hello", "documents": ["Hi", "Goodbye"]})
    if kind == "completion":
        return "/completions", json.dumps({"model": model, "prompt": "Tell me a joke.", "max_tokens": 100})
    content = "Tell me a joke."
    if kind == "vision":
        # Inside the request: the service fetches no address unless its operator allows one.
        drawn = base64.b64encode(_inference_check.png(32, 32, (255, 0, 0))).decode("ascii")
        picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{drawn}"}}
        content = [{"type": "text", "text": "What is in this picture?"}, picture]
    messages = [{"role": "user", "content": content}]
    return "/chat/completions", json.dumps({"model": model, "messages": messages, "max_tokens": 100})


def _key_place(variable, file, endpoint):
    if file:
        return f"what is in {file} on {endpoint['host']}"
    return f"the value of {variable}" if variable else "(leave empty)"


def _dify(kind, model, base, key_place, length):
    """Settings > Model provider > OpenAI-API-compatible > Add model, field by field."""
    fields = {
        "Model Type": _DIFY_TYPES.get(kind, "LLM"),
        "Model Name": model,
        "API Key": key_place,
        "API endpoint URL": base,
    }
    if kind not in _DIFY_TYPES:
        fields["Completion mode"] = "Completion" if kind == "completion" else "Chat"
    if length:
        fields["Model context size"] = length
    if kind == "vision":
        fields["Vision Support"] = "Support"
    return fields


def _python(kind, base, model, keyed):
    key = f'os.environ["{CLIENT_VARIABLE}"]' if keyed else '"none"'
    client = f"client = OpenAI(base_url={json.dumps(base)}, api_key={key})\n"
    head = ("import os\n\n" if keyed else "") + "from openai import OpenAI\n\n" + client
    model = json.dumps(model, ensure_ascii=False)
    if kind == "embedding":
        return head + f'print(client.embeddings.create(model={model}, input=["Hello"]).data[0].embedding[:4])\n'
    if kind == "rerank":  # the SDK has no call for it
        body = f'{{"model": {model}, "query": "Hello", "documents": ["Hi", "Goodbye"]}}'
        return head + f'print(client.post("/rerank", body={body}, cast_to=object))\n'
    if kind == "completion":
        call = f'client.completions.create(model={model}, prompt="Tell me a joke.", max_tokens=100)'
        return head + f"print({call}.choices[0].text)\n"
    question = '[{"role": "user", "content": "Tell me a joke."}]'
    call = f"client.chat.completions.create(model={model}, messages={question}, max_tokens=100)"
    return head + f"print({call}.choices[0].message.content)\n"
