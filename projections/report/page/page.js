// The page: what people do, and what follows from it.

const slider = element("slider");
const tip = element("tip");
const darkness = window.matchMedia("(prefers-color-scheme: dark)");
let pending = false;
let grip = null;

function repaint() {
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => { pending = false; draw(); });
}

function filterNow() {
  const words = element("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  applyFilter({ key: element("filter-key").value, actor: element("filter-actor").value, tag: element("filter-tag").value, words });
}

function clearFilters() {
  for (const id of ["search", "filter-key", "filter-actor", "filter-tag"]) element(id).value = "";
  filterNow();
}

function showFilter() {
  element("count").textContent = view.shown.length === total ? `${total.toLocaleString("en")} events`
    : `${view.shown.length.toLocaleString("en")} of ${total.toLocaleString("en")} events`;
  slider.max = String(Math.max(view.shown.length - 1, 0));
  slider.disabled = !view.shown.length;
  arrangeLanes();
  fitCanvas();
}

function showChoice() {
  slider.value = String(Math.max(view.place, 0));
  const index = chosen();
  const words = index < 0 ? "no event" : `${calendar(events.at[index], 19)}, ${keyOf(index)}, ${events.text[index]}`;
  slider.setAttribute("aria-valuetext", words);
  element("said").textContent = index < 0 ? words : `${words}; then ${phaseName(events.phase[index])}`;
  element("where").textContent = `${view.place + 1} of ${view.shown.length}`;
  scrollToChosen();
  showDetails();
  drawRows();
}

listeners.push((what) => {
  if (what === "filter") showFilter();
  if (what === "choice") showChoice();
  repaint();
});

function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  element("theme").textContent = dark ? "Light" : "Dark";
  readPalette();
  repaint();
}

function laneAt(event) {
  const box = canvas.getBoundingClientRect();
  const number = Math.floor((event.clientY - box.top - AXIS + element("lanes").scrollTop) / LANE);
  return event.clientX - box.left < GUTTER - 8 && event.clientY - box.top > AXIS ? lanes[number] : undefined;
}

function hitAt(event) {
  const box = canvas.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  if (x < GUTTER - 8 || y < AXIS) return null;
  return hits.findLast((hit) => x >= hit.left - 2 && x <= hit.right + 2 && y >= hit.top && y <= hit.bottom) ?? null;
}

function chooseHit(hit) {
  const place = hit.items.indexOf(chosen());
  choose(hit.items[(place + 1) % hit.items.length]);
}

function tipText(event, hit) {
  if (!hit) return laneAt(event)?.name ?? "";
  const [first] = hit.items;
  const more = hit.items.length > 1 ? `\nand ${hit.items.length - 1} more: click steps through, double click zooms in` : "";
  return `${calendar(events.at[first], 23)}\n${events.text[first]}${more}`;
}

function showTip(event, hit) {
  const words = tipText(event, hit);
  tip.hidden = !words;
  canvas.classList.toggle("over", Boolean(hit));
  if (!words) return;
  tip.textContent = words;
  const box = element("lanes").parentElement.getBoundingClientRect();
  tip.style.left = `${Math.min(event.clientX - box.left + 12, box.width - tip.offsetWidth - 8)}px`;
  tip.style.top = `${event.clientY - box.top + 14}px`;
}

function dragged(event) {
  if (!grip) { showTip(event, hitAt(event)); return; }
  const share = (grip.x - event.clientX) / (canvas.clientWidth - GUTTER);
  if (Math.abs(event.clientX - grip.began) > 4) grip.moved = true;
  grip.x = event.clientX;
  if (grip.moved) { canvas.classList.add("dragging"); pan(share * (view.to - view.from)); }
}

function released(event) {
  const hit = grip && !grip.moved ? hitAt(event) : null;
  grip = null;
  canvas.classList.remove("dragging");
  if (hit) chooseHit(hit);
}

function wheeled(event) {
  if (!event.ctrlKey && !event.shiftKey) return;
  event.preventDefault();
  const turn = event.deltaY || event.deltaX;
  zoom(Math.exp(Math.max(Math.min(turn, 200), -200) / 300), momentAt(event.clientX - canvas.getBoundingClientRect().left));
}

function changeLane(by) {
  const column = view.lanes === "key" ? events.key : events.actor;
  const lane = lanes[lanes.findIndex((found) => found.id === column[chosen()]) + by];
  if (!lane) return;
  const at = moments[chosen()];
  choose(lane.items.reduce((best, index) => (Math.abs(moments[index] - at) < Math.abs(moments[best] - at) ? index : best)));
}

const STEPS = { ArrowLeft: () => choosePlace(view.place - 1), ArrowRight: () => choosePlace(view.place + 1),
  Home: () => choosePlace(0), End: () => choosePlace(view.shown.length - 1) };
