"use strict";

// What the filters leave of window.REPORT, and what can be counted in it. Nothing here draws.
const report = window.REPORT;
const filters = { classes: new Set(report.classes.map((_, label) => label)), near: 0, far: 60, visibility: 0, threshold: report.threshold };

// Written out, since a page of 600 frames makes tens of thousands of them before it shows anything.
function box(row, frame, key) {
  const [label, x, y, z, length, width, height, yaw, vx, vy] = row;
  const distance = Math.sqrt(x * x + y * y);
  return { frame, key, label, x, y, z, length, width, height, yaw, vx, vy, distance, id: "", visibility: 0, by: null, score: 0, hit: null, turned: null };
}

function truthOf(row, frame, key) {
  const made = box(row, frame, key);
  made.id = row[10];
  made.visibility = row[11];
  made.by = report.runs.map(() => null); // the box that found it, by run
  return made;
}

function detectionOf(row, frame, key, truths, run) {
  const made = box(row, frame, key);
  made.score = row[10];
  made.turned = row[12];
  if (row[11] >= 0) {
    made.hit = truths[row[11]];
    made.hit.by[run] = made;
  }
  return made;
}

// The moments, each with its truth and, by run, its detections.
const frames = report.frames.map((entry, index) => {
  const truths = entry.truths.map((row, place) => truthOf(row, index, `t${place}`));
  const detections = report.runs.map((one, run) => one.boxes[index].map((row, place) => detectionOf(row, index, `d${place}`, truths, run)));
  return { ...entry, index, truths, detections };
});

// How visible a truth is may not be known, and never is of a false box.
const keepsPlace = (one) => filters.classes.has(one.label) && one.distance >= filters.near && one.distance < filters.far
  && (one.visibility === 0 || one.visibility >= filters.visibility);
// A right box follows its object, so that no filter tears a pair apart.
const keepsBox = (one) => keepsPlace(one.hit || one);
const isShown = (one) => one.score >= filters.threshold && keepsBox(one);
// Pairs are made best score first, so a threshold takes pairs away and never makes new ones.
const isFound = (truth, run) => truth.by[run] !== null && truth.by[run].score >= filters.threshold;

function tally(run, chosen) {
  const sum = { objects: 0, found: 0, boxes: 0 };
  for (const frame of chosen) {
    for (const truth of frame.truths) {
      if (!keepsPlace(truth)) continue;
      sum.objects += 1;
      if (isFound(truth, run)) sum.found += 1;
    }
    sum.boxes += frame.detections[run].filter(isShown).length;
  }
  return { ...sum, missed: sum.objects - sum.found, spurious: sum.boxes - sum.found,
    recall: sum.objects ? sum.found / sum.objects : null, precision: sum.boxes ? sum.found / sum.boxes : null };
}

// Points of falling score: precision, recall and F1 of all boxes down to it.
function curve(run) {
  const objects = frames.reduce((sum, frame) => sum + frame.truths.filter(keepsPlace).length, 0);
  const boxes = frames.flatMap((frame) => frame.detections[run].filter(keepsBox)).sort((a, b) => b.score - a.score);
  let found = 0;
  return boxes.map((one, index) => {
    if (one.hit) found += 1;
    const precision = found / (index + 1), recall = objects ? found / objects : 0;
    return { score: one.score, precision, recall, f1: 2 * found / (index + 1 + objects) };
  });
}

function bestThreshold(run) {
  const best = curve(run).reduce((a, b) => (b.f1 > a.f1 ? b : a), { score: filters.threshold, f1: 0 });
  return Math.floor(best.score * 100) / 100;
}

const nearness = (one) => Math.max(0, 1 - one.distance / 50);

function misses(run, chosen = frames) {
  return chosen.flatMap((frame) => frame.truths.filter((truth) => keepsPlace(truth) && !isFound(truth, run)));
}

// One entry for each object: how often it was there, how often it was missed; the nearest miss shows it.
function missedObjects(run) {
  const objects = new Map();
  for (const frame of frames) {
    for (const truth of frame.truths.filter(keepsPlace)) {
      const name = truth.id ? `${frame.bag} ${truth.id}` : `${frame.index} ${truth.key}`;
      const entry = objects.get(name) || { seen: 0, missed: 0, weight: 0, shown: null };
      objects.set(name, entry);
      entry.seen += 1;
      if (isFound(truth, run)) continue;
      entry.missed += 1;
      entry.weight += nearness(truth);
      if (!entry.shown || truth.distance < entry.shown.distance) entry.shown = truth;
    }
  }
  return [...objects.values()].filter((entry) => entry.missed).sort((a, b) => b.weight - a.weight);
}

