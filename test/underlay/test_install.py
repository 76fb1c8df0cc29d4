"""The set-up of the environment: whose .venv it is, and where torch comes from. Nothing is installed here."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from support import REPOSITORY

INSTALL = ["pip", "install"]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """underlay/install.py with a .venv in an empty folder, and commands that are noted down instead of run."""
    spec = spec_from_file_location("underlay_install", REPOSITORY / "underlay" / "install.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "commands", [], raising=False)
    monkeypatch.setattr(module, "run", lambda command, what: module.commands.append(command))
    for variable in ("TORCH_INDEX", "ROS_DISTRO"):
        monkeypatch.delenv(variable, raising=False)
    return module


@pytest.mark.parametrize(
    ("prefixes", "sourced"), [([], []), (["ros"], ["ros"]), (["ours"], []), (["ours", "ros"], ["ros"]), (["empty"], [])]
)
def test_which_ros_is_sourced(
    install: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefixes: list[str], sourced: list[str]
) -> None:
    """Another checkout's .venv, entered in the same shell, is none."""
    for name in ("ros", "ours"):
        (tmp_path / name / "share" / "rclpy").mkdir(parents=True)
    (tmp_path / "ours" / "stamp-interpreter").touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", ":".join(str(tmp_path / name) for name in prefixes))
    assert install.sourced_ros_prefixes() == [str(tmp_path / name) for name in sourced]


def test_what_it_takes_is_said_before_it_starts(install: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    install.make_venv([])
    assert "GB to download" in capsys.readouterr().out
    (command,) = install.commands
    assert command[1:3] == ["-m", "venv"]


def test_a_venv_of_another_python_is_left_alone(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert install.foreign_venv([]) == ""
    install.make_venv([])
    assert install.foreign_venv([]) == ""
    assert "make clean" in install.foreign_venv(["/opt/ros/jazzy"])
    monkeypatch.setattr(sys, "version", "4.0")
    assert "make clean" in install.foreign_venv([])
    assert (install.VENV / "stamp-interpreter").exists()


def test_a_venv_that_we_did_not_make_is_left_alone(install: ModuleType) -> None:
    install.VENV.mkdir()
    assert "make clean" in install.foreign_venv([])


@pytest.mark.parametrize(
    ("gpu", "index", "expected"),
    [
        (True, "", [[*INSTALL, "torch==1"]]),
        (False, "", [[*INSTALL, "torch==1+cpu"]]),
        (False, "http://index", [[*INSTALL, "--index-url", "http://index", "torch==1"]]),
    ],
)
def test_where_torch_comes_from(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, gpu: bool, index: str, expected: list[list[str]]
) -> None:
    monkeypatch.setattr(install, "has_nvidia_gpu", lambda: gpu)
    monkeypatch.setenv("TORCH_INDEX", index)
    install.install_torch(INSTALL, "torch==1")
    assert install.commands == expected


def test_without_a_cpu_build_the_ordinary_one_is_taken(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = []

    def run(command: list[str], what: str) -> None:
        tried.append(command[-1])
        if command[-1].endswith("+cpu"):
            raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(install, "has_nvidia_gpu", lambda: False)
    monkeypatch.setattr(install, "run", run)
    install.install_torch(INSTALL, "torch==1")
    assert tried == ["torch==1+cpu", "torch==1"]
    assert "TORCH_INDEX=URL" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("origin", "expected"),
    [(None, None), ("/usr/lib/torch/__init__.py", "/usr/lib"), ("{venv}/lib/torch/__init__.py", None)],
)
def test_a_torch_of_the_chosen_python(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, origin: str | None, expected: str | None
) -> None:
    spec = None if origin is None else SimpleNamespace(origin=origin.format(venv=install.VENV))
    monkeypatch.setattr(install, "find_spec", lambda name: spec)
    assert install.torch_elsewhere() == (None if expected is None else Path(expected))


def test_requirements_are_read_without_comments(install: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("# why\n\ntorch==1  # because\n", encoding="utf-8")
    assert install.required(file) == ["torch==1"]


@pytest.mark.parametrize("distribution", ["", "kilted", "jazzy"])
def test_pypi_has_this_distribution(install: ModuleType, monkeypatch: pytest.MonkeyPatch, distribution: str) -> None:
    monkeypatch.setenv("ROS_DISTRO", distribution)
    assert (install.UNDERLAY / f"requirements-{install.wanted_distribution()}.txt").is_file()
    assert "PyPI has" not in install.missing_from_the_system([])


def test_another_distribution_has_to_be_sourced(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DISTRO", "lyrical")
    assert "ROS_DISTRO is lyrical, but no ROS 2 is sourced" in install.missing_from_the_system([])
    assert "ros-lyrical-vision-msgs" in install.missing_from_the_system(["/opt/ros/lyrical"])


def test_a_venv_of_another_distribution_is_left_alone(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    install.make_venv([])
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    assert "ROS 2 Jazzy from PyPI" in install.foreign_venv([])


def test_on_a_ros_machine_nothing_of_the_underlay_is_in_sight(
    install: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a sourced prefix that holds packages of the same names, these are what Python finds."""
    prefix, site = tmp_path / "ros", install.VENV / "site-packages"
    names = (*install.UNDERLAY_MESSAGES, *install.UNDERLAY_PYTHON)
    for name in (*names, "rclpy"):
        (prefix / "share" / name).mkdir(parents=True)
        (prefix / "python" / name).mkdir(parents=True)
        (prefix / "python" / name / "__init__.py").touch()
    site.mkdir(parents=True)
    (install.VENV / "bin").mkdir()
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(prefix))
    monkeypatch.setattr(install, "SITE_PACKAGES", site)
    monkeypatch.setattr(install, "run", lambda command, what, environment=None: install.commands.append(command))
    (install.VENV / "stamp-packages").touch()
    (site / "bevformer_ros").mkdir()
    install.build_interfaces(install.sourced_ros_prefixes())
    (build,) = install.commands
    assert [word for word in build if "underlay" in str(word)] == []
    find = "import importlib.util, site, sys; site.addsitedir(sys.argv[1]); "
    find += "print(*(importlib.util.find_spec(name).origin for name in sys.argv[2:]))"
    found = subprocess.run(
        [sys.executable, "-S", "-c", find, site, *names],
        env={"PYTHONPATH": str(prefix / "python")},
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    ).stdout.split()
    assert found == [str(prefix / "python" / name / "__init__.py") for name in names]


def test_a_venv_whose_making_was_interrupted_is_made_again(install: ModuleType) -> None:
    (install.VENV / "bin").mkdir(parents=True)
    (install.VENV / "bin" / "pip").touch()
    install.make_venv([])
    (install.VENV / "bin" / "activate").touch()
    install.make_venv([])
    assert len(install.commands) == 1


def test_what_the_setup_took_is_told_in_the_end(
    install: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "LOG", tmp_path / "install.log")
    install.LOG.write_text("")
    install.VENV.mkdir()
    assert "downloaded 0 MB and took 0 MB from its cache; .venv takes 0 MB" in install.what_it_took()
    install.LOG.write_text(
        "  Downloading a-1.whl (54.0 MB)\n  Downloading b-1.whl (600 kB)\nUsing cached c.whl (1.2 GB)\n"
    )
    (install.VENV / "file").write_bytes(bytes(8_000_000))
    assert "downloaded 55 MB and took 1200 MB from its cache; .venv takes 8 MB" in install.what_it_took()
