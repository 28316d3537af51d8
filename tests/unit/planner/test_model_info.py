from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.inferops.gpu_host.plugins.module_utils._model import demo
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.config import parse_model_config
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner import model_info as _model_info
from ansible_collections.inferops.gpu_host.plugins.modules import model_info

CONFIG = demo.demo_config()
FILES = {"config.json": 400, "model.safetensors": 3 * 10**6, "tokenizer_config.json": 50, "README.md": 7}


class _Hub(BaseHTTPRequestHandler):
    """Stand-in hub that speaks as much of both protocols as reading a configuration takes."""

    def do_GET(self):
        answers = {
            "/api/v1/models/o/m/repo/files?Revision=master&Recursive=True": {
                "Code": 200,
                "Data": {"Files": [{"Path": path, "Size": size, "Type": "blob"} for path, size in FILES.items()]},
            },
            "/api/v1/models/o/m/repo?Revision=master&FilePath=config.json": CONFIG,
            "/api/v1/models/o/m/repo?Revision=master&FilePath=tokenizer_config.json": {"chat_template": "{{ x }}"},
            "/api/models/o/m/tree/v1?recursive=true": [
                {"path": path, "size": size, "type": "file"} for path, size in FILES.items()
            ],
            "/o/m/resolve/v1/config.json": CONFIG,
            "/o/m/resolve/v1/tokenizer_config.json": {},
        }
        answer = answers.get(self.path)
        private = self.path.startswith("/api/models") and self.headers.get("Authorization") != "Bearer secret"
        self.send_response(401 if private else 200 if answer is not None else 404)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def endpoint():
    server = HTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def run(capsys):
    def call(**arguments):
        with patch_module_args(arguments), pytest.raises(SystemExit):
            model_info.main()
        return json.loads(capsys.readouterr().out)

    return call


def test_from_modelscope(run, endpoint):
    model = run(model="o/m", endpoint=endpoint)["model"]
    assert model["config"] == CONFIG
    assert (model["type"], model["layers"], model["weights_bytes"]) == ("chat", {"full": 2}, 3 * 10**6)
    assert model["files_bytes"] == sum(FILES.values())


def test_from_hugging_face_with_a_token(run, endpoint):
    found = run(model="o/m", hub="huggingface", revision="v1", endpoint=endpoint, token="secret")
    assert found["model"]["type"] == "completion"  # it brings no chat template
    assert "secret" not in json.dumps(found["model"])
    assert "401" in run(model="o/m", hub="huggingface", revision="v1", endpoint=endpoint)["msg"]


def test_a_model_that_the_hub_does_not_have(run, endpoint):
    failed = run(model="o/none", endpoint=endpoint)
    assert "404" in failed["msg"] and "id right" in failed["msg"]


def test_a_hub_that_cannot_be_reached(run):
    failed = run(model="o/m", endpoint="http://127.0.0.1:9")
    assert "modelscope cannot be reached for o/m" in failed["msg"] and "mirror" in failed["msg"]


def test_from_a_directory_with_its_headers(run, tmp_path):
    demo.write_demo_model(str(tmp_path))
    model = run(path=str(tmp_path), hub="local")["model"]
    assert model["source"] == str(tmp_path)
    assert model["safetensors"]["bytes"] == model["weights_bytes"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "holds no config.json"), ("{", "is no JSON"), ("[]", "JSON object"), ("{}", "architectures")],
)
def test_a_bad_directory(run, tmp_path, content, message):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert message in run(path=str(tmp_path), hub="local")["msg"]


def test_inline_and_generated(run):
    assert run(config=CONFIG)["model"]["source"] == "inline"
    assert run(hub="generated")["model"]["config"] == CONFIG


def test_missing_key_is_named(run):
    config = {key: value for key, value in CONFIG.items() if key != "num_hidden_layers"}
    assert "num_hidden_layers" in run(config=config)["msg"]


@pytest.mark.parametrize(
    ("architecture", "model", "files", "kind"),
    [
        ("Qwen2ForCausalLM", "Qwen/Qwen2.5-7B-Instruct", (), "chat"),
        ("Qwen2ForCausalLM", "Qwen/Qwen2.5-7B-base", (), "completion"),
        ("Qwen2ForCausalLM", "o/m", ("config.json",), "completion"),
        ("Qwen2ForCausalLM", "o/m", ("config.json", "chat_template.jinja"), "chat"),
        ("Qwen2ForCausalLM", "Qwen/Qwen3-Embedding-8B", (), "embedding"),
        ("Qwen2ForCausalLM", "o/m", ("modules.json",), "embedding"),
        ("Qwen2ForCausalLM", "Qwen/Qwen3-Reranker-8B", (), "rerank"),
    ],
)
def test_what_a_model_is_for(architecture, model, files, kind):
    spec = parse_model_config(dict(CONFIG, architectures=[architecture]))
    assert _model_info.detect_type(spec, model, files) == kind


@pytest.mark.parametrize(
    ("files", "loaded"),
    [
        (["a.safetensors", "pytorch_model.bin"], ["a.safetensors"]),
        (["consolidated.safetensors", "model-1.safetensors"], ["model-1.safetensors"]),
        (["pytorch_model.bin", "training_args.bin"], ["pytorch_model.bin"]),
        (["onnx/model.onnx", "pytorch_model.bin"], ["pytorch_model.bin"]),
    ],
)
def test_copies_of_weights_are_not_counted_twice(files, loaded):
    assert _model_info.weight_files(files) == loaded
