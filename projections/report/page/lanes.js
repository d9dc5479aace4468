// The timeline: a lane for each lease or actor, drawn on a canvas as tall as what is seen of it.

const GUTTER = 190;
const AXIS = 26;
const LANE = 38;
const APART = 3;
const TICKS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 3e4, 6e4, 12e4, 3e5, 6e5, 18e5, 36e5, 72e5, 216e5,
  432e5, 864e5, 1728e5, 6048e5, 12096e5, 2592e6, 7776e6, 31536e6, 1576800e5, 3153600e5];
const SHAPES = { "lease.acquired": "up", "lease.refresh_started": "ring", "lease.refreshed": "dot", "lease.expiring": "bar",
  "lease.refresh_failed": "cross", "lease.reauth_required": "square", "lease.released": "down",
  "lease.credential_released": "down", "lease.restored": "diamond" };
const GRAVE = new Set(["lease.refresh_failed", "lease.reauth_required"]);
const OUTCOMES = { open: "--open-line", refreshed: "--good-line", recovered: "--good-line", failed: "--warn-line",
  refused: "--bad-line", abandoned: "--gone-line", late: "--good-line", overtaken: "--gone-line" };
const canvas = element("canvas");
const pen = canvas.getContext("2d");
let lanes = [];
let hits = [];
let palette = {};

const spot = (at) => GUTTER + ((at - view.from) / (view.to - view.from)) * (canvas.clientWidth - GUTTER);
const momentAt = (x) => view.from + ((x - GUTTER) / (canvas.clientWidth - GUTTER)) * (view.to - view.from);
const laneTop = (number) => AXIS + number * LANE - element("lanes").scrollTop;

function readPalette() {
  const style = getComputedStyle(document.documentElement);
  const names = ["--card", "--line", "--faint", "--text", "--soft", "--accent", "--mark", "--bad", "--chosen", "--valid", "--expiring",
    "--refreshing", "--reauth", "--none", "--on-phase", ...Object.values(OUTCOMES)];
  palette = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(name).trim()]));
  palette.font = getComputedStyle(document.body).fontFamily;
}

function arrangeLanes() {
  const column = view.lanes === "key" ? events.key : events.actor;
  const names = view.lanes === "key" ? model.keys : model.actors;
  const found = new Map();
  for (const index of view.shown) {
    const lane = found.get(column[index]);
    if (lane) lane.items.push(index);
    else found.set(column[index], { id: column[index], name: names[column[index]], items: [index], attempts: [] });
  }
  for (const attempt of model.attempts) found.get(attempt[view.lanes])?.attempts.push(attempt);
  lanes = [...found.values()].sort((one, other) => (one.name < other.name ? -1 : 1));
  lanes.forEach((lane) => lane.items.sort((one, other) => moments[one] - moments[other]));
}

function fitCanvas(height) {
  const box = element("lanes");
  const [wide, high] = [box.clientWidth, height ?? box.clientHeight];
  const ratio = window.devicePixelRatio || 1;
  canvas.style.width = `${wide}px`;
  canvas.style.height = `${high}px`;
  [canvas.width, canvas.height] = [Math.round(wide * ratio), Math.round(high * ratio)];
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  element("spacer").style.height = `${Math.max(AXIS + lanes.length * LANE - high, 0)}px`;
}

function text(words, x, y, width, colour, size = 12) {
  pen.font = `${size}px ${palette.font}`;
  pen.fillStyle = colour;
  let cut = words;
  if (pen.measureText(words).width > width) {
    while (cut.length > 1 && pen.measureText(`${cut}…`).width > width) cut = cut.slice(0, -1);
    cut = `${cut}…`;
  }
  pen.fillText(cut, x, y);
}

function tickText(at, step) {
  if (step >= 864e5) return calendar(at, 10);
  return calendar(at, 23).slice(11, step >= 6e4 ? 16 : step >= 1e3 ? 19 : 23);
}

