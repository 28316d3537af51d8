"""The role's proof that containers see the GPUs: how they are asked for, and what happens when they are not there."""

from __future__ import annotations

import sys

import role_plays
import yaml

LISTING = "GPU 0: NVIDIA H200 (UUID: GPU-a1)\nGPU 1: NVIDIA H200 (UUID: GPU-b2)\n"


def test_what_the_proof_does(stage, tmp_path):
    def host(name, version, run):
        """A host whose `docker run` does that, and notes what it was asked."""
        directory = tmp_path / (name + "-bin")
        directory.mkdir()
        programs = {
            "nvidia-smi": f"cat {directory}/listing",
            "docker": f'echo "$@" >>{directory}/asked\ncase $1 in run) {run.format(directory)} ;; esac',
            # Whatever a broken role may try: the engine of this machine is out of its sight.
            "dockerd": "exit 1",
            "python": f"export PATH={directory}:$PATH\nexec unshare --mount sh -c "
            f'\'mount -t tmpfs tmpfs /run && exec {sys.executable} "$@"\' sh "$@"',
        }
        for program, script in programs.items():
            (directory / program).write_text("#!/bin/sh\n" + script + "\n")
            (directory / program).chmod(0o755)
        (directory / "listing").write_text(LISTING)
        stage.host(
            name,
            ansible_python_interpreter=str(directory / "python"),
            nvidia_container_toolkit_test_image="probe",
            __nvidia_container_toolkit_now={"version": version, "live_restore": False},
        )
        return directory

    sees = "cat {}/listing"
    hooked, cdi = host("hooked", "26.1.5", sees), host("cdi", "29.1.0", sees)
    host("blind", "29.1.0", "echo")
    host("broken", "29.1.0", "echo no such device >&2; exit 125")
    played = stage.play(stage.role("nvidia_container_toolkit", tasks_from="verify_gpu"))
    assert {name: bool(counts["failed"]) for name, counts in played.recap.items()} == {
        "hooked": False,
        "cdi": False,
        "blind": True,
        "broken": True,
    }, played.output
    assert '--gpus="device=GPU-a1,GPU-b2",driver=nvidia' in (hooked / "asked").read_text()
    asked = (cdi / "asked").read_text()
    assert "--device=nvidia.com/gpu=GPU-a1 --device=nvidia.com/gpu=GPU-b2" in asked and "--gpus" not in asked
    assert 'A container with all GPUs of blind saw ""' in played.words
    assert "no such device" in played.words and "as services do: --device=nvidia.com/gpu=GPU-a1" in played.words


def test_an_engine_is_restarted_for_the_hook_only_behind_the_guard():
    # Not played here: a play would restart the engine of this machine. molecule/nvidia_container_toolkit does.
    tasks = yaml.safe_load((role_plays.ROOT / "roles/nvidia_container_toolkit/tasks/restart_for_hook.yml").read_text())
    guard, restart, again = tasks
    assert guard["ansible.builtin.include_role"] == {"name": "inferops.gpu_host.docker", "tasks_from": "guard"}
    assert not {"when", "ignore_errors", "failed_when"} & set(guard)
    assert restart["block"][0]["inferops.gpu_host.docker_engine"] == {"state": "restarted"}
    assert again["ansible.builtin.include_tasks"] == "run_nvidia_smi.yml"
