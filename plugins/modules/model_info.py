#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: model_info
version_added: "0.1.0"
author: The inferops.gpu_host maintainers (@inferops)
short_description: Read what a model is from its configuration
description:
  - Reads C(config.json) and what lies beside it from a directory, from a hub, or as given.
  - Downloads no weights. From a hub it takes some kilobytes, from a directory only headers of safetensors files.
  - The answer is what M(inferops.gpu_host.vllm_plan) needs to know about the model.
extends_documentation_fragment:
  - inferops.gpu_host.attributes
  - inferops.gpu_host.attributes.info_module
options:
  model:
    description: The model's id on the hub. With O(path) or O(config) only a name.
    type: str
  hub:
    description: Where the configuration comes from when neither O(path) nor O(config) is given.
    type: str
    choices: [modelscope, huggingface, local, generated]
    default: modelscope
  revision:
    description: Branch, tag or commit. The hub's default when left out.
    type: str
  path:
    description: A directory that holds the model. Beats O(hub) when it has a C(config.json).
    type: path
  config:
    description: The content of C(config.json). Beats O(path) and O(hub).
    type: dict
  hf_quant_config:
    description: The content of C(hf_quant_config.json), with O(config).
    type: dict
  endpoint:
    description: The hub's address, where it is a mirror.
    type: str
  token:
    description: What opens a private model.
    type: str
  timeout:
    description: Seconds to wait for the hub.
    type: int
    default: 30
  strict:
    description: Fail on an architecture that is not known, instead of describing it as a Llama-like decoder.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Read a model's configuration from ModelScope
  inferops.gpu_host.model_info:
    model: Qwen/Qwen2.5-7B-Instruct

- name: From a mirror of Hugging Face
  inferops.gpu_host.model_info:
    model: deepseek-ai/DeepSeek-R1
    hub: huggingface
    endpoint: https://hf-mirror.com

- name: From a directory on this host
  inferops.gpu_host.model_info:
    path: /data/models/Qwen/Qwen2.5-7B-Instruct
