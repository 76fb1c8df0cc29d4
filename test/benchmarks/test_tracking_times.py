import json

from bevformer_ros.commands.cli import main


def test_no_boxes(capsys):
    assert main(["benchmark-tracking", "--boxes", "0"]) == 1
    assert "boxes and sets must be at least 1" in capsys.readouterr().err


def test_json_report(capsys):
    assert main(["benchmark-tracking", "--boxes", "20", "--sets", "5", "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert (report["boxes"], report["sets"]) == (20, 5)
    assert report["tracks"] >= 18 and 0 < report["median_ms"] <= report["percentile_95_ms"]


def test_table(capsys):
    assert main(["benchmark-tracking", "--boxes", "5", "10", "--sets", "2"]) == 0
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert [row.split("|")[1].strip() for row in rows] == ["5", "10"]
    assert {row.count("|") for row in rows} == {head.count("|")}
