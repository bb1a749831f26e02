// Charts of the last minutes: one line or two, the newest sample at the right, values under the pointer.

import { element, setText } from "./elements.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HEIGHT = 80;
const WINDOWS = [60, 120, 300];

const CHARTS = [
  { name: "Requests", unit: "/s", digits: 1, lines: [["succeeded", "succeeded_per_s", ""], ["failed", "failed_per_s", "kbad"]] },
  { name: "In flight", unit: "", digits: 0, lines: [["", "num_outstanding", ""]] },
  { name: "Latency", unit: "ms", digits: 2, lines: [["median", "median_ms", ""], ["99%", "p99_ms", "k1"]] },
  { name: "Batch size", unit: "", digits: 1, lines: [["", "mean_batch", ""]] },
];

function svg(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

export function shortNumber(value, digits) {
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)}M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(1)}k`;
  if (value >= 100 || value === 0) return value.toFixed(0);
  return value.toFixed(digits);
}

// The next of 1, 2, 5, 10, … at or above.
function ceiling(value) {
  if (value <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((each) => each * power).find((each) => each >= value);
}

class Chart {
  constructor(spec, maxSamples) {
    this.spec = spec;
    this.maxSamples = maxSamples;
    this.numShown = maxSamples;
    this.samples = [];
    this.at = null;
    this.value = element("span", { className: "value" });
    this.keys = element("div", { className: "keys" });
    for (const [text, , className] of spec.lines) if (text) this.keys.append(element("span", { className, text }));
    this.top = element("span");
    this.begin = element("span");
    this.when = element("span", { text: "now" });
    this.area = svg("path", { class: "area" });
    this.lines = spec.lines.map(([, , className]) => svg("path", { class: `line ${className}` }));
    this.cross = svg("line", { class: "cross", y1: 0, y2: HEIGHT, visibility: "hidden" });
    this.drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    for (const y of [0.5, HEIGHT / 2, HEIGHT - 0.5]) this.drawing.append(svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: y, y2: y }));
    this.drawing.append(this.area, ...this.lines.reverse(), this.cross);
    this.lines.reverse();
    this.element = element(
      "div",
      { className: "card chart" },
      element("div", { className: "head" }, element("span", { className: "name", text: spec.name }), this.top),
      this.value,
      this.keys,
      this.drawing,
      element("div", { className: "axis" }, this.begin, this.when),
    );
    this.top.className = "faint number";
    this.drawing.addEventListener("pointermove", (event) => this.point(event));
    this.drawing.addEventListener("pointerleave", () => {
      this.at = null;
      this.show();
    });
  }

  get isCounted() {
    return this.samples.some((sample) => this.spec.lines.some(([, field]) => sample[field] !== null));
  }

  draw(samples) {
    this.samples = samples;
    // What has not been yet takes no more room than a minute.
    this.numShown = WINDOWS.find((each) => each >= samples.length) ?? this.maxSamples;
    setText(this.begin, `${this.numShown / 60} min ago`);
    this.element.hidden = !this.isCounted;
    const { lines } = this.spec;
    const top = ceiling(Math.max(0, ...samples.flatMap((sample) => lines.map(([, field]) => sample[field] ?? 0))));
    setText(this.top, `${shortNumber(top, 0)}${this.spec.unit && ` ${this.spec.unit}`}`);
    lines.forEach(([, field], index) => {
      const path = this.path(field, top);
      this.lines[index].setAttribute("d", path);
      if (index === 0) {
        const begin = this.x(0).toFixed(1);
        this.area.setAttribute("d", path && !path.includes("M", 1) ? `${path}L${WIDTH},${HEIGHT}L${begin},${HEIGHT}Z` : "");
      }
    });
    this.show();
  }

  x(index) {
    return WIDTH * (1 - (this.samples.length - 1 - index) / (this.numShown - 1));
  }

  path(field, top) {
    let path = "";
    let isDown = false;
    this.samples.forEach((sample, index) => {
      const value = sample[field];
      if (value === null) {
        isDown = false;
        return;
      }
      path += `${isDown ? "L" : "M"}${this.x(index).toFixed(1)},${((HEIGHT - 2) * (1 - value / top) + 1).toFixed(1)}`;
      isDown = true;
    });
    return path;
  }

  point(event) {
    const box = this.drawing.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    const index = Math.round(this.samples.length - 1 - (1 - share) * (this.numShown - 1));
    this.at = index >= 0 && index < this.samples.length ? this.samples.length - 1 - index : null;
    this.show();
  }

  // The values of the sample under the pointer, or else of the newest.
  show() {
    const { lines, unit, digits } = this.spec;
    const back = this.at ?? 0;
    const sample = this.samples[this.samples.length - 1 - back];
    const values = sample === undefined ? [] : lines.map(([, field]) => sample[field]);
    this.cross.setAttribute("visibility", this.at === null ? "hidden" : "visible");
    if (this.at !== null) {
      const x = this.x(this.samples.length - 1 - back);
      this.cross.setAttribute("x1", x);
      this.cross.setAttribute("x2", x);
    }
    setText(this.when, back === 0 ? "now" : `${back} s ago`);
    const written = values.map((value) => (value === null ? "–" : shortNumber(value, digits))).join(" / ");
    this.value.replaceChildren(written || "–", element("small", { text: unit && ` ${unit}` }));
    this.drawing.setAttribute("aria-label", `${this.spec.name}: ${written} ${unit}`);
  }
}

export class Charts {
  constructor(parent, maxSamples) {
    this.maxSamples = maxSamples;
    this.samples = new Map();
    this.last = 0;
    this.charts = CHARTS.map((spec) => new Chart(spec, maxSamples));
    parent.append(...this.charts.map((chart) => chart.element));
  }

  names() {
    return [...this.samples.keys()];
  }

  // Takes in samples that are new, by name; the rest are here already.
  add(samplesByName) {
    for (const name of this.names()) if (!(name in samplesByName)) this.samples.delete(name);
    for (const [name, added] of Object.entries(samplesByName)) {
      const all = [...(this.samples.get(name) ?? []), ...added.filter((sample) => sample.number > this.last)];
      this.samples.set(name, all.slice(-this.maxSamples));
    }
    this.last = Math.max(this.last, ...Object.values(samplesByName).flatMap((each) => each.map((sample) => sample.number)));
  }

  // A server that was started again counts from 1.
  clear() {
    this.samples.clear();
    this.last = 0;
  }

  draw(name) {
    for (const chart of this.charts) chart.draw(this.samples.get(name) ?? []);
  }
}
