"use strict";

// The page: state, tables, lists, frames and keys.
const fixed = (value, digits = 3) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const percent = (value) => (value === null ? "–" : `${Math.round(100 * value)} %`);
const run = () => Number(byId("run").value || 0);

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function table(node, head, rows) {
  const line = (cells, tag) => element("tr", {}, ...cells.map((cell) => element(tag, {}, cell)));
  node.replaceChildren(line(head, "th"), ...rows.map((cells) => line(cells, "td")));
}

const named = (entry) => element("span", {}, element("i", { class: "swatch", style: `background:${entry.colour}` }), entry.name);

// ---- what stays

function showSummary() {
  byId("title").textContent = report.title;
  byId("warning").hidden = !report.warning;
  byId("warning").textContent = report.warning;
  table(byId("summary"), ["", ...report.runs[0].cards.map(([name]) => name)], report.runs.map((entry) => [entry.name, ...entry.cards.map(([, value]) => value)]));
  const errorNames = Object.keys(report.runs[0].classes[0].errors);
  const head = ["class", "truth", ...report.runs.flatMap((entry) => [`AP ${report.runs.length > 1 ? entry.name : ""}`, "boxes", ...errorNames.map((name) => name.slice(1))]),
    ...(report.runs.length > 1 ? ["AP difference"] : [])];
  table(byId("classes"), head, report.classes.map((entry, label) => {
    const scored = report.runs.map((one) => one.classes[label]);
    const cells = scored.flatMap((one) => [fixed(one.ap), String(one.detections), ...errorNames.map((name) => fixed(one.errors[name]))]);
    return [named(entry), String(scored[0].truths), ...cells, ...(scored.length > 1 ? [signed(scored[1].ap - scored[0].ap)] : [])];
  }));
  const absent = report.classes.filter((_, label) => report.runs[0].classes[label].truths === 0).map((entry) => entry.name);
  if (absent.length) byId("absent").textContent = `No truth of ${absent.join(", ")}: each counts as AP 0 and errors 1, as in the benchmark.`;
  table(byId("stages"), ["stage, ms", ...report.runs.flatMap(() => ["p50", "p95"])],
    report.runs[0].stages.map(([name], index) => [name, ...report.runs.flatMap((entry) => (entry.stages[index] || [name, null, null]).slice(1).map((value) => fixed(value, 1)))]));
}

const signed = (value) => `${value >= 0 ? "+" : "−"}${Math.abs(value).toFixed(3)}`;

function showClassChoice() {
  report.classes.forEach((entry, label) => {
    const count = frames.reduce((sum, frame) => sum + frame.truths.filter((truth) => truth.label === label).length, 0);
    const input = element("input", { type: "checkbox", checked: "" });
    input.addEventListener("change", () => { filters.classes[input.checked ? "add" : "delete"](label); refresh(); });
    byId("chosen-classes").append(element("label", { class: "chip" }, input, named(entry), element("small", {}, String(count))));
  });
}

// ---- what follows the filters

function showTally() {
  byId("threshold").value = filters.threshold;
  byId("threshold-value").textContent = filters.threshold.toFixed(2);
  byId("tally").replaceChildren(...report.runs.map((entry, index) => {
    const sum = tally(index, frames);
    return element("span", {}, `${report.runs.length > 1 ? `${entry.name}: ` : ""}precision ${percent(sum.precision)}, recall ${percent(sum.recall)}: `
      + `${sum.found} of ${sum.objects} objects found, ${sum.spurious} of ${sum.boxes} boxes false, in ${frames.length} frames. `);
  }));
}

