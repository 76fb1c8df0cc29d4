"use strict";

// Boxes over the camera images and from above, as SVG.
const byId = (id) => document.getElementById(id);
const UNIT_CORNERS = [-0.5, 0.5].flatMap((x) => [[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]].map(([y, z]) => [x, y, z]));
const EDGES = [0, 1, 2, 3].flatMap((i) => [[i, (i + 1) % 4], [4 + i, 4 + (i + 1) % 4], [i, 4 + i]]);
const FRONT = [[4, 6], [5, 7]];
const NEAR = 0.1, REACH = 55;
const LABELLED = 14; // narrower boxes, in pixels, have no room for their score

function shape(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function corners(one) {
  const cos = Math.cos(one.yaw), sin = Math.sin(one.yaw);
  return UNIT_CORNERS.map(([x, y, z]) => {
    const along = x * one.length, across = y * one.width;
    return [one.x + cos * along - sin * across, one.y + sin * along + cos * across, one.z + z * one.height];
  });
}

// What a frame shows under the filters: [box, outcome], the truth of what was found first, so that it lies below.
function marks(frame, run) {
  const truths = frame.truths.filter(keepsPlace), boxes = frame.detections[run].filter(isShown);
  return [
    ...truths.filter((one) => isFound(one, run)).map((one) => [one, "truth"]),
    ...truths.filter((one) => !isFound(one, run)).map((one) => [one, "missed"]),
    ...boxes.filter((one) => !one.hit).map((one) => [one, "false"]),
    ...boxes.filter((one) => one.hit).map((one) => [one, "found"]),
  ];
}

function group(one, outcome) {
  const node = shape("g", { class: `box ${outcome}`, "data-key": one.key });
  if (byId("colour").value === "class" && outcome !== "truth") node.style.stroke = report.classes[one.label].colour;
  return node;
}

// ---- camera images

function showViews(frame, run) {
  byId("views").replaceChildren(...frame.views.map((view) => cameraView(view, marks(frame, run))));
  byId("views").classList.toggle("none", !frame.views.length);
  if (!frame.views.length) byId("views").textContent = "No picture was made of this frame (report --frames N makes more).";
}

function cameraView(view, shown) {
  const figure = document.createElement("figure"), image = document.createElement("img"), name = document.createElement("figcaption");
  Object.assign(image, { src: view.picture, width: view.width, height: view.height, alt: `${view.camera}, with boxes` });
  name.textContent = view.camera;
  const overlay = shape("svg", { viewBox: `0 0 ${view.width} ${view.height}` });
  const nodes = shown.map(([one, outcome]) => cameraBox(view, one, outcome)).filter((node) => node);
  overlay.append(...nodes.sort((a, b) => b.depth - a.depth).map((entry) => entry.node));
  figure.append(image, overlay, name);
  return figure;
}

function cameraBox(view, one, outcome) {
  const m = view.cameraFromEgo, k = view.intrinsics;
  const points = corners(one).map(([x, y, z]) => [0, 1, 2].map((row) => m[row][0] * x + m[row][1] * y + m[row][2] * z + m[row][3]));
  if (points.every((point) => point[2] <= NEAR)) return null;
  const isBox = outcome === "found" || outcome === "false";
  const pixel = ([x, y, z]) => [(k[0][0] * x + k[0][1] * y) / z + k[0][2] + 0.5, k[1][1] * y / z + k[1][2] + 0.5];
  const lines = (isBox ? [...EDGES, ...FRONT] : EDGES).map(([a, b]) => clipped(points[a], points[b])).filter((line) => line).map((line) => line.map(pixel));
  const xs = lines.flatMap((line) => line.map((point) => point[0])), ys = lines.flatMap((line) => line.map((point) => point[1]));
  const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  if (right < 0 || bottom < 0 || left > view.width || top > view.height) return null;
  const node = group(one, outcome);
  node.append(shape("path", { d: lines.map(([a, b]) => `M${coordinates(a)}L${coordinates(b)}`).join("") }));
  node.append(shape("rect", { class: "reach", x: left, y: top, width: right - left, height: bottom - top }));
  if (isBox && right - left > LABELLED) node.append(shape("text", { x: Math.max(2, left), y: Math.max(11, top - 3) }, one.score.toFixed(2).slice(1)));
  return { node, depth: points.reduce((sum, point) => sum + point[2], 0) };
}

const coordinates = (point) => point.map((value) => Math.max(-9999, Math.min(9999, value)).toFixed(1)).join(" ");

function clipped(a, b) {
  if (a[2] > b[2]) [a, b] = [b, a];
  if (b[2] <= NEAR) return null;
  if (a[2] >= NEAR) return [a, b];
  const share = (NEAR - a[2]) / (b[2] - a[2]);
  return [a.map((value, axis) => value + share * (b[axis] - value)), b];
}

// ---- from above: x forward is up, y left is left, in metres

const sight = { x: -REACH, y: -REACH, size: 2 * REACH };

function showFromAbove(frame, runs) {
  byId("bevs").replaceChildren(...runs.map((run) => {
    const figure = document.createElement("figure"), name = document.createElement("figcaption");
    name.textContent = report.runs.length > 1 ? report.runs[run].name : "from above";
    figure.append(fromAbove(frame, run), name);
    return figure;
  }));
}

function fromAbove(frame, run) {
  const svg = shape("svg", { class: "bev", viewBox: viewBox(), tabindex: 0, role: "img", "aria-label": "boxes from above" });
  for (let radius = 10; radius <= 50; radius += 10) {
    svg.append(shape("circle", { class: "grid", r: radius }), shape("text", { class: "far", x: 0.6, y: -radius - 0.4 }, `${radius} m`));
  }
  svg.append(shape("path", { class: "car", d: "M-0.9 1.1L-0.9 -2.6L0 -3.8L0.9 -2.6L0.9 1.1Z" }));
  for (const [one, outcome] of marks(frame, run)) svg.append(boxFromAbove(one, outcome));
  return svg;
}

function boxFromAbove(one, outcome) {
  const node = group(one, outcome);
  const outline = corners(one).filter((_, index) => [0, 1, 4, 5].includes(index)).map(([x, y]) => `${(-y).toFixed(2)} ${(-x).toFixed(2)}`);
  node.append(shape("path", { class: "solid", d: `M${outline[0]}L${outline[1]}L${outline[3]}L${outline[2]}Z` }));
  const head = [one.x + Math.cos(one.yaw) * one.length / 2, one.y + Math.sin(one.yaw) * one.length / 2];
  const way = (x, y) => shape("path", { d: `M${-one.y} ${-one.x}L${-y} ${-x}` });
  node.append(way(...head));
  if (outcome === "found" && one.vx !== null && Math.hypot(one.vx, one.vy) > 0.5) node.append(way(one.x + one.vx, one.y + one.vy));
  return node;
}

const viewBox = () => `${sight.x} ${sight.y} ${sight.size} ${sight.size}`;
const redrawSight = () => document.querySelectorAll(".bev").forEach((svg) => svg.setAttribute("viewBox", viewBox()));

function zoom(svg, event) {
  const frame = svg.getBoundingClientRect(), factor = Math.exp(Math.sign(event.deltaY) * 0.2);
  const size = Math.min(2 * REACH, Math.max(8, sight.size * factor));
  const [u, v] = [(event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height];
  Object.assign(sight, { x: sight.x + u * (sight.size - size), y: sight.y + v * (sight.size - size), size });
  redrawSight();
}

function listenFromAbove() {
  const area = byId("bevs");
  area.addEventListener("wheel", (event) => {
    const svg = event.target.closest(".bev");
    if (!svg) return;
    event.preventDefault();
    zoom(svg, event);
  }, { passive: false });
  area.addEventListener("pointermove", (event) => {
    const svg = event.target.closest(".bev");
    if (!svg || !event.buttons) return;
    const scale = sight.size / svg.getBoundingClientRect().width;
    Object.assign(sight, { x: sight.x - event.movementX * scale, y: sight.y - event.movementY * scale });
    redrawSight();
  });
  area.addEventListener("dblclick", () => { Object.assign(sight, { x: -REACH, y: -REACH, size: 2 * REACH }); redrawSight(); });
}
