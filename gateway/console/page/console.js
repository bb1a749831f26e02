// The page: asks the server once a second while it is in view, and has the parts draw what it says.

import { ask, isRefused, onToken, sayWhy } from "./access.js";
import { Charts } from "./charts.js";
import { byId, element, offer, setClass, setText } from "./elements.js";
import { drawModels, drawWorkers, duration } from "./models.js";
import { RequestForm } from "./request.js";

const INTERVAL_MS = 1000;
const MAX_SAMPLES = 300;
const EVERYTHING = "";

const charts = new Charts(byId("charts"), MAX_SAMPLES);
const form = new RequestForm();
let startedUs = 0;
let timer = 0;

function drawHeader({ server, trouble, now_us: nowUs, models }) {
  const isLoading = models.some((model) => model.versions.some((version) => ["START", "LOADING"].includes(version.history.at(-1).state)));
  setText(byId("readiness"), trouble ? "not ready" : isLoading ? "loading" : "ready");
  setClass(byId("readiness"), `badge ${trouble ? "bad" : isLoading ? "busy" : "good"}`);
  setText(byId("trouble"), trouble);
  setClass(byId("trouble"), "notice bad");
  byId("trouble").hidden = !trouble;
  const facts = [
    `version ${server.version}`,
    server.grpc_port === null ? "no gRPC port" : `gRPC :${server.grpc_port} (${server.grpc_edge})`,
    server.rest_port === null ? "no REST port" : `REST :${server.rest_port}`,
    `up ${duration((nowUs - server.started_us) / 1e6)}`,
  ];
  byId("facts").replaceChildren(...facts.map((text) => element("span", { text })));
}

function drawCharts() {
  const select = byId("traffic-of");
  const names = charts.names().sort();
  offer(select, names.map((name) => [name, name === EVERYTHING ? "all requests" : name]));
  select.hidden = names.length < 2;
  charts.draw(select.value || EVERYTHING);
}

function draw(overview) {
  if (overview.server.started_us !== startedUs) {
    startedUs = overview.server.started_us;
    charts.clear();
  }
  charts.add(overview.traffic.samples);
  drawHeader(overview);
  drawCharts();
  drawModels(byId("models"), overview.models, overview.now_us);
  drawWorkers(byId("workers"), overview.workers);
  form.update(overview.models, overview.server);
}

function drawAbsence(error) {
  setText(byId("readiness"), "no answer");
  setClass(byId("readiness"), "badge bad");
  setText(byId("trouble"), `The server does not answer (${error.message}); what is shown is what it said last.`);
  setClass(byId("trouble"), "notice bad");
  byId("trouble").hidden = false;
}

// Not asked again before there is another token.
function drawLocked(why) {
  setText(byId("readiness"), "locked");
  setClass(byId("readiness"), "badge bad");
  sayWhy(why);
}

async function look() {
  clearTimeout(timer);
  try {
    const response = await ask(`/overview?after=${charts.last}`, { signal: AbortSignal.timeout(10000) });
    if (isRefused(response)) {
      drawLocked((await response.json()).error);
      return;
    }
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
    const overview = await response.json();
    if (startedUs !== 0 && overview.server.started_us !== startedUs && charts.last > 0) {
      // Another server: its samples have other numbers.
      charts.clear();
      startedUs = 0;
      return look();
    }
    draw(overview);
  } catch (error) {
    drawAbsence(error);
  }
  if (!document.hidden) timer = setTimeout(look, INTERVAL_MS);
}

function chosenTheme() {
  try {
    return localStorage.getItem("theme");
  } catch {
    return null;
  }
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("theme", theme);
  } catch {
    // A browser that keeps nothing: the choice lasts as long as the page.
  }
}

if (chosenTheme()) document.documentElement.dataset.theme = chosenTheme();
byId("theme").addEventListener("click", () => {
  const shown = document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  setTheme(shown === "dark" ? "light" : "dark");
});
onToken(look);
byId("traffic-of").addEventListener("change", drawCharts);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer);
  else look();
});
look();