"""

RETURN = r"""
model:
  description: All that was found.
  returned: success
  type: dict
  contains:
    config: {description: The content of C(config.json)., type: dict}
    hf_quant_config: {description: "The content of C(hf_quant_config.json), or V(null).", type: dict}
    source: {description: "Where it was read: V(inline), V(generated), a directory or an address.", type: str}
    type: {description: "V(chat), V(completion), V(embedding), V(rerank) or V(vision).", type: str}
    architecture: {description: The model's class., type: str}
    basis: {description: "V(config), or V(generic) for an unknown architecture taken as Llama-like.", type: str}
    parameters: {description: "C(total) and C(active), counted from the configuration.", type: dict}
    dtype: {description: What the checkpoint is stored in., type: str}
    quantization: {description: "The quantization method, or V(null).", type: str}
    layers: {description: Number of layers by kind., type: dict}
    heads: {description: Attention heads., type: int}
    kv_heads: {description: Key and value heads., type: int}
    max_model_len: {description: The longest context in tokens., type: int}
    files_bytes: {description: "Bytes of all files, where they could be listed.", type: int}
    loads:
      description: The files that the engine would load, where they could be listed; at most 20.
      type: list
      elements: str
    weights_bytes: {description: "Bytes of the files that are loaded, where they could be listed.", type: int}
    safetensors: {description: "What the headers say, where they could be read.", type: dict}
    assumed: {description: Keys left to the published default of the model type., type: list, elements: str}
"""

import contextlib
import http.client
import json
import os
import urllib.request
from urllib.error import HTTPError, URLError

from ansible_collections.inferops.gpu_host.plugins.module_utils import _bounded_http
from ansible_collections.inferops.gpu_host.plugins.module_utils._config_keys import ConfigError
from ansible_collections.inferops.gpu_host.plugins.module_utils._model import safetensors
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.demo import DEMO_MODEL_ID, demo_config
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner import model_info as _model_info
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.model_info import ModelInfoError
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import printable, read_file


def _from_directory(path):
    details = {}
    for name in ("config.json", *_model_info.DETAILS):
        file = os.path.join(path, name)
        if os.path.exists(file):
            details[name] = _model_info.parse_json(
                read_file(file, error=ModelInfoError, limit=_model_info.LONGEST_JSON), file
            )
    if "config.json" not in details:
        raise ModelInfoError(f"{path} holds no config.json: is it the model's directory (path)?")
    files = {}
    for folder, _folders, names in os.walk(path):
        for name in names:
            file = os.path.join(folder, name)
            with contextlib.suppress(OSError):  # a link that leads nowhere
                files[os.path.relpath(file, path)] = os.path.getsize(file)
        if len(files) > _model_info.MOST_FILES:
            raise ModelInfoError(f"{path} holds more than {_model_info.MOST_FILES} files: is it the model's directory?")
    return details, files, safetensors.read_directory(path)


class _Hub:
    """A model on a hub, as far as small files go."""

    def __init__(self, params):
        self.where = params["hub"], params["endpoint"], params["model"], params["revision"]
        self.timeout = params["timeout"]
        self.token = params["token"]
        self.opener = urllib.request.build_opener(*_bounded_http.handlers(self.timeout, 4 * self.timeout))

    def _get(self, url, limit):
        try:
            request = urllib.request.Request(url, headers={"User-Agent": "inferops.gpu_host"})
            if self.token:  # for the hub alone: a redirect elsewhere does not get it
                request.add_unredirected_header("Authorization", "Bearer " + self.token)
            with self.opener.open(request, timeout=self.timeout) as response:
                return _bounded_http.read(response, limit)
        except (ValueError, http.client.HTTPException) as error:
            raise ModelInfoError(f"{printable(url)}: {printable(error)}") from error

    def read(self):
        hub, endpoint, model, revision = self.where
        try:
            files = _model_info.parse_listing(
                hub, self._get(_model_info.listing_url(*self.where), _model_info.LONGEST_LISTING)
            )
            details = {}
            for name in ("config.json", *_model_info.DETAILS):
                if name in files:
                    url = _model_info.file_url(hub, endpoint, model, revision, name)
                    details[name] = _model_info.parse_json(self._get(url, _model_info.LONGEST_JSON), url)
        except HTTPError as error:
            hint = "is the model's id right, and does the token open it?" if error.code in (401, 403, 404) else ""
            raise ModelInfoError(
                f"{error.url or model}: the hub answers {error.code} {printable(error.reason, 80)}; {hint}"
            ) from error
        except (URLError, OSError) as error:
            raise ModelInfoError(
                f"{hub} cannot be reached for {model} ({printable(getattr(error, 'reason', error))}): "
                "give the model's config (inline) or path, or set endpoint to a mirror"
            ) from error
        if "config.json" not in details:
            raise ModelInfoError(f"{model} on {hub} has no config.json among its {len(files)} files")
        return details, files


def model_info(params):
    model, path = params["model"], params["path"]
    details, files, tensors, source = {}, {}, None, "inline"
    if params["config"] is not None:
        details = {"config.json": params["config"], "hf_quant_config.json": params["hf_quant_config"]}
    elif path and (params["hub"] == "local" or os.path.exists(os.path.join(path, "config.json"))):
        details, files, tensors = _from_directory(path)
        source = path
    elif params["hub"] == "generated":
        details, source, model = {"config.json": demo_config()}, "generated", model or DEMO_MODEL_ID
    elif params["hub"] == "local":
        raise ModelInfoError("hub is local: set path to the model's directory")
    elif not model:
        raise ModelInfoError("set model, path or config")
    else:
        details, files = _Hub(params).read()
        source = _model_info.listing_url(params["hub"], params["endpoint"], model, params["revision"])
    found = _model_info.describe(
        details["config.json"],
        model=model or path or "",
        files=files,
        hf_quant_config=details.get("hf_quant_config.json"),
        tokenizer_config=details.get("tokenizer_config.json"),
        tensors=tensors,
        strict=params["strict"],
    )
    return dict(found, source=source)


def main():
    module = RedactingModule(
        argument_spec={
            "model": {"type": "str"},
            "hub": {
                "type": "str",
                "choices": ["modelscope", "huggingface", "local", "generated"],
                "default": "modelscope",
            },
            "revision": {"type": "str"},
            "path": {"type": "path"},
            "config": {"type": "dict"},
            "hf_quant_config": {"type": "dict"},
            "endpoint": {"type": "str"},
            "token": {"type": "str", "no_log": True},
            "timeout": {"type": "int", "default": 30},
            "strict": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    try:
        found = model_info(module.params)
    except (ModelInfoError, ConfigError, safetensors.SafetensorsError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, model=json.loads(json.dumps(found)))


if __name__ == "__main__":
    main()
