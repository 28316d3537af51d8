"""What the role preflight refuses, each on a host of its own, in one play. A task whose check is emptied lets its host pass."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

import role_plays

ROOT = Path(__file__).resolve().parents[2]
CONFIG = json.loads((ROOT / "playbooks/files/model_configs.json").read_text())["Qwen/Qwen2.5-7B-Instruct"]
UUID = "GPU-00000000-0000-4000-8000-000000000001"  # the first of each constructed capture


def gpu_service(name, uuid=UUID):
    service = {"name": name, "model": "Qwen/Qwen2.5-7B-Instruct", "config": CONFIG, "hosts": [name], "api_key": "none"}
    service["port"] = role_plays.free_port()
    entry = role_plays.plan(service)["services"][0]
    entry.update(accelerator="cuda", files_bytes=1000)
    entry["placements"][0]["nodes"][0]["gpus"] = [{"uuid": uuid, "index": 0}]
    return service, entry


def cpu_service(name, port=None):
    service = {**role_plays.service(name, name), "port": port or role_plays.free_port()}
    return service, role_plays.plan(service)["services"][0]


def test_what_is_refused_before_anything_is_changed(stage, tmp_path, modules):
    def python(name, *prefix, program=sys.executable):
        script = tmp_path / (name + "-python")
        script.write_text(f'#!/bin/sh\nexec {" ".join(prefix)} {program} "$@"\n')
        script.chmod(0o755)
        return {"ansible_python_interpreter": str(script)}

    def with_gpu(name, capture):
        program = role_plays.module_server.interpreter(tmp_path, modules.path, name + "-client")
        path = f"{ROOT / 'tests/stand_ins/nvidia-smi'}:{os.environ['PATH']}"
        return python(name, "env", f"PATH={path}", f"NVIDIA_SMI_CAPTURE={capture}", program=program)

    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    room = {"preflight_engine_free_gib": {"cuda": 0, "cpu": 0}, "preflight_allow_root_filesystem": True}
    cases = {  # host: (variables, service, words of the refusal; none where it passes)
        "nobody": (
            python("nobody", "unshare", "--user"),
            cpu_service("nobody"),
            ("The play acts as nobody on nobody, wanted root", "ansible_become"),
        ),
        "foreign": (
            {"preflight_supported_systems": {"Plan9": ["4"]}},
            cpu_service("foreign"),
            ("supported are Plan9 4", "preflight_allow_unsupported_system"),
        ),
        "allowed": (
            {"preflight_supported_systems": {"Plan9": ["4"]}, "preflight_allow_unsupported_system": True},
            cpu_service("allowed"),
            (),
        ),
        "small": (
            python("small", "setarch", "i686"),
            cpu_service("small"),
            ("small is i386; engines are built for x86_64 and aarch64 only",),
        ),
        "narrow": (
            {"preflight_allow_root_filesystem": False, "preflight_models_dir": "/nowhere/models"},
            gpu_service("narrow"),
            ("narrow: /nowhere/models/", "would lie on the root filesystem"),
        ),
        "full": (
            {"preflight_engine_free_gib": {"cpu": 10**6}, "preflight_engine_dir": str(tmp_path / "not/there")},
            cpu_service("full"),
            ("wanted 1000000 GiB", "docker_data_root"),
        ),
        "busy": ({}, cpu_service("busy", port), (f"Port {port} on busy is taken by", "inference_services")),
        "lost": (
            with_gpu("lost", "lost-beside-good"),
            gpu_service("lost"),
            ("lost: error: host: GPU 1 (NVIDIA H200, GPU-00000000-0000-4000-8000-000000000002", "waive: [gpu]"),
        ),
        "waived": (
            {**with_gpu("waived", "vgpu-unlicensed"), "preflight_gpu_waive": ["vgpu_license"]},
            gpu_service("waived"),
            (),
        ),
    }
    for name, (variables, _service, _words) in cases.items():
        stage.host(name, **{"preflight_models_dir": str(tmp_path / "models"), **room, **variables})
    services, entries = zip(*(service for _variables, service, _words in cases.values()))
    plan = {"services": list(entries), "problems": [], "gpus": []}
    with taken:
        played = stage.play(stage.role("preflight"), preflight_services=list(services), preflight_plan=plan)

    for name, (_variables, _service, words) in cases.items():
        counts = played.recap[name]
        assert counts["changed"] == 0, name
        assert bool(counts["failed"]) == bool(words), (name, played.output)
        for word in words:
            assert word in played.words, (name, word, played.output)
    assert "Unlicensed (Restricted)" in played.words  # what is waived is told all the same