function drawAxis(width, height) {
  const step = TICKS.find((size) => (size / (view.to - view.from)) * (width - GUTTER) >= 96) ?? TICKS.at(-1);
  pen.fillStyle = palette["--card"];
  pen.fillRect(0, 0, width, AXIS);
  text(step < 864e5 ? `${calendar(view.from, 10)} UTC` : "UTC", 12, 17, GUTTER - 20, palette["--soft"]);
  for (let at = Math.ceil(view.from / step) * step; at <= view.to; at += step) {
    const x = Math.round(spot(at)) + 0.5;
    pen.fillStyle = palette["--line"];
    pen.fillRect(x, AXIS - 6, 1, height);
    const midnight = step < 864e5 && at % 864e5 === 0;
    if (x + 70 < width) text(midnight ? calendar(at, 10) : tickText(at, step), x + 4, 17, 90, palette["--soft"], 11);
  }
  pen.fillStyle = palette["--line"];
  pen.fillRect(0, AXIS - 0.5, width, 1);
}

function bandText(index, phase) {
  const attempt = phase === "refreshing" ? attemptAt.get(index) : null;
  return attempt && attempt.duration_ms !== null ? `refreshing ${durationText(attempt.duration_ms)}` : phaseName(phase);
}

function bandLabel(words, x, y, room) {
  pen.font = `11px ${palette.font}`;
  if (room > 30 && pen.measureText(words).width <= room) text(words, x, y, room, palette["--on-phase"], 11);
}

function drawBands(lane, top, width) {
  const indexes = byKey.get(lane.id);
  let reached = -Infinity;
  indexes.forEach((index, place) => {
    reached = Math.max(reached, moments[index]);
    const phase = events.phase[index];
    const next = indexes[place + 1];
    const until = next === undefined ? Infinity : Math.max(moments[next], reached);
    const [x, end] = [Math.max(spot(reached), GUTTER), Math.min(spot(until), width)];
    if (!phase || end <= GUTTER || x >= width) return;
    pen.fillStyle = palette[phase === "reauth_required" ? "--reauth" : `--${phase}`];
    pen.fillRect(x, top + 5, Math.max(end - x, 1), 20);
    bandLabel(bandText(index, phase), x + 14, top + 19, end - x - 26);
  });
}

function attemptEnd(attempt) {
  if (attempt.duration_ms !== null) return moments[attempt.start] + attempt.duration_ms;
  return attempt.end === null ? view.to : moments[attempt.end];
}

function drawAttempts(lane, top, width) {
  const rows = view.lanes === "key" ? [top + 28] : [top + 23, top + 28, top + 33];
  const taken = rows.map(() => -Infinity);
  for (const attempt of lane.attempts) {
    const [x, end] = [Math.max(spot(moments[attempt.start]), GUTTER), Math.min(spot(attemptEnd(attempt)), width)];
    if (end < GUTTER || x > width) continue;
    const row = Math.max(taken.findIndex((until) => until < x), 0);
    taken[row] = Math.max(taken[row], end);
    pen.fillStyle = palette[OUTCOMES[attempt.outcome]];
    pen.fillRect(x, rows[row], Math.max(end - x, 2), 4);
  }
}

function drawShape(shape, x, y, colour) {
  pen.beginPath();
  if (shape === "dot" || shape === "ring") pen.arc(x, y, 4.5, 0, Math.PI * 2);
  else if (shape === "up") { pen.moveTo(x, y - 5.5); pen.lineTo(x + 5.5, y + 4.5); pen.lineTo(x - 5.5, y + 4.5); }
  else if (shape === "down") { pen.moveTo(x, y + 5.5); pen.lineTo(x + 5.5, y - 4.5); pen.lineTo(x - 5.5, y - 4.5); }
  else if (shape === "diamond") { pen.moveTo(x, y - 6); pen.lineTo(x + 6, y); pen.lineTo(x, y + 6); pen.lineTo(x - 6, y); }
  else if (shape === "square") pen.rect(x - 4.5, y - 4.5, 9, 9);
  else if (shape === "bar") pen.rect(x - 1.5, y - 6, 3, 12);
  else { pen.moveTo(x - 4, y - 4); pen.lineTo(x + 4, y + 4); pen.moveTo(x + 4, y - 4); pen.lineTo(x - 4, y + 4); }
  pen.closePath();
  [pen.strokeStyle, pen.fillStyle, pen.lineWidth] = [palette["--card"], shape === "ring" ? palette["--card"] : colour, 1.5];
  if (shape === "ring" || shape === "cross") [pen.strokeStyle, pen.lineWidth] = [colour, 2.5];
  if (shape !== "cross") pen.fill();
  pen.stroke();
}