const LANE_KEYS = { ...STEPS, ArrowUp: () => changeLane(-1), ArrowDown: () => changeLane(1) };
const ROW_KEYS = { ...STEPS, ArrowUp: STEPS.ArrowLeft, ArrowDown: STEPS.ArrowRight,
  PageUp: () => choosePlace(view.place - 10), PageDown: () => choosePlace(view.place + 10) };
const PAGE_KEYS = { ...STEPS, "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), 0: () => setRange(...fullRange()),
  "/": () => element("search").focus() };

function pressed(event) {
  if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("input, select, .details, .verdicts")) return;
  const keys = event.target === canvas ? { ...PAGE_KEYS, ...LANE_KEYS } : event.target === rows ? { ...PAGE_KEYS, ...ROW_KEYS } : PAGE_KEYS;
  if (!Object.hasOwn(keys, event.key)) return;
  event.preventDefault();
  keys[event.key]();
}

function fill(id, texts, words = (text) => text) {
  const options = texts.map((text, number) => {
    const option = make("option", words(text));
    option.value = String(number);
    return option;
  });
  options.sort((one, other) => (one.textContent < other.textContent ? -1 : 1));
  element(id).append(...options);
}

function resized() {
  fitCanvas();
  drawRows();
  repaint();
}

function printing(begins) {
  if (begins) {
    setTheme(false);
    element("lanes").scrollTop = 0;
    fitCanvas(AXIS + Math.min(lanes.length, 200) * LANE);
    drawRows(true);
    draw();
  } else {
    setTheme(darkness.matches);
    resized();
  }
}

function listen() {
  for (const id of ["filter-key", "filter-actor", "filter-tag"]) element(id).addEventListener("change", filterNow);
  element("search").addEventListener("input", filterNow);
  element("clear").addEventListener("click", (event) => { event.preventDefault(); clearFilters(); });
  document.querySelector(".tools").addEventListener("submit", (event) => event.preventDefault());
  slider.addEventListener("input", () => choosePlace(Number(slider.value)));
  element("before").addEventListener("click", STEPS.ArrowLeft);
  element("after").addEventListener("click", STEPS.ArrowRight);
  element("zoom-in").addEventListener("click", () => zoom(0.5));
  element("zoom-out").addEventListener("click", () => zoom(2));
  element("zoom-fit").addEventListener("click", () => setRange(...fullRange()));
  element("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme !== "dark"));
  darkness.addEventListener("change", () => setTheme(darkness.matches));
  document.querySelectorAll("input[name=lanes]").forEach((input) => input.addEventListener("change", () => {
    view.lanes = input.value;
    showFilter();
    scrollToChosen();
    repaint();
  }));
  document.addEventListener("keydown", pressed);
  rows.addEventListener("scroll", () => drawRows());
  rows.addEventListener("click", (event) => {
    const row = event.target.closest("[data-place]");
    if (row) choosePlace(Number(row.dataset.place));
  });
  window.addEventListener("resize", resized);
  window.addEventListener("beforeprint", () => printing(true));
  window.addEventListener("afterprint", () => printing(false));
  listenToCanvas();
}

function listenToCanvas() {
  element("lanes").addEventListener("scroll", repaint);
  canvas.addEventListener("pointerdown", (event) => {
    grip = { x: event.clientX, began: event.clientX, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", dragged);
  canvas.addEventListener("pointerup", released);
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
  canvas.addEventListener("dblclick", (event) => zoom(0.25, momentAt(event.clientX - canvas.getBoundingClientRect().left)));
  canvas.addEventListener("wheel", wheeled, { passive: false });
}

function begin() {
  fill("filter-key", model.keys);
  fill("filter-actor", model.actors);
  fill("filter-tag", model.tags, shortTag);
  element("legend").append(...["valid", "expiring", "refreshing", "reauth_required"].map((phase) => {
    const item = make("li");
    item.append(make("span", phaseName(phase), `chip ${phase}`));
    return item;
  }));
  setTheme(darkness.matches);
  listen();
  showVerdicts();
  filterNow();
  const [from, to] = extent(moments);
  element("extent").textContent = total ? `${total.toLocaleString("en")} events of ${model.keys.length.toLocaleString("en")} leases, `
    + `${calendar(from, 19)} to ${calendar(to, 19)} UTC` : "No events";
  setRange(...fullRange());
  choosePlace(view.shown.length - 1);
}

// For whoever drives the page from outside: where an event is drawn, in the coordinates of the window.
function positionOf(index) {
  draw();
  const hit = hits.find((found) => found.items.includes(index));
  const box = canvas.getBoundingClientRect();
  return hit ? { x: box.left + (hit.left + hit.right) / 2, y: box.top + (hit.top + hit.bottom) / 2, together: hit.items.length } : null;
}

begin();
window.leaseReport = Object.freeze({ positionOf });
document.documentElement.dataset.ready = "yes";
