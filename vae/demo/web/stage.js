/** What is always in sight: the picture, what can be done with it, where it came from, and the way it took. */

import { isAttribute } from "./app.js";
import { bars, canvas, enlarged, icon, make, paint, save, term, toPng } from "./dom.js";
import { address } from "./server.js";
import { MAX_SEED } from "./state.js";

/** @typedef {import("./app.js").App} App */
/** @typedef {import("./state.js").Control} Control */
/** @typedef {import("./state.js").Moment} Moment */

/**
 * @param {Control} control
 * @param {number} position
 * @returns {string} in words
 */
export function inWords({ values }, position) {
  if (values.length === 0) return position.toFixed(2);
  const [low, high] = [values[Math.floor(position)], values[Math.ceil(position)]];
  return low === high ? low : `between ${low} and ${high}`;
}

export class Stage {
  /** @type {string | null} the model whose examples are shown */
  #exampled = null;

  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.canvas = canvas({ "aria-label": "The picture is on its way", className: "picture" });
    this.status = make("p", { className: "status", role: "status" });
    this.element = make(
      "section",
      { className: "stage", "aria-label": "The picture" },
      this.canvas,
      this.#buttons(),
      this.status,
    );
    this.way = make("div", { className: "way" });
    this.wayNote = make("p", { className: "note" });
    this.origin = make(
      "section",
      { className: "origin", "aria-label": "Where it comes from" },
      make("h2", {}, "How it is made"),
      this.way,
      this.wayNote,
      make("h2", {}, "Start from"),
      this.#sources(),
    );
    app.addEventListener("say", ({ detail }) => {
      this.status.textContent = detail;
    });
    app.addEventListener("paint", ({ detail }) => this.#paint(detail));
    app.addEventListener("preview", () => this.#describe());
    app.state.addEventListener("change", () => this.#change());
    this.#drop();
  }

  #buttons() {
    const { app } = this;
    const tool = (/** @type {any} */ name, /** @type {string} */ text, /** @type {() => void} */ onclick) =>
      make("button", { type: "button", onclick, className: `tool ${name}` }, icon(name), make("span", {}, text));
    this.undo = tool("undo", "Undo", () => app.state.undo());
    this.redo = tool("redo", "Redo", () => app.state.redo());
    this.reset = tool("reset", "Reset", () => app.state.set(new Map()));
    return make(
      "div",
      { className: "tools" },
      tool("random", "Random", () => app.random()),
      this.undo,
      this.redo,
      this.reset,
      tool("link", "Copy link", () => this.#copy()),
      tool("save", "Save PNG", () => this.#save()),
    );
  }

  #sources() {
    this.file = make("input", { type: "file", accept: "image/*", className: "file", "aria-label": "Upload a picture" });
    this.file.onchange = () => {
      if (this.file.files[0]) this.take(this.file.files[0]);
      this.file.value = "";
    };
    this.seed = make("input", { type: "number", className: "input", min: "0", max: String(MAX_SEED), step: "1" });
    this.seed.onchange = () => this.#typeSeed();
    this.examples = make("div", { className: "examples", role: "group", "aria-label": "Examples" });
    return make(
      "div",
      { className: "sources" },
      make("label", { className: "button" }, icon("upload"), "A picture", this.file),
      make("label", { className: "seed" }, term("seed", "Seed"), this.seed),
      this.examples,
    );
  }

  /** Pictures may also be dropped onto the stage, or pasted. */
  #drop() {
    const stop = (/** @type {Event} */ event) => event.preventDefault();
    this.element.addEventListener("dragover", stop);
    this.element.addEventListener("drop", (/** @type {DragEvent} */ event) => {
      stop(event);
      const [file] = event.dataTransfer.files;
      if (file) this.take(file);
    });
    document.addEventListener("paste", (/** @type {ClipboardEvent} */ event) => {
      const [file] = event.clipboardData.files;
      if (file && !event.defaultPrevented) this.take(file);
    });
  }

  /** @param {Blob} file to begin with */
  async take(file) {
    const beginning = this.app.begin(this.app.upload(file).then((picture) => ({ picture })));
    this.app.say("Uploading the picture …");
    await beginning;
  }

  #typeSeed() {
    const seed = Number(this.seed.value);
    if (this.seed.value === "" || !this.seed.checkValidity()) {
      this.app.say(`A seed is a whole number up to ${MAX_SEED}.`);
      return;
    }
    this.app.begin({ seed }, this.app.state.present?.positions);
  }

  /**
   * Show what the first model begins with, as the server has drawn it, until the browser has drawn it.
   * @param {string} url
   */
  async await(url) {
    const image = make("img", { src: url });
    await image.decode().catch(() => {}); // what can't be had is drawn soon
    if (this.canvas.width === 1 && image.naturalWidth) paint(this.canvas, image);
  }

