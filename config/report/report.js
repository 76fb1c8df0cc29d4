"use strict";

// Everything is drawn from window.REPORT, which data.js sets: no server, no library.
const report = window.REPORT;
const byId = (id) => document.getElementById(id);
const fixed = (value, digits = 3) => (value === null || value === undefined ? "–" : value.toFixed(digits));

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function shape(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function table(node, head, rows) {
  const row = (cells, tag) => element("tr", {}, ...cells.map((cell) => element(tag, {}, cell)));
  node.replaceChildren(row(head, "th"), ...rows.map((cells) => row(cells, "td")));
}

// ---- summary

function showSummary() {
  byId("title").textContent = report.title;
  byId("warning").hidden = !report.warning;
  byId("warning").textContent = report.warning;
  for (const [name, value] of report.cards) {
    byId("cards").append(element("div", { class: "card" }, element("b", {}, value), element("span", {}, name)));
  }
}

function showClasses() {
  const distances = Object.keys(report.classes[0].aps);
  const errors = Object.keys(report.classes[0].errors);
  const head = ["class", "truth", "boxes", "AP", ...distances.map((d) => `AP ${d} m`), ...errors.map((e) => e.slice(1))];
  const rows = report.classes.map((entry) => [
    named(entry), String(entry.truths), String(entry.detections), fixed(entry.ap),
    ...distances.map((d) => fixed(entry.aps[d])), ...errors.map((e) => fixed(entry.errors[e])),
  ]);
  table(byId("classes"), head, rows);
  const absent = report.classes.filter((entry) => entry.truths === 0).map((entry) => entry.name);
  if (absent.length) {
    byId("absent").textContent = `No truth of ${absent.join(", ")}: each counts as AP 0 and errors 1, as in the benchmark.`;
  }
}

function named(entry) {
  return element("span", {}, element("i", { class: "swatch", style: `background:${entry.colour}` }), entry.name);
}

// ---- charts

const WIDTH = 260, HEIGHT = 170, LEFT = 34, RIGHT = 6, TOP = 8, BOTTOM = 22;

function frame(width, height, xLabels, yMost) {
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}` });
  const x = (share) => LEFT + share * (width - LEFT - RIGHT);
  const y = (value) => height - BOTTOM - (value / (yMost || 1)) * (height - TOP - BOTTOM);
  for (const share of [0, 0.5, 1]) {
    svg.append(shape("path", { class: "axis", d: `M${x(0)} ${y(share * yMost)}H${x(1)}` }));
    svg.append(shape("text", { x: LEFT - 4, y: y(share * yMost) + 3, "text-anchor": "end" }, tick(share * yMost)));
  }
  for (const [share, label] of xLabels) {
    svg.append(shape("text", { x: x(share), y: height - 8, "text-anchor": share === 1 ? "end" : "middle" }, label));
  }
  return { svg, x, y };
}

function tick(value) {
  return value >= 10 || Number.isInteger(value) ? String(Math.round(value)) : value.toFixed(value < 1 ? 2 : 1);
}

function figure(svg, caption) {
  return element("figure", {}, svg, element("figcaption", {}, caption));
}

function showCurves() {
  for (const entry of report.classes.filter((candidate) => candidate.truths > 0)) {
    const { svg, x, y } = frame(WIDTH, HEIGHT, [[0, "0"], [0.5, "recall 0.5"], [1, "1"]], 1);
    Object.values(entry.precision).forEach((precision, index) => {
      const points = precision.map((value, step) => `${x(step / (precision.length - 1))},${y(value)}`).join(" ");
      const opacity = 0.35 + 0.2 * index;
      svg.append(shape("polyline", { points, fill: "none", stroke: entry.colour, "stroke-width": 1.6, opacity }));
    });
    byId("curves").append(figure(svg, `${entry.name}, AP ${fixed(entry.ap)}: ${Object.keys(entry.precision).join(", ")} m, faint to full`));
  }
}

function showDistances() {
  for (const chart of report.distances) {
    const most = chart.most || Math.max(...chart.values.map((value) => value || 0), 1e-9);
    const count = chart.values.length;
    const { svg, x, y } = frame(WIDTH, HEIGHT, chart.labels.map((label, index) => [(index + 0.5) / count, label]), most);
    chart.values.forEach((value, index) => {
      if (value === null) return;
      const left = x((index + 0.12) / count), right = x((index + 0.88) / count);
      svg.append(shape("rect", { x: left, y: y(value), width: right - left, height: y(0) - y(value), fill: "var(--accent)" }));
    });
    byId("distances").append(figure(svg, chart.name));
  }
}

function showLatency() {
  const shown = report.timeline;
  table(byId("stages"), ["stage, ms", "p50", "p95"], report.stages.map((row) => [row[0], fixed(row[1], 1), fixed(row[2], 1)]));
  if (!shown.length) return;
  const first = shown[0].seconds, span = Math.max(shown[shown.length - 1].seconds - first, 1e-9);
  const most = Math.max(...shown.map((entry) => entry.milliseconds), 1e-9);
  const { svg, x, y } = frame(1100, HEIGHT, [[0, "0 s"], [0.5, `${(span / 2).toFixed(1)} s`], [1, `${span.toFixed(1)} s`]], most);
  const done = shown.filter((entry) => !entry.dropped);
  const points = done.map((entry) => `${x((entry.seconds - first) / span)},${y(entry.milliseconds)}`).join(" ");
  svg.append(shape("polyline", { points, fill: "none", stroke: "var(--accent)", "stroke-width": 1.4 }));
  for (const entry of shown.filter((candidate) => candidate.dropped)) {
    const at = x((entry.seconds - first) / span);
    svg.append(shape("path", { d: `M${at} ${y(0)}v-14`, stroke: "var(--bad)", "stroke-width": 2 }));
  }
  byId("latency").append(figure(svg, "Milliseconds from the last image to the boxes, over the drive; red: sets that were dropped"));
}

// ---- frames

let order = [];
let position = 0;

function sortFrames() {
  const indices = report.frames.map((_, index) => index);
  order = byId("order").value === "time" ? indices : indices.sort((a, b) => report.frames[b].badness - report.frames[a].badness);
}

function show(next) {
  if (!order.length) return;
  position = Math.min(Math.max(next, 0), order.length - 1);
  const shown = report.frames[order[position]];
  byId("slider").value = position;
  byId("picture").src = shown.picture;
  const counts = `${shown.hits} of ${shown.truths} objects found, ${shown.missed} missed, ${shown.spurious} boxes of nothing`;
  const parts = [`${position + 1} of ${order.length}`, shown.name, counts, ...(shown.processed ? [] : ["NOT PROCESSED"])];
  byId("caption").textContent = parts.join(" · ");
  for (const neighbour of [position - 1, position + 1]) {
    if (order[neighbour] !== undefined) new Image().src = report.frames[order[neighbour]].picture;
  }
}

function showMisses() {
  for (const miss of report.misses) {
    const button = element("button", {}, `${miss.name} ${miss.distance.toFixed(1)} m`);
    button.addEventListener("click", () => show(order.indexOf(miss.frame)));
    byId("misses").append(button);
  }
  if (!report.misses.length) byId("misses").textContent = "none";
}

function listen() {
  byId("slider").max = Math.max(report.frames.length - 1, 0);
  byId("slider").addEventListener("input", () => show(Number(byId("slider").value)));
  byId("previous").addEventListener("click", () => show(position - 1));
  byId("next").addEventListener("click", () => show(position + 1));
  byId("order").addEventListener("change", () => { sortFrames(); show(0); });
  const steps = { ArrowLeft: () => position - 1, ArrowRight: () => position + 1, Home: () => 0, End: () => order.length - 1 };
  document.addEventListener("keydown", (event) => {
    if (event.key in steps && event.target.tagName !== "SELECT") {
      event.preventDefault();
      show(steps[event.key]());
    }
  });
}

showSummary();
sortFrames();
listen();
show(0);
showMisses();
showClasses();
showCurves();
showDistances();
showLatency();
document.body.dataset.ready = "true";
