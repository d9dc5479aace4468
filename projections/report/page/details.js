// The details of the chosen event: the snapshot after it, what it changed, and everything else it carries.

const FIELDS = [
  ["phase", "Phase", (index) => phaseName(events.phase[index]), (index) => events.phase[index]],
  ["generation", "Generation", (index) => String(events.generation[index]), (index) => events.generation[index]],
  ["expires_at", "Expires", expiryText, (index) => (events.credential[index] ? events.expires_at[index] ?? "never" : "")],
  ["credential_present", "Credential", (index) => (events.credential[index] ? "present" : "absent"), (index) => events.credential[index]],
  ["published_at", "Published", (index) => publicationText(index), (index) => events.published_at[index] ?? ""],
];

const publicationText = (index) => (events.published_at[index] === null ? "none" : calendar(events.published_at[index], 23));

function snapshotRow([name, label, words, raw], index) {
  const row = make("tr");
  const cell = make("td");
  const before = previous[index];
  const follows = before >= 0 && events.version[before] === events.version[index] - 1;
  const same = !follows || raw(before) === raw(index);
  if (!same) {
    row.className = "changed";
    cell.append(make("span", words(before), words(before).length > 10 ? "was wide" : "was"));
  }
  const now = name === "phase" ? make("span", words(index), `chip ${events.phase[index] || "none"}`) : make("span", words(index));
  now.dataset.field = name;
  now.dataset.value = String(raw(index));
  cell.append(now);
  row.append(make("th", label), cell);
  return row;
}

function snapshotTable(index) {
  const table = make("table");
  table.id = "snapshot";
  table.append(...FIELDS.map((field) => snapshotRow(field, index)));
  return table;
}

function jump(label, index) {
  const button = make("button", label, "link");
  button.type = "button";
  button.addEventListener("click", () => choose(index));
  return button;
}

function attemptBlock(attempt) {
  const lasted = attempt.duration_ms === null ? "" : ` after ${durationText(attempt.duration_ms)}`;
  const ended = attempt.ended === undefined ? "" : `, ended ${attempt.ended.replaceAll("_", " ")}`;
  const paragraph = make("div", `${attempt.outcome}${ended}${lasted} · `);
  paragraph.append(jump("start", attempt.start));
  if (attempt.end !== null) paragraph.append(" · ", jump("end", attempt.end));
  return paragraph;
}

function fieldText(value, name = "") {
  if (name === "refreshed_at") return `${calendar(Number(value) * 1000, 19)} UTC`;
  if (name === "duration_ms") return durationText(Number(value));
  if (value === null || typeof value !== "object") return String(value);
  return Object.entries(value).map(([name, item]) => `${name.replaceAll("_", " ")}: ${fieldText(item, name)}`).join("\n");
}

function fieldList(index) {
  const list = make("dl");
  const fields = { ...events.more[index], event: events.id[index], position: events.position[index] };
  for (const [name, value] of Object.entries(fields)) {
    list.append(make("dt", name.replace(/_ms$/, "").replaceAll("_", " ")), make("dd", fieldText(value, name)));
  }
  return list;
}

function neighbours(index) {
  const paragraph = make("div");
  if (previous[index] >= 0) paragraph.append(jump("‹ before on this lease", previous[index]));
  if (previous[index] >= 0 && following[index] >= 0) paragraph.append(" · ");
  if (following[index] >= 0) paragraph.append(jump("after ›", following[index]));
  return paragraph;
}

function showDetails() {
  const index = chosen();
  const box = element("details");
  if (index < 0) {
    box.replaceChildren(make("p", "No event matches.", "empty"));
    return;
  }
  const late = events.behind[index];
  const parts = [
    make("h2", events.text[index]),
    make("div", `${calendar(events.at[index], 23)} UTC`, "time"),
    make("div", `${keyOf(index)} · event ${events.version[index]}`),
    make("div", actorOf(index), "sub"),
  ];
  if (late) parts.push(make("p", `The clock went back: dated ${durationText(late)} before an earlier event of this lease.`, "warn"));
  parts.push(make("h3", "Lease after this event"), snapshotTable(index));
  if (attemptAt.has(index)) parts.push(make("h3", "Refresh attempt"), attemptBlock(attemptAt.get(index)));
  parts.push(make("h3", "Event"), fieldList(index), make("h3", "Go to"), neighbours(index));
  box.replaceChildren(...parts);
  box.dataset.index = String(index);
  box.scrollTop = 0;
}
