// The list of events, of which only the rows in sight exist; all of them while printing. And the verdicts.

const ROW = 26;
const rows = element("rows");
const sheet = element("sheet");

function eventRow(place) {
  const index = view.shown[place];
  const row = make("div", undefined, place === view.place ? "row picked" : "row");
  row.id = `event-${index}`;
  row.setAttribute("role", "option");
  row.setAttribute("aria-selected", String(place === view.place));
  row.setAttribute("aria-setsize", String(view.shown.length));
  row.setAttribute("aria-posinset", String(place + 1));
  row.style.top = `${place * ROW}px`;
  row.dataset.place = String(place);
  const phase = make("span");
  phase.append(make("span", phaseName(events.phase[index]), `chip ${events.phase[index] || "none"}`));
  row.append(make("span", calendar(events.at[index], 23), "time"), make("span", keyOf(index)), make("span", events.text[index]),
    make("span", actorOf(index)), phase);
  row.children[2].title = events.text[index];
  return row;
}

function drawRows(everything = false) {
  const first = everything ? 0 : Math.max(Math.floor(rows.scrollTop / ROW) - 4, 0);
  const last = everything ? view.shown.length : Math.min(first + Math.ceil(rows.clientHeight / ROW) + 8, view.shown.length);
  const found = [];
  for (let place = first; place < last; place += 1) found.push(eventRow(place));
  sheet.style.height = `${view.shown.length * ROW}px`;
  sheet.replaceChildren(...found);
  rows.setAttribute("aria-activedescendant", view.place >= first && view.place < last ? `event-${chosen()}` : "");
}

function scrollToChosen() {
  const top = view.place * ROW;
  if (top < rows.scrollTop) rows.scrollTop = top;
  if (top + ROW > rows.scrollTop + rows.clientHeight) rows.scrollTop = top + ROW - rows.clientHeight;
  const number = lanes.findIndex((lane) => lane.id === (view.lanes === "key" ? events.key : events.actor)[chosen()]);
  const box = element("lanes");
  if (number < 0) return;
  if (number * LANE < box.scrollTop) box.scrollTop = number * LANE;
  if (AXIS + (number + 1) * LANE > box.scrollTop + box.clientHeight) box.scrollTop = AXIS + (number + 1) * LANE - box.clientHeight;
}

function verdictItem(verdict) {
  const item = make("li");
  const phase = make("span");
  phase.append(make("span", phaseName(verdict.phase), `chip ${verdict.phase || "none"}`));
  const proof = verdict.proof.at(-1);
  const words = proof === undefined ? make("span", verdict.text) : jump(verdict.text, proof);
  item.append(phase, make("span", model.keys[verdict.key], "key"), words, make("code", verdict.code, "code"));
  return item;
}

function showVerdicts() {
  const gravity = { reauth_required: 0, refreshing: 1, expiring: 2, valid: 3 };
  const sorted = [...model.verdicts].sort((one, other) => (gravity[one.phase] ?? 4) - (gravity[other.phase] ?? 4));
  element("verdicts").replaceChildren(...sorted.map(verdictItem));
}
