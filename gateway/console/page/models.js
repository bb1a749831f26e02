// Models with their versions, and workers, as they are now; a version opens to show how it came there.

import { element, reconcile, setClass, setText } from "./elements.js";

const LOOKS = { AVAILABLE: "good", UP: "good", LOADING: "busy", START: "busy", STARTING: "busy", UNLOADING: "busy", DOWN: "bad" };

export function badgeClass(state, hasFailed) {
  return `badge ${hasFailed ? "bad" : LOOKS[state] ?? ""}`;
}

export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

export function bytes(count) {
  if (count === null) return "–";
  return count >= 2 ** 30 ? `${(count / 2 ** 30).toFixed(2)} GiB` : `${Math.round(count / 2 ** 20)} MiB`;
}

function latest(version) {
  return version.history[version.history.length - 1];
}

function errorText(error) {
  return error === null ? "" : `${error.code}: ${error.message}`;
}

function stateName(entry) {
  return entry.error !== null && entry.state === "END" ? "FAILED" : entry.state;
}

export function drawModels(parent, models, nowUs) {
  if (models.length === 0) {
    parent.replaceChildren(element("div", { className: "card empty", text: "No model has a version yet." }));
    return;
  }
  for (const empty of parent.querySelectorAll(".empty")) empty.remove();
  reconcile(parent, models, (model) => model.name, makeModel, (card, model) => updateModel(card, model, nowUs));
}

function makeModel(model) {
  const head = element("div", { className: "head" }, element("h3", { text: model.name }), element("span", { className: "badge" }),
    element("span", { className: "faint" }));
  return element("article", { className: "card model" }, head, element("div", { className: "versions" }));
}

function updateModel(card, model, nowUs) {
  const [, badge, count] = card.querySelector(".head").children;
  const states = model.versions.map((version) => latest(version));
  const serving = states.filter((entry) => entry.state === "AVAILABLE").length;
  const failed = states.some((entry) => entry.error !== null);
  setText(badge, serving ? "serving" : failed ? "not served" : "not ready");
  setClass(badge, `badge ${serving ? "good" : failed ? "bad" : "busy"}`);
  setText(count, model.versions.length === 1 ? "1 version" : `${model.versions.length} versions`);
  const labels = Object.entries(model.labels);
  const versions = model.versions.map((version) => ({
    ...version,
    labels: labels.filter(([, number]) => String(number) === version.version).map(([label]) => label),
  }));
  reconcile(card.querySelector(".versions"), versions, (version) => version.version, makeVersion,
    (row, version) => updateVersion(row, version, nowUs));
}

function makeVersion(version) {
  const summary = element("summary", {}, element("b", { className: "number", text: version.version }), element("span"),
    element("span", { className: "labels" }), element("span", { className: "since faint number" }),
    element("span", { className: "error" }));
  return element("details", { className: "version" }, summary, element("ol", { className: "history" }));
}

function updateVersion(row, version, nowUs) {
  const [, badge, labels, since, error] = row.querySelector("summary").children;
  const entry = latest(version);
  setText(badge, stateName(entry));
  setClass(badge, badgeClass(entry.state, entry.error !== null));
  setText(since, `for ${duration((nowUs - entry.time_us) / 1e6)}`);
  reconcile(labels, version.labels, (label) => label, (label) => element("span", { className: "badge plain", text: label }), () => {});
  setText(error, errorText(entry.error));
  error.hidden = entry.error === null || row.open;
  reconcile(row.querySelector(".history"), [...version.history].reverse(), (each) => `${each.state} ${each.time_us}`, makeEntry, () => {});
}

function makeEntry(entry) {
  const time = new Date(entry.time_us / 1000);
  const made = element("li", {},
    element("span", {}, element("span", { className: badgeClass(entry.state, entry.error !== null), text: stateName(entry) })),
    element("span", { className: "number", text: time.toLocaleTimeString() }),
    element("span", { className: "faint", text: time.toLocaleDateString() }));
  if (entry.error !== null) made.append(element("span", { className: "error", text: errorText(entry.error) }));
  return made;
}

export function drawWorkers(parent, workers) {
  reconcile(parent, workers, (worker) => worker.name,
    (worker) => element("tr", {}, element("td", { text: worker.name }), element("td", {}, element("span")), element("td"),
      element("td"), element("td"), element("td", { className: "words" })),
    (row, worker) => {
      const [, state, pid, starts, memory, end] = row.children;
      setText(state.firstElementChild, worker.state);
      setClass(state.firstElementChild, badgeClass(worker.state, false));
      setText(pid, worker.pid === null ? "–" : String(worker.pid));
      setText(starts, String(worker.num_starts));
      setText(memory, bytes(worker.rss_bytes));
      setText(end, worker.last_end || "–");
    });
}
