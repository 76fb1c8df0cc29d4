"""The report's numbers, and its page in a real browser."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("nuscenes", reason="needs nuscenes-devkit, which `make env` installs")

from support import REPOSITORY

from bevformer_ros.evaluation.protocol import EvaluationSample, score
from bevformer_ros.evaluation.report_page import (
    Moment,
    ReportContent,
    Run,
    TimelineEntry,
    View,
    report_data,
    write_report,
)
from bevformer_ros.taxonomy import CLASS_ID, NO_ATTRIBUTE
from bevformer_ros.types import Detections3D

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def cars(*centers, score=0.8):
    count = len(centers)
    return Detections3D(
        0,
        centers=np.array(centers, np.float64).reshape(count, 3),
        sizes=np.tile([4.0, 2.0, 1.5], (count, 1)),
        yaws=np.zeros(count),
        velocities=np.zeros((count, 2)),
        scores=np.full(count, score),
        labels=np.full(count, CLASS_ID["car"]),
        attributes=np.full(count, NO_ATTRIBUTE),
        from_proposal=np.zeros(count, np.bool_),
    )


def sample(detections, truth, token, ids=(), visibility=()):
    return EvaluationSample(
        token, detections, truth, np.ones(len(truth), np.bool_), ids, np.array(visibility, np.int64)
    )


# Nothing there; one car found and a far one missed; a near one missed, the far one again, one found that is out of
# range, and a weak box of nothing.
FAR = (40, 0, 0)
SAMPLES = [
    sample(cars(), cars(), "a"),
    sample(cars((5, 1, 0)), cars((5, 0, 0), FAR), "b", ("one", "far"), (4, 1)),
    sample(
        cars((60, 0, 0), (20, 9, 0), score=0.4),
        cars((8, 0, 0), (60, 0, 0), FAR),
        "c",
        ("near", "out", "far"),
        (3, 4, 1),
    ),
]
CAMERA_FROM_EGO = np.array([[0.0, -1, 0, 0], [0, 0, -1, 1.5], [1, 0, 0, 0], [0, 0, 0, 1]])


def run(name="detector", samples=SAMPLES) -> Run:
    return Run(
        name=name,
        cards=[("NDS", "0.5")],
        scores=score(samples),
        samples=samples,
        processed=[True, True, False],
        timeline=[TimelineEntry(10.0 + step, 50.0 + step, "late" if step == 3 else "") for step in range(6)],
        stages=[("detect", 50.0, 60.0)],
    )


def content(folder: Path, *runs: Run) -> ReportContent:
    moments = []
    for index in range(3):
        cv2.imwrite(str(folder / f"{index}.jpg"), np.full((90, 160, 3), 60 * index, np.uint8))
        intrinsics = np.array([[80.0, 0, 79.5], [0, 80, 44.5], [0, 0, 1]])
        view = View("CAM_FRONT", f"{index}.jpg", (160, 90), intrinsics, CAMERA_FROM_EGO)
        stamp_ns = 7_000_000_001 + index
        moments.append(Moment(Path("/bags/drive"), "/truth", stamp_ns, index / 2, np.eye(4), [view] if index else []))
    return ReportContent("a </script> title", "", moments, runs or [run()], threshold=0.3)


def test_every_moment_is_in_the_data_with_what_belongs_together(tmp_path):
    data = report_data(content(tmp_path))
    assert [len(frame["truths"]) for frame in data["frames"]] == [0, 2, 2]
    assert data["frames"][2]["truths"][1] == [CLASS_ID["car"], 40, 0, 0, 4, 2, 1.5, 0, 0, 0, "far", 1]
    assert [frame["stamp"] for frame in data["frames"]] == ["7.000000001", "7.000000002", "7.000000003"]
    found = [[row[-3:] for row in boxes] for boxes in data["runs"][0]["boxes"]]
    assert found == [[], [[0.8, 0, 0.0]], [[0.4, -1, None]]]  # score, row of the truth, error of the heading


def test_names_are_shown_and_never_run(tmp_path):
    """The page writes text, never markup; what it offers to a shell or as an address is quoted."""
    view = View("CAM", "frames/100% #1.jpg", (160, 90), np.eye(3), np.eye(4))
    moment = Moment(Path("/bags/my drive; rm"), "/truth$(rm)", 1, 0.0, np.eye(4), [view])
    shown = report_data(ReportContent("<b>", "", [moment], [run(samples=SAMPLES[:1])], 0.3))["frames"][0]
    assert (shown["path"], shown["topic"]) == ("'/bags/my drive; rm'", "'/truth$(rm)'")
    assert shown["views"][0]["picture"] == "frames/100%25%20%231.jpg"
    own = [file for file in (REPOSITORY / "config" / "report").glob("*.js") if not file.name.startswith("uPlot")]
    assert len(own) == 4
    for file in own:
        for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert way not in file.read_text(encoding="utf-8"), file


def test_an_unknown_velocity_is_none(tmp_path):
    unknown = [replace(entry, velocity_known=np.zeros(len(entry.truth), np.bool_)) for entry in SAMPLES]
    data = report_data(content(tmp_path, run(samples=unknown)))
    assert {tuple(row[8:10]) for frame in data["frames"] for row in frame["truths"]} == {(None, None)}


def test_visibility_that_nobody_told_is_zero(tmp_path):
    untold = [replace(entry, visibility=None) for entry in SAMPLES]
    data = report_data(content(tmp_path, run(samples=untold)))
    assert {row[-1] for frame in data["frames"] for row in frame["truths"]} == {0}


def test_only_results_about_the_same_truths_are_compared(tmp_path):
    other = [replace(entry, token=f"other {entry.token}") for entry in SAMPLES]
    with pytest.raises(ValueError, match="second and first have different truths"):
        content(tmp_path, run("first"), run("second", other))


# Runs before the page's own scripts, and after them: acts as a reader would, and writes down what it saw.
LISTEN = """<script>
window.complaints = [];
addEventListener("error", (event) => complaints.push(event.message || event.target.src || "?"), true);
</script>"""
ACT = """<script>
(async () => {
  const seen = {};
  const text = (id) => document.getElementById(id).textContent;
  const count = (selector) => document.querySelectorAll(selector).length;
  const press = (key) => document.dispatchEvent(new KeyboardEvent("keydown", { key }));
  const look = async (name) => {
    await new Promise((done) => setTimeout(done, 50));
    const image = document.querySelector("#views img");
    if (image) await image.decode();
    const place = Number(document.getElementById("slider").value);
    seen[name] = [image && image.getAttribute("src"), image && image.naturalWidth, place];
  };
  const change = (id, value, kind) => {
    const node = document.getElementById(id);
    node.value = value;
    node.dispatchEvent(new Event(kind));
  };
  await look("worst");
  seen.boxes = [count("#views .missed"), count("#views .false"), count("#bevs .missed"), count("#bevs .false")];
  seen.caption = text("caption");
  press("ArrowRight"); await look("right");
  seen.found = [count("#views .found"), count("#bevs .truth")];
  press("End"); await look("end");
  press("ArrowRight"); await look("beyond");
  change("slider", 1, "input"); await look("slider");
  change("order", "time", "change"); await look("time");
  seen.misses = [...document.querySelectorAll("#misses button")].map((node) => node.textContent);
  seen.spurious = [...document.querySelectorAll("#spurious button")].map((node) => node.textContent);
  document.querySelector("#misses button").click(); await look("miss");
  seen.lit = count("#bevs .hot");
  seen.link = text("link");
  document.querySelector("#bevs .missed .solid").dispatchEvent(new PointerEvent("pointermove", { bubbles: true }));
  seen.tip = text("tip");
  const before = document.querySelector(".bev").getAttribute("viewBox");
  const turn = { deltaY: -1, bubbles: true, cancelable: true };
  document.querySelector(".bev").dispatchEvent(new WheelEvent("wheel", turn));
  seen.zoomed = document.querySelector(".bev").getAttribute("viewBox") !== before;
  seen.tally = text("tally");
  change("visibility", 4, "change"); seen.visible = text("tally");
  change("visibility", 0, "change");
  change("threshold", 0.5, "input"); seen.strict = text("tally");
  change("far", 30, "input"); seen.near = text("tally");
  document.getElementById("balanced").click(); seen.balanced = text("threshold-value");
  document.querySelectorAll("#chosen-classes input")[3].click(); seen.withoutCars = text("tally");
  await look("last");
  press("c"); seen.colour = document.getElementById("colour").value;
  press("r"); seen.run = document.getElementById("run").selectedOptions[0].textContent;
  seen.alone = [...document.querySelectorAll("#differences .list")].map((node) => node.childElementCount);
  Object.assign(seen, { title: text("title"), charts: count(".uplot"), bevs: count(".bev") });
  seen.rows = count("#classes tr");
  seen.complaints = window.complaints;
  seen.ready = document.body.dataset.ready > 0;
  console.log("ANSWER " + JSON.stringify(seen) + " END");
})();
</script>"""


def visit(folder, start_process):
    """What a reader saw; fails where the page wrote anything to the console."""
    page = (folder / "index.html").read_text(encoding="utf-8")
    first = page.index('<script src="uPlot')
    probe = page[:first] + LISTEN + page[first:].replace("</body>", ACT + "</body>")
    (folder / "probe.html").write_text(probe, encoding="utf-8")
    options = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--remote-debugging-port=0",
    ]
    browser = start_process(
        [CHROMIUM, *options, f"--user-data-dir={folder / 'profile'}", (folder / "probe.html").as_uri()]
    )
    browser.wait_for_output(" END")
    assert browser.output.count("CONSOLE") == 1, browser.output
    answer = re.search("ANSWER (.*) END", browser.output)
    assert answer is not None
    seen = json.loads(answer.group(1).replace('\\"', '"'))
    assert seen["complaints"] == [] and seen["ready"]
    return seen


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt install chromium)")
def test_the_page_works_from_the_file_system(tmp_path, start_process):
    """Filters act, keys and lists show frames that load, and the console stays empty."""
    write_report(tmp_path, content(tmp_path))
    seen = visit(tmp_path, start_process)
    shown = ("worst", "right", "end", "beyond", "slider", "time", "miss")
    expected = [("2.jpg", 0), ("1.jpg", 1), (None, 2), (None, 2), ("1.jpg", 1), (None, 0), ("2.jpg", 2)]
    assert {name: tuple(seen[name]) for name in shown} == {
        name: (picture, picture and 160, position) for name, (picture, position) in zip(shown, expected, strict=True)
    }
    assert seen["boxes"] == [2, 1, 2, 1] and seen["found"] == [1, 1]
    assert "1 boxes, 0 of 2 objects found, 2 missed, 1 false" in seen["caption"]
    assert "score from 0.30" in seen["caption"] and "NOT PROCESSED" in seen["caption"]
    assert seen["misses"] == ["car 8.0 m, missed in 1 of 1 frames", "car 40.0 m, missed in 2 of 2 frames"]
    assert seen["spurious"] == ["car 0.40 at 21.9 m, in 1 frame"]
    assert seen["lit"] == 1 and "missed" in seen["tip"] and "object near" in seen["tip"] and seen["zoomed"]
    assert seen["link"] == (
        "bevformer-ros draw /bags/drive --at 1.000 --boxes /truth -o moment.png   # stamp 7.000000003"
    )
    assert "precision 50 %, recall 25 %: 1 of 4 objects found, 1 of 2 boxes false" in seen["tally"]
    assert "precision 50 %, recall 100 %: 1 of 1 objects found, 1 of 2 boxes false" in seen["visible"]
    assert "precision 100 %, recall 25 %: 1 of 4 objects found, 0 of 1 boxes false" in seen["strict"]
    assert "precision 100 %, recall 50 %: 1 of 2 objects found, 0 of 1 boxes false" in seen["near"]
    assert seen["balanced"] == "0.80" and "0 of 0 objects found" in seen["withoutCars"]
    assert seen["title"] == "a </script> title" and seen["colour"] == "class"
    assert (seen["charts"], seen["rows"], seen["bevs"]) == (8 + 1, 11, 1)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt install chromium)")
def test_two_runs_stand_side_by_side(tmp_path, start_process):
    blind = [replace(entry, detections=cars()) for entry in SAMPLES]
    write_report(tmp_path, content(tmp_path, run("one"), run("other", blind)))
    seen = visit(tmp_path, start_process)
    assert seen["bevs"] == 2 and seen["run"] == "other"
    assert (
        "one: precision 50 %, recall 25 %" in seen["tally"]
        and "other: precision \N{EN DASH}, recall 0 %" in seen["tally"]
    )