function showLists() {
  fill("misses", missedObjects(run()), (entry) => [entry.shown, `${entry.shown.distance.toFixed(1)} m, missed in ${entry.missed} of ${entry.seen} frames`]);
  fill("spurious", falsePlaces(run()), (entry) => [entry.shown, `${entry.shown.score.toFixed(2)} at ${entry.shown.distance.toFixed(1)} m, in ${entry.times} frame${entry.times > 1 ? "s" : ""}`]);
  byId("differences").replaceChildren();
  if (report.runs.length < 2) return;
  for (const [one, other] of [[0, 1], [1, 0]]) {
    const list = element("div", { class: "list", id: `only-${one}` });
    byId("differences").append(element("h2", {}, `Found by ${report.runs[one].name} alone`), list);
    const alone = misses(other).filter((truth) => isFound(truth, one)).sort((a, b) => a.distance - b.distance);
    fill(list.id, alone, (truth) => [truth, `${truth.distance.toFixed(1)} m`]);
  }
}

const LISTED = 40;

function fill(id, entries, describe) {
  const buttons = entries.slice(0, LISTED).map((entry) => {
    const [shown, text] = describe(entry);
    const button = element("button", {}, named(report.classes[shown.label]), ` ${text}`);
    button.addEventListener("click", () => { show(order.indexOf(shown.frame)); light(shown.key); byId("caption").scrollIntoView({ block: "nearest" }); });
    return button;
  });
  const rest = entries.length - buttons.length;
  byId(id).replaceChildren(...(buttons.length ? buttons : ["none"]), ...(rest > 0 ? [element("span", {}, `and ${rest} more`)] : []));
}

function showConfusion() {
  const counts = confusion(run()), used = report.classes.map((_, label) => label).filter((label) => counts[label].some((count) => count) || counts.some((row) => row[label]));
  const last = report.classes.length, text = (count) => (count ? String(count) : "·");
  const rows = used.map((label) => [named(report.classes[label]), ...used.map((column) => text(counts[label][column])), text(counts[label][last])]);
  table(byId("confusion"), ["", ...used.map((label) => report.classes[label].name), "missed"], [...rows, ["nothing", ...used.map((column) => text(counts[last][column])), ""]]);
}

// ---- frames

let order = [];
let position = 0;

function sortFrames() {
  const weight = frames.map((frame) => misses(run(), [frame]).reduce((sum, truth) => sum + nearness(truth), 0) - (frame.views.length ? 0 : 1e6));
  order = frames.map((_, index) => index);
  if (byId("order").value === "worst") order.sort((a, b) => weight[b] - weight[a]);
}

function show(next) {
  if (!order.length) return;
  position = Math.min(Math.max(next, 0), order.length - 1);
  const frame = frames[order[position]], sum = tally(run(), [frame]);
  byId("slider").value = position;
  showViews(frame, run());
  showFromAbove(frame, report.runs.map((_, index) => index));
  const range = `classes' ranges, ${filters.near} to ${filters.far} m, score from ${filters.threshold.toFixed(2)}`;
  byId("caption").textContent = [`${position + 1} of ${order.length}`, `${frame.bag} at ${frame.seconds.toFixed(2)} s`,
    `${sum.boxes} boxes, ${sum.found} of ${sum.objects} objects found, ${sum.missed} missed, ${sum.spurious} false (${range})`,
    ...(report.runs[run()].processed[frame.index] ? [] : ["NOT PROCESSED"])].join(" · ");
  byId("link").textContent = `bevformer-ros draw ${frame.path} --at ${frame.seconds.toFixed(3)} --boxes ${frame.topic} -o moment.png   # stamp ${frame.stamp}`;
  history.replaceState(null, "", `#frame=${frame.index}&score=${filters.threshold.toFixed(2)}`);
}

function light(key) {
  document.querySelectorAll("#stage .hot").forEach((node) => node.classList.remove("hot"));
  if (key) document.querySelectorAll(`#stage [data-key="${key}"]`).forEach((node) => node.classList.add("hot"));
}

