// The form: a signature's inputs as fields with examples, their request through REST's API, and the answer.

import { ask, hasToken } from "./access.js";
import { byId, element, offer, setClass, setText } from "./elements.js";
import { curl, python } from "./snippets.js";

const LATEST = "";
const MAX_FILLED = 4096;
const EXAMPLES_METHODS = { "tensorflow/serving/classify": "classify", "tensorflow/serving/regress": "regress" };

export class RequestForm {
  constructor() {
    this.models = [];
    this.server = null;
    this.signatures = {};
    this.signaturesOf = "";
    this.model = byId("request-model");
    this.version = byId("request-version");
    this.signature = byId("request-signature");
    this.inputs = byId("request-inputs");
    this.model.addEventListener("change", () => this.drawChoices());
    this.version.addEventListener("change", () => this.fetchSignatures());
    this.signature.addEventListener("change", () => this.drawInputs());
    this.inputs.addEventListener("input", () => this.drawBody());
    byId("request").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    byId("copy-curl").addEventListener("click", () => this.copy(curl));
    byId("copy-python").addEventListener("click", () => this.copy(python));
  }

  // Takes in what is served now; what somebody has typed stays while its model is there.
  update(models, server) {
    this.server = server;
    this.models = models
      .map((model) => ({ name: model.name, versions: model.versions.filter((each) => each.history.at(-1).state === "AVAILABLE") }))
      .filter((model) => model.versions.length > 0);
    this.drawChoices();
  }

  drawChoices() {
    offer(this.model, this.models.map((model) => [model.name, model.name]));
    const model = this.models.find((each) => each.name === this.model.value);
    offer(this.version, model ? [[LATEST, "latest"], ...model.versions.map((each) => [each.version, each.version])] : []);
    byId("send").disabled = model === undefined;
    if (model === undefined) {
      this.signaturesOf = "";
      this.signatures = {};
      offer(this.signature, []);
      this.inputs.replaceChildren(element("p", { className: "faint", text: "No model is served now." }));
      return;
    }
    // Of the latest, which may change: what matters is the version that it is now.
    const of = `${model.name}/${this.version.value || model.versions[0].version}`;
    if (of !== this.signaturesOf) this.fetchSignatures(of, model);
  }

  path() {
    const version = this.version.value === LATEST ? "" : `/versions/${this.version.value}`;
    return `/v1/models/${encodeURIComponent(this.model.value)}${version}`;
  }

  async fetchSignatures() {
    const model = this.models.find((each) => each.name === this.model.value);
    if (model === undefined) return;
    const of = `${model.name}/${this.version.value || model.versions[0].version}`;
    this.signaturesOf = of;
    let found = {};
    try {
      const response = await ask(`${this.path()}/metadata`);
      if (!response.ok) throw new Error(response.statusText);
      found = (await response.json()).metadata.signature_def.signature_def;
    } catch {
      // The next look at the server tries again.
      this.signaturesOf = "";
    }
    if (of !== `${this.model.value}/${this.version.value || model.versions[0].version}`) return;
    const isSame = JSON.stringify(found) === JSON.stringify(this.signatures);
    this.signatures = found;
    const names = Object.keys(found).sort((one, other) => (other === "serving_default") - (one === "serving_default") || (one < other ? -1 : 1));
    const isOther = offer(this.signature, names.map((name) => [name, name]));
    if (!isSame || isOther) this.drawInputs();
  }

  get method() {
    return EXAMPLES_METHODS[this.signatures[this.signature.value]?.method_name] ?? "predict";
  }

  drawInputs() {
    const signature = this.signatures[this.signature.value];
    if (signature === undefined) {
      this.inputs.replaceChildren(element("p", { className: "faint", text: "This version has no signature that can be asked." }));
      return;
    }
    const fields = this.method === "predict"
      ? Object.entries(signature.inputs).sort(([one], [other]) => (one < other ? -1 : 1)).map(([name, info]) => [name, describe(info), example(info)])
      : [["examples", "features of each example, by name", [{ feature: 1.0 }]]];
    this.inputs.replaceChildren(...fields.map(([name, description, value]) => {
      const text = element("textarea", { spellcheck: "false", autocomplete: "off", "data-input": name });
      text.value = JSON.stringify(value);
      return element("label", {}, element("span", { className: "of" }, element("b", { text: name }), element("span", { text: description })), text);
    }));
    this.drawBody();
  }