const countText = (count) => (count > 999 ? "999+" : String(count));

function reachOf(cluster) {
  const x = (cluster.x + cluster.end) / 2;
  const half = cluster.items.length > 1 ? 5 + countText(cluster.items.length).length * 3.5 : 7;
  return [x - half, x + half];
}

function drawCluster(cluster, [left, right], y) {
  const label = countText(cluster.items.length);
  const grave = cluster.items.some((index) => GRAVE.has(tagOf(index)));
  pen.beginPath();
  pen.roundRect(left, y - 8, right - left, 16, 8);
  [pen.fillStyle, pen.strokeStyle, pen.lineWidth] = [palette[grave ? "--bad" : "--mark"], palette["--card"], 1.5];
  pen.fill();
  pen.stroke();
  text(label, (left + right) / 2 - label.length * 3.5, y + 4, 60, palette["--card"], 11);
}

function mergeLast(clusters) {
  const last = clusters.pop();
  const into = clusters.at(-1);
  into.end = last.end;
  into.items.push(...last.items);
}

function clustersOf(lane, width) {
  const found = [];
  for (const index of lane.items) {
    const x = spot(moments[index]);
    if (!(x >= GUTTER - 6 && x <= width + 6)) continue;
    found.push({ x, end: x, items: [index] });
    while (found.length > 1 && reachOf(found.at(-2))[1] + APART > reachOf(found.at(-1))[0]) mergeLast(found);
  }
  return found;
}

function drawMarks(lane, top, width) {
  const y = view.lanes === "key" ? top + 15 : top + 12;
  for (const cluster of clustersOf(lane, width)) {
    const reach = reachOf(cluster);
    const [first] = cluster.items;
    if (cluster.items.length > 1) drawCluster(cluster, reach, y);
    else drawShape(SHAPES[tagOf(first)], cluster.x, y, palette[GRAVE.has(tagOf(first)) ? "--bad" : "--mark"]);
    hits.push({ left: reach[0], right: reach[1], top: y - 10, bottom: y + 10, items: cluster.items });
    if (cluster.items.includes(chosen())) drawRing(reach, y);
  }
}

function drawRing([left, right], y) {
  pen.beginPath();
  pen.roundRect(left - 4, y - 12, right - left + 8, 24, 12);
  [pen.strokeStyle, pen.lineWidth] = [palette["--accent"], 2.5];
  pen.stroke();
}

function drawLane(lane, number, width) {
  const top = laneTop(number);
  pen.fillStyle = palette["--faint"];
  pen.fillRect(0, top + LANE - 1, width, 1);
  if (view.lanes === "key") drawBands(lane, top, width);
  drawAttempts(lane, top, width);
  drawMarks(lane, top, width);
  pen.fillStyle = palette["--card"];
  pen.fillRect(0, top, GUTTER - 8, LANE - 1);
  text(lane.name, 12, top + 20, GUTTER - 28, palette["--text"], 13);
}

function drawCursor(height) {
  const x = chosen() < 0 ? -1 : spot(moments[chosen()]);
  if (x < GUTTER) return;
  pen.fillStyle = palette["--accent"];
  pen.fillRect(Math.round(x), AXIS, 1, height);
}

function draw() {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  hits = [];
  pen.clearRect(0, 0, width, height);
  drawAxis(width, height);
  const first = Math.max(Math.floor(element("lanes").scrollTop / LANE), 0);
  const last = Math.min(first + Math.ceil((height - AXIS) / LANE) + 1, lanes.length);
  drawCursor(height);
  pen.save();
  pen.beginPath();
  pen.rect(0, AXIS, width, height);
  pen.clip();
  for (let number = first; number < last; number += 1) drawLane(lanes[number], number, width);
  pen.restore();
  canvas.dataset.drawn = String(Number(canvas.dataset.drawn ?? 0) + 1);
}
