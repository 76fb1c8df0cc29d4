"use strict";

// Charts of what statistics.js counts, by uPlot (MIT, see uPlot.LICENSE.txt).
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const RUN_COLOURS = ["--found", "--other"];
let drawnCharts = [], timelines = [];

// series: [{ label, stroke, values, bars, scale }]
function chart(parent, title, x, series, xLabel, extra = {}, drawn = drawnCharts) {
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  caption.textContent = title;
  figure.append(caption);
  parent.append(figure);
  const axis = { stroke: style("--faint"), grid: { stroke: style("--line"), width: 1 }, ticks: { stroke: style("--line") }, font: "11px system-ui" };
  const options = {
    width: Math.max(220, figure.clientWidth), height: 200, padding: [10, 14, 0, 0],
    scales: { x: { time: false, ...(extra.x || {}) }, y: extra.y || {}, ...(extra.counts ? { counts: {} } : {}) },
    legend: { live: true }, cursor: { y: false },
    axes: [
      { ...axis, label: xLabel, labelSize: 18, size: 30, labelFont: "11px system-ui" }, { ...axis, size: 44 },
      ...(extra.counts ? [{ ...axis, scale: "counts", side: 1, grid: { show: false }, size: 44 }] : []),
    ],
    series: [{ label: xLabel, value: (_, value) => (value === null ? "–" : Number(value).toFixed(2)) }, ...series.map((entry) => ({
      label: entry.label, stroke: entry.stroke, width: entry.bars ? 0 : 1.7, scale: entry.scale || "y", spanGaps: true, points: { show: false },
      fill: entry.bars ? entry.stroke + "66" : undefined, paths: entry.bars ? uPlot.paths.bars({ size: [0.8, 60] }) : undefined,
      value: (_, value) => (value === null || value === undefined ? "–" : Number.isInteger(value) ? String(value) : value.toFixed(3)),
    }))],
  };
  drawn.push(new uPlot(options, [x, ...series.map((entry) => entry.values)], figure));
}

const perRun = (values, label = "") => report.runs.map((run, index) => ({
  label: report.runs.length > 1 ? `${label} ${run.name}`.trim() : label || run.name, stroke: style(RUN_COLOURS[index]), values: values(index),
}));

function showCharts() {
  drawnCharts.forEach((entry) => entry.destroy());
  drawnCharts = [];
  byId("charts").replaceChildren();
  const unit = { range: [0, 1.02] };
  const recalls = Array.from({ length: 101 }, (_, index) => index / 100);
  chart(byId("charts"), "Precision over recall", recalls, perRun((run) => precisionAt(curve(run), recalls), "precision"), "recall", { y: unit, x: { range: [0, 1] } });
  const along = frames.map((frame) => tallyOf(frame));
  chart(byId("charts"), "Recall along the drive", frames.map((_, index) => index), perRun((run) => along.map((entry) => entry[run].recall), "recall"), "frame in order of time", { y: unit });
  const tenths = calibration(0).boxes.map((_, index) => (index + 0.5) / 10);
  chart(byId("charts"), "Calibration: share of right boxes by score", tenths, [
    { label: "ideal", stroke: style("--faint"), values: tenths }, ...perRun((run) => calibration(run).share, "right"),
    { label: "boxes", stroke: style("--accent"), values: calibration(0).boxes, bars: true, scale: "counts" },
  ], "score", { y: unit, counts: true, x: { range: [0, 1] } });
  const tens = [5, 15, 25, 35, 45, 55];
  chart(byId("charts"), "Recall by distance", tens, [...perRun((run) => recallByDistance(run).share, "recall"),
    { label: "objects", stroke: style("--accent"), values: recallByDistance(0).objects, bars: true, scale: "counts" }], "m", { y: unit, counts: true, x: { range: [0, 60] } });
  const found = report.runs.map((_, run) => errors(run));
  for (const [name, title, unitOfX, first, last] of [["place", "Error of the place", "m", 0, 2], ["heading", "Error of the heading", "degrees", 0, 180],
    ["velocity", "Error of the velocity", "m/s, beyond 10 in the last bar", 0, 10], ["length", "Length less the true one", "m, beyond 3 in the outer bars", -3, 3]]) {
    const bins = found.map((entry) => histogram(entry[name], first, last, 20));
    const counted = found.map((entry) => entry[name].length).join(" and ");
    chart(byId("charts"), `${title} (${counted} pairs)`, bins[0].middles, perRun((run) => bins[run].counts, "pairs").map((entry) => ({ ...entry, bars: true })), unitOfX, { x: { range: [first, last] } });
  }
}

const tallyOf = (frame) => report.runs.map((_, run) => tally(run, [frame]));

function precisionAt(points, recalls) {
  let index = points.length - 1, best = 0;
  const values = new Array(recalls.length).fill(null);
  for (let step = recalls.length - 1; step >= 0; step -= 1) {
    for (; index >= 0 && points[index].recall >= recalls[step]; index -= 1) best = Math.max(best, points[index].precision);
    values[step] = best || null;
  }
  return values;
}

function showLatency() {
  timelines.forEach((entry) => entry.destroy());
  timelines = [];
  byId("latency").replaceChildren();
  report.runs.forEach((run) => {
    if (!run.timeline.length) return;
    const start = run.timeline[0].seconds, most = Math.max(...run.timeline.map((entry) => entry.milliseconds));
    chart(byId("latency"), `${run.name}: milliseconds from the last image to the boxes`, run.timeline.map((entry) => entry.seconds - start), [
      { label: "ms", stroke: style("--found"), values: run.timeline.map((entry) => (entry.dropped ? null : entry.milliseconds)) },
      { label: "dropped", stroke: style("--false"), values: run.timeline.map((entry) => (entry.dropped ? most : null)), bars: true },
    ], "seconds", {}, timelines);
  });
}
