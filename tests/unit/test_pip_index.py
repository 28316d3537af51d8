"""pip's own behaviour: an index with a password works, and no command line shows it, not even one of pip's children."""

from __future__ import annotations

import base64
import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading
import zipfile

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _pip_index

USER, PASSWORD = "me", "planted-%40!word"  # as it is said in an address


def test_the_environment_of_pip(tmp_path, monkeypatch):
    monkeypatch.setenv("NETRC", str(tmp_path / "own"))
    (tmp_path / "own").write_text("machine other login a password b")
    given = _pip_index.environment(
        tmp_path, f"https://{USER}:{PASSWORD}@one:8443/simple", ["https://two/simple", "https://x:y@three/s"]
    )
    assert given == {
        "PIP_INDEX_URL": "https://one:8443/simple",
        "PIP_EXTRA_INDEX_URL": "https://two/simple https://three/s",
        "NETRC": str(tmp_path / "netrc"),
    }
    assert (tmp_path / "netrc").read_text().splitlines() == [
        "machine other login a password b",
        "machine one login me password planted-@!word",
        "machine three login x password y",
    ]
    assert (tmp_path / "netrc").stat().st_mode & 0o777 == 0o600
    assert _pip_index.environment(tmp_path) == {}
    assert _pip_index.environment(tmp_path, "https://one/s") == {"PIP_INDEX_URL": "https://one/s"}


@pytest.mark.parametrize("address", ["https://a:b%20c@one/s", "https://a:%22b@one/s", "https://token@one/s"])
def test_what_a_netrc_file_cannot_say_stays_in_the_address(tmp_path, address):
    assert _pip_index.environment(tmp_path, address) == {"PIP_INDEX_URL": address}


def test_a_requirement_with_a_password_is_no_argument(tmp_path):
    assert _pip_index.requirements(tmp_path, ["torch==2.13.0"]) == ["torch==2.13.0"]
    wanted = ["x @ https://me:planted@host/x.whl", "torch"]
    assert _pip_index.requirements(tmp_path, wanted) == ["--requirement", str(tmp_path / "requirements.txt")]
    assert (tmp_path / "requirements.txt").read_text().splitlines() == wanted
    assert (tmp_path / "requirements.txt").stat().st_mode & 0o777 == 0o600


def wheel(name, extra=None):
    """A package that needs nothing; extra: a file in it."""
    held = io.BytesIO()
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(held, "w") as archive:
        for path, content in (extra or {}).items():
            archive.writestr(path, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return held.getvalue()


# Builds the package, with a pip of its own for what it needs.
BACKEND = """
import os, shutil
def get_requires_for_build_wheel(config_settings=None): return []
def build_wheel(directory, config_settings=None, metadata_directory=None):
    shutil.copy(os.environ["STAND_IN_WHEEL"], os.path.join(directory, "built-1.0-py3-none-any.whl"))
    return "built-1.0-py3-none-any.whl"
"""


@pytest.fixture
def index(tmp_path):
    """A package index that asks for a password, with a package that has to be built by another one."""
    source = io.BytesIO()
    with tarfile.open(fileobj=source, mode="w:gz") as archive:
        project = b'[build-system]\nrequires = ["backend"]\nbuild-backend = "backend"\n'
        for name, content in (
            ("pyproject.toml", project),
            ("PKG-INFO", b"Metadata-Version: 2.1\nName: built\nVersion: 1.0\n"),
        ):
            info = tarfile.TarInfo("built-1.0/" + name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    files = {
        "backend-1.0-py3-none-any.whl": wheel("backend", {"backend.py": BACKEND}),
        "built-1.0.tar.gz": source.getvalue(),
    }
    (tmp_path / "built.whl").write_bytes(wheel("built"))
    wanted = "Basic " + base64.b64encode(b"me:planted-@!word").decode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.rstrip("/").rpartition("/")[2]
            allowed = self.headers.get("Authorization") == wanted
            links = "".join(f'<a href="/{file}">{file}</a>' for file in files if file.startswith(name + "-"))
            body = files.get(name) or links.encode()
            self.send_response(200 if allowed else 401)
            self.send_header("Content-Type", "text/html" if name not in files else "application/octet-stream")
            if not allowed:
                self.send_header("WWW-Authenticate", 'Basic realm="index"')
            self.send_header("Content-Length", str(len(body) if allowed else 0))
            self.end_headers()
            self.wfile.write(body if allowed else b"")

        def log_message(self, *_args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://{USER}:{PASSWORD}@127.0.0.1:{server.server_port}/simple"
    server.shutdown()


@pytest.mark.slow
def test_pip_builds_a_package_from_an_index_with_a_password(tmp_path, index):
    seen = set()
    stop = threading.Event()

    def watch():
        while not stop.wait(0.002):
            for pid in filter(str.isdigit, os.listdir("/proc")):
                try:
                    with open(f"/proc/{pid}/cmdline", "rb") as handle:
                        seen.add(handle.read().replace(b"\0", b" ").decode("utf-8", "replace"))
                except OSError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-cache-dir", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, "--dest", str(tmp_path / "dest"), "built"],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("PIP_")},
            "PIP_CONFIG_FILE": os.devnull,
            "STAND_IN_WHEEL": str(tmp_path / "built.whl"),
            **_pip_index.environment(tmp_path, index),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    stop.set()
    watcher.join()
    assert done.returncode == 0, done.stderr
    ours = [line for line in seen if "pip" in line and index.rpartition("@")[2] in line]
    assert ours, "the pip that gets what builds was not seen"
    assert not [line for line in seen if "planted-" in line]
    assert "planted" not in done.stdout + done.stderr
