import pytest

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
    assert command.summary in capsys.readouterr().out


def test_commands_stand_in_alphabetical_order():
    names = [command.name for command in cli.COMMANDS]
    assert names == sorted(names)