// False boxes of one class at one place of the world, moment after moment, are one mistake.
function falsePlaces(run) {
  const places = [];
  let recent = [];
  for (const frame of frames) {
    recent = recent.filter((place) => frame.index - place.last <= 5);
    const [x, y, yaw] = frame.ego;
    for (const one of frame.detections[run].filter((entry) => isShown(entry) && !entry.hit)) {
      const worldX = x + Math.cos(yaw) * one.x - Math.sin(yaw) * one.y, worldY = y + Math.sin(yaw) * one.x + Math.cos(yaw) * one.y;
      let place = recent.find((entry) => entry.bag === frame.bag && entry.label === one.label && Math.hypot(entry.x - worldX, entry.y - worldY) < 3);
      if (!place) {
        place = { bag: frame.bag, label: one.label, times: 0, shown: one };
        places.push(place);
        recent.push(place);
      }
      Object.assign(place, { x: worldX, y: worldY, times: place.times + 1, last: frame.index });
      if (one.score > place.shown.score) place.shown = one;
    }
  }
  return places.sort((a, b) => b.shown.score - a.shown.score);
}

// counts[object's class or "nothing"][box's class or "missed"]
function confusion(run) {
  const count = report.classes.length;
  const counts = Array.from({ length: count + 1 }, () => new Array(count + 1).fill(0));
  for (const frame of frames) {
    const free = new Set(frame.truths.filter((truth) => keepsPlace(truth) && !isFound(truth, run)));
    for (const one of frame.detections[run].filter(isShown)) {
      if (one.hit) { counts[one.label][one.label] += 1; continue; }
      const near = [...free].map((truth) => [Math.hypot(truth.x - one.x, truth.y - one.y), truth]).filter(([apart]) => apart < 2);
      const taken = near.length ? near.reduce((a, b) => (b[0] < a[0] ? b : a))[1] : null;
      free.delete(taken);
      counts[taken ? taken.label : count][one.label] += 1;
    }
    for (const truth of free) counts[truth.label][count] += 1;
  }
  return counts;
}

// Of the pairs: errors of place, heading, velocity and length; velocities only where the truth knows them.
function errors(run) {
  const pairs = frames.flatMap((frame) => frame.detections[run].filter((one) => one.hit && isShown(one)));
  const moving = pairs.filter((one) => one.hit.vx !== null && one.vx !== null);
  return {
    place: pairs.map((one) => Math.hypot(one.x - one.hit.x, one.y - one.hit.y)),
    heading: pairs.filter((one) => one.turned !== null).map((one) => one.turned),
    velocity: moving.map((one) => Math.hypot(one.vx - one.hit.vx, one.vy - one.hit.vy)),
    length: pairs.map((one) => one.length - one.hit.length),
  };
}

function histogram(values, first, last, bins) {
  const counts = new Array(bins).fill(0);
  for (const value of values) {
    counts[Math.min(bins - 1, Math.max(0, Math.floor((value - first) / (last - first) * bins)))] += 1;
  }
  return { counts, middles: counts.map((_, index) => first + (index + 0.5) * (last - first) / bins) };
}

// By tenth of the score: how many boxes, and which share of them is right.
function calibration(run) {
  const boxes = new Array(10).fill(0), right = new Array(10).fill(0);
  for (const frame of frames) {
    for (const one of frame.detections[run].filter(keepsBox)) {
      const bin = Math.min(9, Math.floor(one.score * 10));
      boxes[bin] += 1;
      if (one.hit) right[bin] += 1;
    }
  }
  return { boxes, share: boxes.map((count, bin) => (count ? right[bin] / count : null)) };
}

function recallByDistance(run) {
  const objects = new Array(6).fill(0), found = new Array(6).fill(0);
  for (const truth of frames.flatMap((frame) => frame.truths.filter(keepsPlace))) {
    const bin = Math.min(5, Math.floor(truth.distance / 10));
    objects[bin] += 1;
    if (isFound(truth, run)) found[bin] += 1;
  }
  return { objects, share: objects.map((count, bin) => (count ? found[bin] / count : null)) };
}
