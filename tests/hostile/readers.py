"""The readers of what others write: {name: Reader}. A new one gets an entry here, and is tried with everything."""

from __future__ import annotations

import io
import json
import struct
from typing import NamedTuple

from good import (
    ANSWERS,
    CONFIGS,
    DAEMON,
    DEB822,
    HEADER,
    INSPECTION,
    INTERFACES,
    LISTINGS,
    LOGS,
    LSBLK,
    METRICS,
    MODELOPT,
    QUANTIZED,
    QUERIES,
    QWEN,
    RAW_HEADER,
    SMI,
    SOURCES_LIST,
    TOKENIZER,
    UNIT,
    WIPEFS,
)

from ansible_collections.inferops.gpu_host.plugins.module_utils import (
    _apt_sources,
    _block_devices,
    _container_commit,
    _container_state,
    _daemon_json,
    _daemon_merge,
    _docker_engine,
    _engine_log,
    _fstab,
    _gpu_health,
    _gpu_preflight,
    _inference_check,
    _listening,
    _metrics,
    _model_listing,
    _model_manifest,
    _network,
    _nvidia_smi,
    _plan_in_force,
    _ray,
    _sameness,
    _service_status,
    _untrusted,
    _vllm_config_check,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._config_keys import ConfigError
from ansible_collections.inferops.gpu_host.plugins.module_utils._model import safetensors
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner import model_info
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.fleet import FleetError
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.plan import PlanError, plan
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import ServiceError


class Reader(NamedTuple):
    """What it reads: `documents` whose values get replaced, `texts` that get garbled, or documents of which only the
    `words` are another's."""

    read: object
    errors: tuple = ()
    documents: tuple = ()
    texts: tuple = ()
    words: tuple = ()


# --- models ---------------------------------------------------------------------------------------------------------

HOSTS = [{"name": "h", "gpus": {"model": "H100", "count": 8}}]


def describe(config):
    return model_info.describe(config, "org/model", {"model.safetensors": 10, "config.json": 1})


def planned(config):
    return plan([{"name": "s", "model": "org/model", "config": config}], HOSTS)


def header(document):
    raw = json.dumps(document).encode()
    tensors = safetensors.read_header(io.BytesIO(struct.pack("<Q", len(raw)) + raw + bytes(80)), 8 + len(raw) + 80)
    return safetensors.summarize(tensors)


def header_bytes(text):
    raw = text.encode("utf-8", "surrogatepass")
    return safetensors.summarize(safetensors.read_header(io.BytesIO(raw), len(raw)))


def listing(hub):
    return lambda document: model_info.weight_files(model_info.parse_listing(hub, json.dumps(document)))


MANIFEST = _model_manifest.build(
    [_model_manifest.FileEntry("config.json", 3, "0" * 64), _model_manifest.FileEntry("m.safetensors", 5, "1" * 64)],
    *("modelscope", "org/model", "master", "abc", [], [], "2026-11-25"),
)


FILES = {
    "modelscope": {"Code": 200, "Data": {"Files": [{"Path": "a/b", "Size": 3, "Type": "blob", "Sha256": "0" * 64}]}},
    "huggingface": [
        {"type": "file", "path": "config.json", "size": 3, "oid": "1" * 40},
        {"type": "file", "path": "m.safetensors", "size": 3, "oid": "1" * 40, "lfs": {"oid": "2" * 64, "size": 9}},
        {"type": "directory", "path": "x"},
    ],
}


def fetched(entries):
    return _model_manifest.select(_model_manifest.checked_entries(entries))


def manifest(document):
    return _model_manifest.as_lines(_model_manifest.parse(json.dumps(document)))


# --- GPUs -----------------------------------------------------------------------------------------------------------

SERVICE = {"name": "s", "image": "vllm/vllm-openai:v0.33.0", "dtype": "bfloat16", "quantization": "fp8", "gpus": []}


def gpu_findings(query):
    seen = {"smi_rc": 0, "smi": query, "nvidia_pci_devices": ["0x0302"], "fabric_manager": {}, "nvswitches": 4}
    return [_gpu_preflight.describe(item) for item in _gpu_preflight.findings(seen, [SERVICE])]


def topology(text):
    found = _nvidia_smi.parse(QUERIES[0], "00000000:00:06.0, 9.0\n", "GPU 0: x (UUID: GPU-1)\n", text)
    return plan(
        [{"name": "s", "model": "m", "config": QWEN}], [{"name": "h", "gpus": found["gpus"], "links": found["links"]}]
    )


# --- engines --------------------------------------------------------------------------------------------------------


def inspected(inspection):
    found = dict(_container_state.described(inspection), ours=True, healthy=True)
    found["labels"].setdefault("service", "x")
    return _service_status.status({"h": {"containers": {"c": found}}}, [])


def guarded(inspection):
    return _docker_engine.running_containers([inspection], ["io.github.inferops.service"])


class Answers:
    """An endpoint whose answers are given: {path: document}; what is not in it is a 404."""

    def __init__(self, documents, api_key=None):
        self.root, self.api_key, self.documents = "http://h:1", api_key, documents

    def get(self, path, key=True):
        document = self.documents.get(path)
        return _inference_check.Reply(200 if path in self.documents else 404, json.dumps(document))

    def post(self, path, body, key=True):
        return self.get(path)

    def stream(self, path, body):
        stream = _inference_check.Stream(_inference_check.Reply(200))
        events = self.documents.get("events")
        stream.events = events if isinstance(events, list) else []
        stream.arrivals = [0.1 * number for number in range(len(stream.events))]
        stream.done = True
        return stream


def asked(kind):
    def read(documents):
        documents = documents if isinstance(documents, dict) else {}
        return _inference_check.summary(_inference_check.check(Answers(documents), type=kind))

    return read


# --- hosts ----------------------------------------------------------------------------------------------------------


def interfaces(document):
    found = _network.parse_interfaces(json.dumps(document))
    host = {"interfaces": found, "routes": {}, "rdma": []}
    return _network.resolve({"a": host}, {"a": {"network": "10.0.0.0/8"}})


DEVICE = {"path": "/dev/sda", "kname": "sda", "links": ["/dev/disk/by-id/x"], "partuuid": "1-2", "signatures": []}


def named(lines):
    return _fstab.naming(DEVICE, lines)


PLAN = [
    {
        "name": "s",
        "model": "m",
        "type": "chat",
        "layout": {"tensor_parallel_size": 1, "pipeline_parallel_size": 1, "replicas": 1, "dtype": "bfloat16"},
        "engine": {"gpu_memory_utilization": 0.92, "max_model_len": 4096},
        "placements": [{"replica": 0, "port": 8000, "nodes": [{"host": "h", "node_rank": 0, "gpus": [{"index": 0}]}]}],
    }
]


FORCE = {"serial": 7, "hosts": {"h": {"serial": 7, "services": PLAN}, "g": {"serial": 5, "services": []}}}


def in_force_again(document):
    force = _plan_in_force.merged([_plan_in_force.read(json.dumps(document))])
    _plan_in_force.carried_out(force, {"services": []}, ["h"], ["h", "g"], ["s"])
    current = _plan_in_force.services(force)
    return plan([{"name": "s", "model": "m", "config": QWEN}], HOSTS, current=current)


def unit(text):
    found = _docker_engine.unit_settings(text)
    argv = (found["exec_start"] or {"argv": []})["argv"]
    return _docker_engine.configured_keys(_docker_engine.expand(argv, found["environment"]))


def daemon(text):
    return _daemon_merge.merge(text, {"live-restore": True, "log-opts": {"max-size": "1m"}}, {}, "docker")


def sources(deb822):
    wanted = {_apt_sources.repository("https://download.docker.com/linux/debian", "trixie", "amd64")}

    def read(text):
        found, _components = _apt_sources.disabled(text, deb822, wanted, "amd64")
        return _apt_sources.restored(found)

    return read


def frames(text):
    raw = text.encode("utf-8", "surrogatepass")
    return _container_state.lines_of(_container_state.demultiplexed(b"\x01\0\0\0" + struct.pack(">I", len(raw)) + raw))


DISK_ERRORS = (_block_devices.OutputError,)
JSON_ERRORS = (_untrusted.UntrustedError,)
CONFIG_ERRORS = (ConfigError,)
PLAN_ERRORS = (PlanError, ServiceError, FleetError)

READERS = {
    "any JSON": Reader(lambda text: _untrusted.bounded_json(text, "it"), JSON_ERRORS, texts=(json.dumps(QWEN),)),
    "config.json": Reader(describe, CONFIG_ERRORS, CONFIGS),
    "config.json, again": Reader(describe, CONFIG_ERRORS, CONFIGS),
    "config.json, planned": Reader(planned, PLAN_ERRORS, CONFIGS[:40]),
    "config.json, quantization": Reader(
        lambda one: describe({**QWEN, "quantization_config": one}), CONFIG_ERRORS, QUANTIZED
    ),
    "hf_quant_config.json": Reader(
        lambda one: model_info.describe(QWEN, hf_quant_config=one), CONFIG_ERRORS, (MODELOPT,)
    ),
    "tokenizer_config.json": Reader(
        lambda one: model_info.describe(QWEN, tokenizer_config=one), CONFIG_ERRORS, (TOKENIZER,)
    ),
    "safetensors header": Reader(header, (safetensors.SafetensorsError,), (HEADER,)),
    "safetensors bytes": Reader(header_bytes, (safetensors.SafetensorsError,), texts=(RAW_HEADER,)),
    "listing of modelscope": Reader(listing("modelscope"), (model_info.ModelInfoError,), (LISTINGS["modelscope"],)),
    "listing of huggingface": Reader(listing("huggingface"), (model_info.ModelInfoError,), (LISTINGS["huggingface"],)),
    "manifest": Reader(manifest, (_model_manifest.ManifestError,), (MANIFEST,)),
    "manifest, text": Reader(
        _model_manifest.parse, (_model_manifest.ManifestError,), texts=(_model_manifest.dump(MANIFEST),)
    ),
    "files on modelscope": Reader(
        lambda one: fetched(_model_listing.modelscope_entries(one)),
        (_model_manifest.ManifestError,),
        (FILES["modelscope"],),
    ),
    "files on huggingface": Reader(
        lambda one: fetched(_model_listing.huggingface_entries(one)),
        (_model_manifest.ManifestError,),
        (FILES["huggingface"],),
    ),
    "commit on huggingface": Reader(
        lambda one: _model_listing.huggingface_commit(one, "main"),
        (_model_manifest.ManifestError,),
        ({"sha": "a" * 40, "id": "org/model"},),
    ),
    "link to the next page": Reader(
        lambda text: _model_listing.next_page({"Link": text}),
        (_model_manifest.ManifestError,),
        texts=('<https://hub.lan/api/models/org/model/tree/main?cursor=abc>; rel="next"',),
    ),
    "SHA256SUMS": Reader(
        _model_manifest.parse_sha256sums,
        (_model_manifest.ManifestError,),
        texts=("0" * 64 + "  config.json\n" + "1" * 64 + " *./a/b\n",),
    ),
    "nvidia-smi -q -x": Reader(lambda text: _nvidia_smi.parse(text, said=text[-500:]), texts=QUERIES),
    "nvidia-smi, judged": Reader(gpu_findings, texts=QUERIES),
    "nvidia-smi, health": Reader(_gpu_health.health, (ValueError,), texts=QUERIES),
    "nvidia-smi, failing": Reader(
        lambda text: _nvidia_smi.explain_failure(255, text, text),
        texts=(
            "Unable to determine the device handle for GPU0000:3B:00.0: Unknown Error\n",
            "Failed to initialize NVML: x\n",
        ),
    ),
    "nvidia-smi, capabilities": Reader(
        lambda text: _nvidia_smi.parse(QUERIES[0], text), texts=("00000000:00:06.0, 9.0\n00000000:00:07.0, 9.0\n",)
    ),
    "nvidia-smi -L": Reader(
        lambda text: _nvidia_smi.parse(QUERIES[1], listing=text), texts=((SMI / "mig/list.txt").read_text(),)
    ),
    "nvidia-smi topo -m": Reader(topology, PLAN_ERRORS, texts=((SMI / "h20-8-nvlink/topology.txt").read_text(),)),
    "kernel module": Reader(
        _gpu_preflight.kernel_module_version,
        texts=("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release\n",),
    ),
    "lspci": Reader(_gpu_preflight.acs_bridges, texts=("3a:00.0 PCI bridge: x\n\t\tACSCtl:\tSrcValid+ ReqRedir+\n",)),
    "engine's log": Reader(lambda text: _engine_log.parse(text, 1), texts=LOGS),
    "engine's log, running": Reader(_engine_log.parse, texts=LOGS),
    "engine's check": Reader(
        lambda text: _vllm_config_check.judged(1, text), texts=(_vllm_config_check.SIGN + '{"model": "x"}\n', LOGS[0])
    ),
    "metrics": Reader(_metrics.figures, texts=METRICS),
    "frames of a log": Reader(frames, texts=LOGS[:2]),
    "inspection": Reader(inspected, words=(INSPECTION,)),
    "inspection, guarded": Reader(guarded, words=(INSPECTION,)),
    "inspection, committed": Reader(lambda one: _container_commit.exposures(one, ["secret"]), words=(INSPECTION,)),
    "answers, chat": Reader(asked("chat"), (), (ANSWERS,)),
    "answers, completion": Reader(asked("completion"), (), (ANSWERS,)),
    "answers, embedding": Reader(asked("embedding"), (), (ANSWERS,)),
    "answers, rerank": Reader(asked("rerank"), (), (ANSWERS,)),
    "answers, vision": Reader(asked("vision"), (), (ANSWERS,)),
    "ip address show": Reader(interfaces, (_network.NetworkError,), (INTERFACES,)),
    "nodes of Ray": Reader(
        lambda text: _ray.differences(_ray.parse_nodes(text), {"10.0.0.1": 8}),
        texts=('NODES [["10.0.0.1", true, 8.0], ["b", false, 0]]\n',),
    ),
    "/proc/net/tcp": Reader(
        _listening.listening_sockets,
        texts=(
            "  sl  local_address rem_address st\n   0: 0100007F:1F40 00000000:0000 0A 0:0 0:0 0 0 0 1234 1 0\n" * 2,
        ),
    ),
    "nvidia-ctk --version": Reader(
        _sameness.parse_toolkit, texts=("NVIDIA Container Toolkit CLI version 1.19.1\ncommit: x\n",)
    ),
    "swaps": Reader(
        _block_devices.parse_swaps, texts=("Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n",)
    ),
    "findmnt --verify": Reader(_fstab.parse_problems, texts=("/data\n   [E] unreachable\n   [W] x\n",)),
    "docker.service": Reader(unit, (ValueError,), texts=UNIT),
    "dockerd's log": Reader(
        _docker_engine.failure_reason,
        texts=('time="x" level=error msg="failed to \\"start\\" daemon"\nfailed to start daemon: x\n',),
    ),
    "daemon.json": Reader(daemon, (_daemon_json.DaemonJsonError,), texts=DAEMON),
    "/etc/default/docker": Reader(_docker_engine.environment, texts=("export A='b c'\nDOCKER_OPTS=\"-H x\" # y\n",)),
    "sources.list": Reader(sources(False), texts=(SOURCES_LIST,)),
    "apt's .sources": Reader(sources(True), texts=(DEB822,)),
    "lsblk": Reader(lambda one: _block_devices.parse_lsblk(json.dumps(one)), DISK_ERRORS, (LSBLK,)),
    "wipefs": Reader(lambda one: _block_devices.parse_wipefs(json.dumps(one)), DISK_ERRORS, (WIPEFS,)),
    "partx": Reader(
        _block_devices.parse_partx, DISK_ERRORS, texts=('NR="1" START="2048" SECTORS="4096" NAME="data" UUID="a-b"\n',)
    ),
    "mountinfo": Reader(
        _block_devices.parse_mountinfo, DISK_ERRORS, texts=("25 1 8:1 / /data\\040x rw - xfs /dev/sda1 rw\n",)
    ),
    "fstab": Reader(
        lambda text: named(_fstab.parse_fstab(text)),
        texts=("UUID=1 /data xfs defaults,nofail 0 0\n# x\n/dev/sda2 none swap sw\nLABEL='a b' /x\\040y ext4\n",),
    ),
    "crypttab": Reader(lambda text: named(_fstab.parse_crypttab(text)), texts=("data UUID=1-2 none luks\n",)),
    "mount units": Reader(
        lambda text: named(_fstab.parse_unit(text, "x.mount")),
        texts=("[Mount]\nWhat=/dev/disk/by-uuid/1-2\nWhere=/data\nType=xfs\n",),
    ),
    "mdadm.conf": Reader(
        lambda text: named(_fstab.parse_mdadm(text, "x")),
        texts=("ARRAY /dev/md0 UUID=1:2 devices=/dev/a,/dev/b\n",),
    ),
    "LVM's devices": Reader(
        lambda text: named(_fstab.parse_lvm_devices(text, "x")), texts=("IDTYPE=sys_wwid DEVNAME=/dev/sda PVID=1\n",)
    ),
    "/proc/cmdline": Reader(
        lambda text: named(_fstab.parse_command_line(text)),
        texts=('root=UUID="1-2" resume=/dev/sda2 rd.luks.uuid=luks-3\n',),
    ),
    "plan.json": Reader(in_force_again, (_plan_in_force.PlanFileError,), (PLAN, FORCE)),
}
