#!/usr/bin/env python3
"""Ratios of model_snapshot against bare tools, in one run: what matters is the quotient, not this machine.

    tests/benchmark/weights.py [--size 2147483648] [--rate 62914560] [--only verify,download,second,fan_out]

verify    `sha256sum` on as many processes as there are cores / state=verified          wanted ≥ 0.90
download  model_snapshot / the bare client, from a stand-in hub of --rate bytes/s        wanted ≤ 1.10
second    seconds of module time of `present` over an intact model                       wanted < 1 s
fan_out   4 hosts in rounds (processes and shares here, --rate / 2 per copy) / one        wanted ≤ 2.60

A line of JSON ends it. The hub's rate stands for a network: without one, all would compete for the same cores.
Here two copies at once run on one machine, givers and receivers, so each has half that rate.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "collections"), str(ROOT / "tests"), str(ROOT / "tests" / "unit")]

import hub_clients
from stand_ins.model_hub import Hub

from ansible_collections.inferops.gpu_host.plugins.module_utils._model_share import ModelShare, Offer
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_snapshot import cores
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_weights import fan_out_rounds

WANTED = {"verify": (">=", 0.9), "download": ("<=", 1.1), "second": ("<", 1.0), "fan_out": ("<=", 2.6)}
FILES, WORKERS = 32, 8


def module(**args):
    """Start the module as Ansible does."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "plugins/modules/model_snapshot.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "collections")},
    )
    given = {"model": "org/name", "allow_root_filesystem": True, **args}
    process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": given}))
    process.stdin.close()
    process.stdin = None
    return process


def finish(process):
    result = json.loads(process.communicate()[0])
    assert not result.get("failed"), result["msg"]
    return result


def timed(action):
    os.sync()
    began = time.monotonic()
    result = action()
    return time.monotonic() - began, result


def warm(directory):
    """Everything in the page cache, so that the disk is not what is compared."""
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb") as handle:
                while handle.read(1 << 24):
                    pass


def verify(directory, hub):
    files = [str(p) for p in directory.rglob("*.safetensors")]
    warm(directory)
    bare, _ = timed(
        lambda: subprocess.run(
            ["xargs", "-P", str(cores()), "-n", "1", "sha256sum"],
            input="\n".join(files),
            text=True,
            check=True,
            stdout=subprocess.DEVNULL,
        )
    )
    ours, result = timed(lambda: finish(module(directory=str(directory), state="verified", endpoint=hub.url)))
    assert result["verified"]
    return bare / ours, {"sha256sum_s": bare, "verified_s": ours}


def download(work, hub, prefix):
    environment = {**os.environ, "MODELSCOPE_ENDPOINT": hub.url, "HOME": str(work / "home")}
    command = [str(prefix / "bin/modelscope"), "download", "org/name", "--max-workers", str(WORKERS), "--local-dir"]
    bare, _ = timed(
        lambda: subprocess.run([*command, str(work / "bare")], check=True, env=environment, capture_output=True)
    )
    shutil.rmtree(work / "bare")
    target = work / "models/org/name"
    ours, _ = timed(
        lambda: finish(module(directory=str(target), endpoint=hub.url, client_prefix=str(prefix), max_workers=WORKERS))
    )
    return ours / bare, {"client_s": bare, "model_snapshot_s": ours}


def second(directory, hub):
    seconds, result = timed(lambda: finish(module(directory=str(directory), endpoint=hub.url)))
    assert not result["changed"]
    return seconds, {"present_s": seconds}


def fan_out(work, directory, rate):
    manifest = json.loads((directory / ".model-manifest.json").read_text())
    hosts = ["h0", "h1", "h2", "h3"]
    places = {host: work / host / "org/name" for host in hosts}
    places["h0"] = directory
    shares = {host: ModelShare(("127.0.0.1", 0), "token", Offer(str(places[host]), rate)) for host in hosts}
    for share in shares.values():
        threading.Thread(target=share.run, daemon=True).start()

    def copy(receiver, holder):
        url = f"http://127.0.0.1:{shares[holder].server_address[1]}/"
        # One stream per copy, so that --rate is the rate of the copy.
        return module(
            source="url", url=url, token="token", manifest=manifest, directory=str(places[receiver]), max_workers=1
        )

    one, _ = timed(lambda: finish(copy("h1", "h0")))
    shutil.rmtree(work / "h1")
    shares["h1"].offers["token"] = Offer(str(places["h1"]), rate)

    def all_rounds():
        for pairs in fan_out_rounds(hosts[:1], hosts[1:]):
            for process in [copy(receiver, holder) for receiver, holder in pairs.items()]:
                finish(process)

    every, _ = timed(all_rounds)
    for share in shares.values():
        share.shutdown()
    return every / one, {"one_copy_s": one, "four_hosts_s": every}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=2 * 1024**3)
    parser.add_argument("--rate", type=int, default=60 * 1024**2, help="bytes per second of the hub, and of two copies")
    parser.add_argument("--only", default=",".join(WANTED))
    args = parser.parse_args()
    only = args.only.split(",")
    prefix = hub_clients.prefix()
    outcome = {}
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_DIR")) as name:
        work = Path(name)
        model = work / "hub/org/name"
        model.mkdir(parents=True)
        for number in range(FILES):
            with (model / f"model-{number}.safetensors").open("wb") as handle:
                for _ in range(args.size // FILES // 2**20):
                    handle.write(os.urandom(2**20))
        hub = Hub(work / "hub", rate=args.rate // WORKERS)
        hub.commit("org/name")  # its hashes are ready before the first question
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        directory = work / "models/org/name"
        if "download" in only:
            outcome["download"] = download(work, hub, prefix)
        else:
            hub.rate = 0
            finish(module(directory=str(directory), endpoint=hub.url, client_prefix=str(prefix)))
        if "second" in only:
            outcome["second"] = second(directory, hub)
        if "verify" in only:
            outcome["verify"] = verify(directory, hub)
        if "fan_out" in only:
            outcome["fan_out"] = fan_out(work, directory, args.rate // 2)
    good = True
    for name, (ratio, figures) in outcome.items():
        relation, limit = WANTED[name]
        kept = {">=": ratio >= limit, "<=": ratio <= limit, "<": ratio < limit}[relation]
        good = good and kept
        seconds = ", ".join(f"{key} {value:.2f}" for key, value in figures.items())
        print(f"{name:9} {ratio:6.2f}   wanted {relation} {limit:<5} {'yes' if kept else 'NO'}   ({seconds})")
    print(json.dumps({name: round(ratio, 3) for name, (ratio, _figures) in outcome.items()}))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