  // The body, or null where a field is no JSON.
  body() {
    const values = {};
    let isRight = true;
    for (const text of this.inputs.querySelectorAll("textarea")) {
      try {
        // Checked, but sent as it was typed: JavaScript would round large integers.
        JSON.parse(text.value);
        text.classList.remove("wrong");
        values[text.dataset.input] = text.value.trim();
      } catch {
        text.classList.add("wrong");
        isRight = false;
      }
    }
    if (!isRight) return null;
    const name = JSON.stringify(this.signature.value);
    if (this.method !== "predict") return `{"signature_name": ${name}, "examples": ${values.examples}}`;
    const inputs = Object.entries(values).map(([input, value]) => `${JSON.stringify(input)}: ${value}`).join(", ");
    return `{"signature_name": ${name}, "inputs": {${inputs}}}`;
  }

  drawBody() {
    const body = this.body();
    setText(byId("request-body"), `POST ${this.path()}:${this.method}\n\n${body ?? "A field above is not JSON."}`);
  }

  async send() {
    const body = this.body();
    if (body === null) {
      this.answer("not sent", "bad", "", "A field above is not JSON: numbers, \"strings\", true, false, and lists of them.");
      return;
    }
    byId("send").disabled = true;
    const began = performance.now();
    try {
      const response = await ask(`${this.path()}:${this.method}`, {
        method: "POST", headers: { "Content-Type": "application/json" }, body,
      });
      const text = await response.text();
      const time = `${(performance.now() - began).toFixed(1)} ms, as this browser saw it`;
      this.answer(`${response.status} ${response.statusText}`, response.ok ? "good" : "bad", time, response.ok ? text : messageOf(text));
    } catch (error) {
      this.answer("no answer", "bad", "", `The server could not be reached: ${error.message}`);
    } finally {
      byId("send").disabled = false;
    }
  }

  answer(status, look, time, text) {
    byId("answer").hidden = false;
    setText(byId("answer-status"), status);
    setClass(byId("answer-status"), `badge ${look}`);
    setText(byId("answer-time"), time);
    setText(byId("answer-body"), text);
  }

  async copy(write) {
    const body = this.body();
    if (body === null) return;
    // REST's own port where there is one: the console's is for people.
    const port = this.server?.rest_port;
    const base = port ? `http://${location.hostname}:${port}` : location.origin;
    try {
      await navigator.clipboard.writeText(write(`${base}${this.path()}:${this.method}`, body, hasToken()));
      setText(byId("copied"), "Copied");
    } catch {
      setText(byId("copied"), "The browser does not let this page copy; it must be on localhost or HTTPS.");
    }
    setTimeout(() => setText(byId("copied"), ""), 4000);
  }
}

function messageOf(text) {
  try {
    return JSON.parse(text).error ?? text;
  } catch {
    return text;
  }
}

function dimensions(info) {
  return info.tensor_shape.unknown_rank ? null : info.tensor_shape.dim.map((dim) => Number(dim.size));
}

function describe(info) {
  const sizes = dimensions(info);
  const shape = sizes === null ? "any shape" : sizes.length === 0 ? "one value" : sizes.map((size) => (size < 0 ? "?" : size)).join(" × ");
  return `${info.dtype.replace("DT_", "").toLowerCase()}, ${shape}`;
}

function example(info) {
  const sizes = (dimensions(info) ?? []).map((size) => (size < 0 ? 1 : size));
  if (sizes.reduce((product, size) => product * size, 1) > MAX_FILLED) return [];
  const value = info.dtype === "DT_STRING" ? "text" : info.dtype === "DT_BOOL" ? false : info.dtype.match(/FLOAT|HALF|DOUBLE/) ? 1.0 : 1;
  return sizes.reduceRight((inner, size) => Array.from({ length: size }, () => inner), value);
}