  /** @param {{picture: ImageData | ImageBitmap, z: Float32Array, isOwn: boolean}} painted */
  #paint({ picture, z, isOwn }) {
    this.way.classList.toggle("elsewhere", !isOwn);
    paint(this.canvas, picture);
    if (this.result) paint(this.result, picture);
    if (this.zBars) bars(this.zBars, z);
  }

  #change() {
    const { seed, model } = this.app.state.present;
    this.undo.disabled = !this.app.state.canUndo;
    this.redo.disabled = !this.app.state.canRedo;
    this.reset.disabled = this.app.state.present.positions.size === 0;
    this.seed.value = seed ?? "";
    this.#showWay(this.app.state.present);
    if (model !== this.#exampled) this.#showExamples(model);
  }

  /** Say in words what is to be seen. */
  #describe() {
    const { app } = this;
    const { seed, picture, point } = app.state.present;
    const said = point.controls
      .filter(isAttribute)
      .map((control) => `${control.name} ${inWords(control, app.positions.get(control.name) ?? control.start)}`);
    const origin =
      seed !== null ? `from seed ${seed}` : picture ? "from a picture of your own" : "from a point of the latent space";
    this.canvas.setAttribute("aria-label", `${app.label}, ${[...said, origin].join(", ")}`);
  }

  /** @param {Moment} moment show the way that a picture or a seed has taken */
  #showWay({ seed, point }) {
    const step = (/** @type {Node} */ figure, /** @type {(Node | string)[]} */ ...caption) =>
      make("figure", {}, figure, make("figcaption", {}, ...caption));
    const arrow = () => make("span", { className: "arrow", "aria-hidden": "true" }, "→");
    this.zBars = canvas({ className: "bars", "aria-label": `z: the ${point.z.length} numbers that the decoder sees` });
    this.result = canvas({ className: "small" });
    const end = [step(this.zBars, term("z")), arrow(), step(this.result, "picture")];
    if (point.mean) {
      const seen = make("img", {
        src: address(point.seen),
        alt: "What the model sees of your picture",
        className: "small",
      });
      seen.classList.toggle("crisp", point.size < 64);
      const [mean, spread] = [
        canvas({ className: "bars half", "aria-label": "μ: the means that the encoder gives" }),
        canvas({ className: "bars half spread", "aria-label": "σ: the standard deviations that the encoder gives" }),
      ];
      const roll = make(
        "button",
        {
          type: "button",
          className: "die",
          onclick: () => this.app.roll(),
          "aria-label": "Roll ε: another point of the same cloud",
        },
        icon("die"),
      );
      const hadFocus = document.activeElement?.classList.contains("die");
      this.way.replaceChildren(
        step(seen, "picture"),
        arrow(),
        step(make("div", { className: "two" }, mean, spread), term("μ"), " and ", term("σ")),
        arrow(),
        step(roll, term("ε")),
        arrow(),
        ...end,
      );
      if (hadFocus) roll.focus();
      bars(mean, point.mean);
      const deviations = point.logvar.map((value) => Math.exp(value / 2));
      bars(spread, deviations, Math.max(...deviations));
      this.wayNote.textContent =
        "The encoder gives a mean and a standard deviation for each number; the die draws new noise.";
    } else {
      const source = make("span", { className: "drawn" }, icon(seed === null ? "link" : "die"));
      this.way.replaceChildren(step(source, seed === null ? "numbers" : `seed ${seed}`), arrow(), ...end);
      this.wayNote.textContent =
        seed === null
          ? "No picture went in: these numbers came from a link or another tab."
          : "No picture went in: z was sampled from the prior, and the decoder turned it into a picture.";
    }
  }

  /** @param {string} model */
  async #showExamples(model) {
    this.#exampled = model;
    this.examples.replaceChildren();
    try {
      const examples = await this.app.examples(model);
      if (model !== this.#exampled) return;
      const show = ({ picture, label }, /** @type {number} */ index) => {
        const alt = label || `example ${index + 1}`;
        const image = make("img", { src: address(picture), alt: "" });
        image.onload = () => image.classList.toggle("crisp", image.naturalWidth < 64);
        const onclick = () => this.app.begin({ picture });
        return make(
          "button",
          { type: "button", className: "example", title: alt, "aria-label": `Start from ${alt}`, onclick },
          image,
        );
      };
      this.examples.replaceChildren(...examples.map(show));
    } catch (error) {
      this.app.say(error.message);
    }
  }

  async #save() {
    save(await toPng(enlarged(this.canvas)), `${this.app.label}.png`);
  }

  async #copy() {
    try {
      await navigator.clipboard.writeText(this.app.link);
      this.app.say("The link is copied.");
    } catch {
      this.app.say("Copying failed: copy the address of this page instead.");
    }
  }
}
