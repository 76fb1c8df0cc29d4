import pytest
from support import REPOSITORY

from bevformer_ros.commands import cli


def test_help_lists_every_command_and_needs_none_of_their_modules(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert all(command.name in printed for command in cli.COMMANDS)


@pytest.mark.parametrize("words", [[], ["fly"]])
def test_a_missing_or_unknown_command_is_refused(words, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 2
    assert "usage: bevformer-ros" in capsys.readouterr().err


def test_a_command_whose_modules_are_missing_says_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr(cli, "COMMANDS", (cli.Command("fly", "Fly."),))
    assert cli.main(["fly"]) == 1
    assert (
        "needs the Python module bevformer_ros.commands.fly; enter an environment that has it"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("command", cli.COMMANDS, ids=lambda command: command.name)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([command.name, "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert command.summary in " ".join(printed.split())
    assert "{'" not in printed  # what argparse makes of a lonely % in a help text
    assert "%(" not in printed


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert f"<version>{capsys.readouterr().out.split()[-1]}</version>" in (REPOSITORY / "package.xml").read_text()


@pytest.mark.parametrize(
    "words",
    [
        ["simulate", "-o", "bag", "--size", "wide"],
        ["simulate", "-o", "bag", "--seed", "first"],
        ["train", "--config", "ablation_perspective", "-o", "out", "--rounds", "[1"],
        ["benchmark", "--precision", "float8"],
        ["evaluate", "--world", "all"],
        ["benchmark-history", "--mode", "none"],
    ],
    ids=" ".join,
)
def test_a_wrong_word_is_a_line_and_status_2(words, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"bevformer-ros {words[0]}: error: argument")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["benchmark", "--device", "gpu"], "device is 'gpu', expected auto, cpu, cuda or cuda:N"),
        (["benchmark", "--model", "none"], "'none' is neither a path"),
        (["train", "--config", "ablation_perspective", "-o", "out", "--device", "gpu"], "device is 'gpu'"),
        (["train", "--config", "ablation_perspective", "-o", "out", "--rounds", "0"], "rounds must be at least 1"),
        (["ablate", "--study", "perspective", "-o", "out", "--device", "gpu"], "device is 'gpu'"),
        (["replay", "bag", "-o", "out", "--device", "gpu"], "device is 'gpu'"),
        (["convert", "absent.pth", "-o", "ours.safetensors", "--model", "tiny"], "absent.pth"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_is_a_line_and_status_1(words, complaint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"bevformer-ros {words[0]}: ")
    assert complaint in line


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("no"), 1), (FileNotFoundError("no"), 1), (FloatingPointError("no"), 1), (KeyboardInterrupt(), 130)],
)
def test_every_command_ends_without_a_traceback(error, status, monkeypatch, capsys):
    def fail(_):
        raise error

    monkeypatch.setattr("bevformer_ros.commands.convert.run", fail)
    assert cli.main(["convert", "a", "-o", "b", "--model", "tiny"]) == status
    assert len(capsys.readouterr().err.splitlines()) <= 1


def test_commands_stand_in_alphabetical_order():
    names = [command.name for command in cli.COMMANDS]
    assert names == sorted(names)
