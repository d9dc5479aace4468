// What is being looked at: which events, which of them is chosen, which stretch of time, which lanes.

const view = { lanes: "key", from: 0, to: 1, shown: [], place: -1 };
const listeners = [];
let haystacks = null;

const changed = (what) => listeners.forEach((listener) => listener(what));
const chosen = () => (view.place < 0 ? -1 : view.shown[view.place]);

const extent = (times) => times.reduce(([least, most], at) => [Math.min(least, at), Math.max(most, at)], [Infinity, -Infinity]);

function fullRange() {
  const [from, to] = extent(view.shown.length ? view.shown.map((index) => moments[index]) : moments);
  if (from > to) return [0, 1000];
  const margin = Math.max((to - from) * 0.03, 500);
  return [from - margin, to + margin];
}

function setRange(from, to) {
  const span = Math.max(to - from, 20);
  const half = (from + to) / 2;
  [view.from, view.to] = [half - span / 2, half + span / 2];
  changed("range");
}

function middle() {
  const at = chosen() < 0 ? NaN : moments[chosen()];
  return at >= view.from && at <= view.to ? at : (view.from + view.to) / 2;
}

function zoom(factor, around = middle()) {
  const [least, most] = fullRange();
  const span = Math.min((view.to - view.from) * factor, (most - least) * 1.5);
  const share = (around - view.from) / (view.to - view.from);
  setRange(around - span * share, around + span * (1 - share));
}

function pan(ms) {
  const [least, most] = fullRange();
  const span = view.to - view.from;
  const from = Math.min(Math.max(view.from + ms, least - span * 0.9), most - span * 0.1);
  setRange(from, from + span);
}

function bringIntoView(index) {
  const at = moments[index];
  const span = view.to - view.from;
  if (at >= view.from + span * 0.02 && at <= view.to - span * 0.02) return;
  [view.from, view.to] = [at - span / 2, at + span / 2];
  changed("range");
}

function choosePlace(place) {
  if (!view.shown.length) return;
  view.place = Math.min(Math.max(place, 0), view.shown.length - 1);
  bringIntoView(chosen());
  changed("choice");
}

function choose(index) {
  const place = view.shown.indexOf(index);
  if (place < 0) {
    clearFilters();
    choosePlace(view.shown.indexOf(index));
  } else {
    choosePlace(place);
  }
}

function matches(index, filter) {
  return (filter.key === "" || events.key[index] === Number(filter.key))
    && (filter.actor === "" || events.actor[index] === Number(filter.actor))
    && (filter.tag === "" || events.tag[index] === Number(filter.tag))
    && filter.words.every((word) => haystacks[index].includes(word));
}

function applyFilter(filter) {
  if (filter.words.length && !haystacks) haystacks = events.id.map((_, index) => haystack(index));
  const before = chosen();
  view.shown = [];
  for (let index = 0; index < total; index += 1) {
    if (matches(index, filter)) view.shown.push(index);
  }
  const place = view.shown.indexOf(before);
  view.place = view.shown.length ? (place < 0 ? view.shown.length - 1 : place) : -1;
  changed("filter");
  changed("choice");
}