function describe(key) {
  const frame = frames[order[position]];
  const one = (key[0] === "t" ? frame.truths : frame.detections[run()])[Number(key.slice(1))];
  const detection = key[0] === "d" ? one : null, truth = detection ? detection.hit : one;
  const lines = [`${report.classes[one.label].name}${detection ? ` ${detection.score.toFixed(2)}` : ""}`, detection ? (truth ? "found" : "false") : isFound(truth, run()) ? "truth, found" : "missed",
    `${one.distance.toFixed(1)} m away`, one.vx === null ? "velocity unknown" : `${Math.hypot(one.vx, one.vy).toFixed(1)} m/s`];
  if (truth && truth.visibility) lines.push(`visible ${["", "up to 40 %", "40 to 60 %", "60 to 80 %", "over 80 %"][truth.visibility]}`);
  if (truth && truth.id) lines.push(`object ${truth.id}`);
  if (detection && truth) lines.push(`${Math.hypot(one.x - truth.x, one.y - truth.y).toFixed(2)} m off`);
  return lines.join(" · ");
}

// ---- acting

let pending = 0;

// The filters have changed: everything follows, and the frame stays.
function refresh(change = () => {}) {
  const frame = order[position];
  change();
  showTally();
  sortFrames();
  show(frame === undefined ? 0 : order.indexOf(frame));
  cancelAnimationFrame(pending);
  pending = requestAnimationFrame(() => { showLists(); showConfusion(); showCharts(); });
}

function setThreshold(value) {
  refresh(() => { filters.threshold = Math.min(1, Math.max(0, Math.round(value * 100) / 100)); });
}

function listen() {
  const on = (id, event, act) => byId(id).addEventListener(event, act);
  byId("slider").max = Math.max(frames.length - 1, 0);
  on("slider", "input", () => show(Number(byId("slider").value)));
  on("previous", "click", () => show(position - 1));
  on("next", "click", () => show(position + 1));
  on("order", "change", () => { sortFrames(); show(0); });
  on("threshold", "input", () => setThreshold(Number(byId("threshold").value)));
  on("balanced", "click", () => setThreshold(bestThreshold(run())));
  for (const id of ["near", "far"]) on(id, "input", () => refresh(() => { filters[id] = Number(byId(id).value); }));
  on("visibility", "change", () => refresh(() => { filters.visibility = Number(byId("visibility").value); }));
  on("colour", "change", () => show(position));
  on("run", "change", () => refresh());
  on("stage", "pointerover", (event) => { const hit = event.target.closest("[data-key]"); light(hit && hit.dataset.key); });
  on("stage", "pointermove", (event) => {
    const hit = event.target.closest("[data-key]");
    byId("tip").hidden = !hit;
    if (!hit) return;
    byId("tip").textContent = describe(hit.dataset.key);
    Object.assign(byId("tip").style, { left: `${Math.min(event.clientX + 14, innerWidth - 260)}px`, top: `${event.clientY + 14}px` });
  });
  on("stage", "pointerleave", () => { byId("tip").hidden = true; light(null); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { showCharts(); showLatency(); });
  document.addEventListener("keydown", onKey);
}

function onKey(event) {
  const choose = (id) => { const node = byId(id); node.selectedIndex = (node.selectedIndex + 1) % node.options.length; node.dispatchEvent(new Event("change")); };
  const acts = {
    ArrowLeft: () => show(position - 1), ArrowRight: () => show(position + 1), Home: () => show(0), End: () => show(order.length - 1),
    "+": () => setThreshold(filters.threshold + 0.05), "-": () => setThreshold(filters.threshold - 0.05), c: () => choose("colour"), r: () => choose("run"),
  };
  const typing = event.target.matches && event.target.matches("select, input:not([type=checkbox])");
  if (!(event.key in acts) || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  acts[event.key]();
}

report.runs.forEach((entry, index) => byId("run").append(element("option", { value: index }, entry.name)));
byId("visibility-choice").hidden = !frames.some((frame) => frame.truths.some((truth) => truth.visibility));
byId("run-choice").hidden = report.runs.length < 2;
byId("stage").classList.toggle("two", report.runs.length > 1);
const asked = new URLSearchParams(location.hash.slice(1));
if (asked.has("score")) filters.threshold = Number(asked.get("score"));
showSummary();
showClassChoice();
listen();
listenFromAbove();
refresh();
if (asked.has("frame")) show(order.indexOf(Number(asked.get("frame"))));
showLatency();
document.body.dataset.ready = String(Math.round(performance.now()));
