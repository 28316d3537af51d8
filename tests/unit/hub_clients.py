"""The official clients of the hubs, in an environment of their own, for tests that run them for real."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("modelscope-hub==0.5.1", "huggingface_hub==2.4.0")


def prefix():
    """Path of the environment, made on first use below .cache (HUB_CLIENTS names another one)."""
    place = Path(os.environ.get("HUB_CLIENTS") or ROOT / ".cache" / "hub-clients")
    if not all((place / "bin" / name).exists() for name in ("modelscope", "hf")):
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        subprocess.run([str(place / "bin/pip"), "install", "--quiet", *PACKAGES], check=True)
    return place
