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

from bevformer_ros.evaluation.protocol import EvaluationSample, score
from bevformer_ros.evaluation.report_page import (
    ReportContent,
    ReportFrame,
    TimelineEntry,
    distance_charts,
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


def sample(detections, truth, token):
    return EvaluationSample(token, detections, truth, np.ones(len(truth), np.bool_))


# Nothing there; one car found and a far one missed; a near one missed and one found that is out of range.
SAMPLES = [
    sample(cars(), cars(), "a"),
    sample(cars((5, 1, 0)), cars((5, 0, 0), (40, 0, 0)), "b"),
    sample(cars((60, 0, 0)), cars((8, 0, 0), (60, 0, 0)), "c"),
]


def content(folder: Path) -> ReportContent:
    frames = []
    for index, entry in enumerate(SAMPLES):
        cv2.imwrite(str(folder / f"{index}.jpg"), np.full((90, 160, 3), 60 * index, np.uint8))
        frames.append(ReportFrame(entry, f"sample <{entry.token}>", f"{index}.jpg", processed=index != 2))
    return ReportContent(
        title="a </script> title",
        warning="",
        cards=[("NDS", "0.5")],
        scores=score(SAMPLES),
        samples=SAMPLES,
        frames=frames,
        timeline=[TimelineEntry(10.0 + step, 50.0 + step, "late" if step == 3 else "") for step in range(6)],
        stages=[("detect", 50.0, 60.0)],
    )


def test_frames_and_misses(tmp_path):
    data = report_data(content(tmp_path))
    counts = [tuple(frame[name] for name in ("truths", "hits", "missed", "spurious")) for frame in data["frames"]]
    assert counts == [(0, 0, 0, 0), (2, 1, 1, 0), (1, 0, 1, 0)]
    assert [frame["badness"] for frame in data["frames"]] == pytest.approx([0.0, 0.2, 0.84])
    assert data["misses"] == [
        {"distance": 8.0, "name": "car", "frame": 2},
        {"distance": 40.0, "name": "car", "frame": 1},
    ]


def test_charts_over_distance():
    turned = replace(SAMPLES[1].detections, yaws=np.array([np.pi / 6 - 2 * np.pi]), velocities=np.array([[3.0, 4.0]]))
    charts = distance_charts([replace(SAMPLES[1], detections=turned), SAMPLES[2]])
    expected = [[2, 0, 0, 0, 1], [0.5, None, None, None, 0], [1, *[None] * 4], [30, *[None] * 4], [5, *[None] * 4]]
    for chart, values in zip(charts, expected, strict=True):
        assert chart["values"] == [value if value is None else pytest.approx(value) for value in values]


def test_nothing_in_sight(tmp_path):
    none = replace(content(tmp_path), samples=SAMPLES[:1], frames=[], timeline=[], stages=[])
    assert report_data(none)["misses"] == []


# Runs before the page's own scripts, and after them: acts as a reader would, and writes down what it saw.
LISTEN = """<script>
window.complaints = [];
addEventListener("error", (event) => complaints.push(event.message || event.target.src || "?"), true);
</script>"""
ACT = """<script>
(async () => {
  const seen = {};
  const picture = document.getElementById("picture"), slider = document.getElementById("slider");
  const look = async (name) => {
    await picture.decode();
    seen[name] = [picture.getAttribute("src"), picture.naturalWidth, Number(slider.value)];
  };
  const press = (key) => document.dispatchEvent(new KeyboardEvent("keydown", { key }));
  await look("worst");
  press("ArrowRight"); await look("right");
  press("End"); await look("end");
  press("ArrowRight"); await look("beyond");
  slider.value = 1; slider.dispatchEvent(new Event("input")); await look("slider");
  const order = document.getElementById("order");
  order.value = "time"; order.dispatchEvent(new Event("change")); await look("time");
  document.querySelector("#misses button").click(); await look("miss");
  seen.caption = document.getElementById("caption").textContent;
  seen.title = document.getElementById("title").textContent;
  seen.charts = document.querySelectorAll("svg").length;
  seen.rows = document.querySelectorAll("#classes tr").length;
  seen.complaints = window.complaints;
  seen.ready = document.body.dataset.ready;
  console.log("ANSWER " + JSON.stringify(seen) + " END");
})();
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt install chromium)")
def test_the_page_works_from_the_file_system(tmp_path, start_process):
    """No console error; slider, keys and order show pictures that load."""
    write_report(tmp_path, content(tmp_path))
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    first = page.index('<script src="data.js">')
    probe = page[:first] + LISTEN + page[first:].replace("</body>", ACT + "</body>")
    (tmp_path / "probe.html").write_text(probe, encoding="utf-8")
    options = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--remote-debugging-port=0",
    ]
    browser = start_process(
        [CHROMIUM, *options, f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "probe.html").as_uri()]
    )
    browser.wait_for_output(" END")
    assert browser.output.count("CONSOLE") == 1, "the page's own words are errors"
    answer = re.search("ANSWER (.*) END", browser.output)
    assert answer is not None
    seen = json.loads(answer.group(1))
    assert seen["complaints"] == []
    assert seen["ready"] == "true"
    shown = ("worst", "right", "end", "beyond", "slider", "time", "miss")
    expected = [("2.jpg", 0), ("1.jpg", 1), ("0.jpg", 2), ("0.jpg", 2), ("1.jpg", 1), ("0.jpg", 0), ("2.jpg", 2)]
    assert {name: tuple(seen[name]) for name in shown} == {
        name: (picture, 160, position) for name, (picture, position) in zip(shown, expected, strict=True)
    }
    assert "0 of 1 objects found, 1 missed" in seen["caption"] and "NOT PROCESSED" in seen["caption"]
    assert seen["title"] == "a </script> title"
    assert (seen["charts"], seen["rows"]) == (1 + 5 + 1, 11)
