// What the page shows, as the ledger computed it, and how times and numbers are written.

const model = JSON.parse(document.getElementById("data").textContent);
const events = model.events;
const total = events.id.length;
const moments = events.at.map(Number);
const UNITS = [[86400000, "d", 3600000, "h"], [3600000, "h", 60000, "min"], [60000, "min", 1000, "s"]];

const element = (id) => document.getElementById(id);
const shortTag = (tag) => tag.replace(/^lease\./, "").replaceAll("_", " ");
const phaseName = (phase) => (phase || "no lease").replaceAll("_", " ");
const keyOf = (index) => model.keys[events.key[index]];
const actorOf = (index) => model.actors[events.actor[index]];
const tagOf = (index) => model.tags[events.tag[index]];

function make(kind, text, className) {
  const node = document.createElement(kind);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

function calendar(ms, digits) {
  const date = new Date(Number(ms));
  if (Number.isNaN(date.getTime())) return `${ms} ms`;
  return date.toISOString().replace("T", " ").replace("Z", "").slice(0, digits);
}

function expiryText(index) {
  if (!events.credential[index]) return "none";
  const seconds = events.expires_at[index];
  if (seconds === null) return "never";
  if (seconds === "unknown") return "unknown";
  const date = new Date(Number(seconds) * 1000);
  return Number.isNaN(date.getTime()) ? `${seconds} s` : calendar(date.getTime(), 19);
}

function durationText(ms) {
  for (const [size, unit, part, partUnit] of UNITS) {
    const rest = Math.floor((ms % size) / part);
    if (ms >= size) return `${Math.floor(ms / size)} ${unit}${rest ? ` ${rest} ${partUnit}` : ""}`;
  }
  return ms < 1000 ? `${ms} ms` : `${Number((ms / 1000).toPrecision(3))} s`;
}

function grouped(column) {
  const groups = new Map();
  for (let index = 0; index < total; index += 1) {
    const group = groups.get(column[index]);
    if (group) group.push(index);
    else groups.set(column[index], [index]);
  }
  return groups;
}

const byKey = grouped(events.key);
const previous = new Array(total).fill(-1);
const following = new Array(total).fill(-1);
for (const indexes of byKey.values()) {
  indexes.forEach((index, place) => {
    if (place) [previous[index], following[indexes[place - 1]]] = [indexes[place - 1], index];
  });
}

const attemptAt = new Map();
for (const attempt of model.attempts) {
  attemptAt.set(attempt.start, attempt);
  if (attempt.end !== null) attemptAt.set(attempt.end, attempt);
}

function haystack(index) {
  const more = Object.values(events.more[index]).map((value) => JSON.stringify(value));
  return [keyOf(index), actorOf(index), tagOf(index), events.text[index], events.id[index], events.phase[index], ...more]
    .join("\n").toLowerCase();
}
