/** The Reconstruct tab: a picture goes through the bottleneck and comes back; what is lost, and what was kept of it. */

import { gaussian } from "./app.js";
import { CropBox } from "./crop.js";
import { button, canvas, choices, make, onLeave, paint, term } from "./dom.js";
import { DrawPad } from "./draw-pad.js";
import { heatMap } from "./heat.js";
import { NumbersChart } from "./numbers.js";
import { address, download } from "./server.js";
import { Webcam } from "./webcam.js";

/** @typedef {import("./app.js").App} App */
/** @typedef {import("./crop.js").Crop} Crop */
/**
 * What vae/demo/reconstruct.py tells of a picture.
 * @typedef {object} Facts
 * @property {number | null} psnr in dB
 * @property {number | null} ssim
 * @property {number | null} percentile among test pictures: so many in a hundred are stranger to the model
 * @property {boolean} foreign
 * @property {string} sentence of that
 * @property {string[]} notes what was done to the picture
 * @property {number[]} mean
 * @property {number[]} logvar
 * @property {number[]} kl of each dimension, in nats
 * @property {string} picture as it was before, with the crop
 * @property {Crop} crop
 * @property {number} channels of the model's pictures
 */

const SAMPLES = 8;
class Reconstruct {
  /** @type {{path: string, label: string, isOwn: boolean} | null} */
  #source = null;
  #options = { invert: "auto", values: "auto", crop: /** @type {Crop | null} */ (null) };
  #model = "";
  #asked = 0; // counts what was asked for
  #answered = 0;
  #isAsking = false;
  #channels = 1; // of the model's pictures
  #awaits = false;
  /** @type {Facts | null} of what is shown */
  #facts = null;

  /**
   * @param {HTMLElement} element
   * @param {App} app
   */
  constructor(element, app) {
    this.app = app;
    this.element = element;
    this.message = make("p", { className: "message", role: "alert" });
    this.examples = make("div", { className: "examples", role: "group", "aria-label": "Examples" });
    this.pad = new DrawPad((file) => this.#take(file, "what you drew"));
    this.results = make("div", { className: "results" });
    element.append(
      make("h2", {}, "Encode and decode a picture"),
      make(
        "p",
        { className: "note" },
        "The ",
        term("encoder"),
        " squeezes a picture into a few numbers, the ",
        term("decoder"),
        " redraws it from them alone. Anything unlike the training pictures comes back as the nearest thing the model knows.",
      ),
      this.#sources(),
      this.pad.element,
      this.examples,
      this.message,
      this.results,
    );
    this.#layOut();
    this.#clear();
    this.#listen();
  }

  /** The tab is shown, or the shared point is another one. */
  async update() {
    const { model, state } = this.app;
    const { picture } = state.present;
    const isOther = model !== this.#model;
    this.#model = model;
    if (isOther) await this.#showExamples(model);
    if (model !== this.#model) return;
    if (picture && picture !== this.#source?.path) this.#begin(picture, "the picture of the stage", true);
    else if (isOther && this.#source?.isOwn) this.#begin(this.#source.path, this.#source.label, true);
    else if (isOther && this.#first) this.#begin(this.#first.picture, this.#first.label, false);
    else if (isOther) {
      this.#source = null; // what is shown is another model's
      this.#answered = ++this.#asked;
      this.#clear();
    }
  }

  /** Whether what was asked for last is shown. */
  get isSettled() {
    return this.#asked > 0 && this.#answered === this.#asked;
  }

  #sources() {
    const file = make("input", {
      type: "file",
      accept: "image/*",
      className: "file",
      "aria-label": "Upload a picture",
    });
    file.onchange = () => {
      if (file.files[0]) this.#take(file.files[0], "your picture");
      file.value = "";
    };
    const refuse = (/** @type {string} */ sentence) => {
      this.message.textContent = sentence;
    };
    this.camera = new Webcam((file) => this.#take(file, "your photograph"), refuse);
    onLeave(this.element, () => this.camera.close());
    return make(
      "div",
      {},
      make(
        "div",
        { className: "bar" },
        make("label", { className: "button primary" }, "Upload", file),
        button("Draw", () => this.#toggle(this.pad.element)),
        button("Webcam", () => this.camera.toggle()),
        make("span", { className: "note" }, "or paste one, or drop it here"),
      ),
      this.camera.element,
    );
  }

  /** @param {HTMLElement} part */
  #toggle(part) {
    part.hidden = !part.hidden;
    if (!part.hidden) this.pad.start(this.#channels === 3);
  }

  #listen() {
    const stop = (/** @type {Event} */ event) => event.preventDefault();
    this.element.addEventListener("dragover", stop);
    this.element.addEventListener("drop", (/** @type {DragEvent} */ event) => {
      stop(event);
      if (event.dataTransfer.files[0]) this.#take(event.dataTransfer.files[0], "your picture");
    });
    const paste = (/** @type {ClipboardEvent} */ event) => {
      const [file] = event.clipboardData.files;
      if (!file || this.element.hidden) return;
      stop(event); // or the stage would take it
      this.#take(file, "your picture");
    };
    document.addEventListener("paste", paste, { capture: true });
  }

  /** @param {string} model */
  async #showExamples(model) {
    this.#first = null;
    this.examples.replaceChildren();
    try {
      const [{ examples }] = await this.app.call("examples", [model]);
      if (model !== this.#model) return;
      const show = ({ picture, label }, /** @type {number} */ index) => {
        const name = label || `example ${index + 1}`;
        const image = make("img", { src: address(picture), alt: "" });
        image.onload = () => image.classList.toggle("crisp", image.naturalWidth < 64);
        const onclick = () => this.#begin(picture, name, false);
        return make(
          "button",
          { type: "button", className: "example", title: name, "aria-label": `Take ${name}`, onclick },
          image,
        );
      };
      this.examples.replaceChildren(...examples.map(show));
      this.#first = examples[Math.min(7, examples.length - 1)] ?? null;
    } catch (error) {
      this.message.textContent = error.message;
    }
  }

  /** @type {{picture: string, label: string} | null} the example to begin with */
  #first = null;

  /**
   * @param {Blob} file
   * @param {string} label
   */
  async #take(file, label) {
    const asked = ++this.#asked;
    this.#clear();
    try {
      const path = await this.app.upload(file);
      if (asked === this.#asked) this.#begin(path, label, true);
    } catch (error) {
      if (asked === this.#asked) this.#fail(error);
    }
  }

  /**
   * @param {string} path on the server
   * @param {string} label
   * @param {boolean} isOwn whether it is kept for other models
   */
  #begin(path, label, isOwn) {
    this.#source = { path, label, isOwn };
    this.#options.crop = null;
    this.#clear();
    this.#ask();
  }

  /** Ask for what is set now: the newest only, one after another. */
  async #ask() {
    this.#asked++;
    this.element.classList.add("waiting");
    this.#awaits = true;
    if (this.#isAsking) return;
    this.#isAsking = true;
    while (this.#awaits) {
      this.#awaits = false;
      const asked = this.#asked;
      const { invert, values, crop } = this.#options;
      try {
        const answer = await this.app.call("reconstruct", [
          this.#model,
          { path: this.#source.path },
          invert,
          values,
          crop,
        ]);
        const pictures = await Promise.all(
          answer.slice(0, 2).map(async (file) => createImageBitmap(await download(file))),
        );
        if (asked === this.#asked) await this.crop.load(address(answer[2].picture)); // before there is room for it
        if (asked === this.#asked) await this.#show(answer[2], pictures, asked);
      } catch (error) {
        if (asked === this.#asked) this.#fail(error);
      }
    }
    this.#isAsking = false;
  }

  /** Leave nothing of another picture. */
  #clear() {
    this.message.textContent = "";
    this.#facts = null;
    this.results.classList.add("empty");
    this.element.classList.add("waiting");
  }

  /** @param {Error} error */
  #fail(error) {
    this.#clear();
    this.message.textContent = error.message;
    this.element.classList.remove("waiting");
    this.#answered = this.#asked;
  }

  #layOut() {
    this.crop = new CropBox((crop) => {
      this.#options.crop = crop;
      this.#ask();
    });
    this.before = canvas({ "aria-label": "What the model sees" });
    this.after = canvas({ "aria-label": "What it draws again", className: "after" });
    this.error = canvas({ "aria-label": "Where the two differ", className: "map" });
    const slide = make("input", {
      type: "range",
      min: "0",
      max: "100",
      value: "50",
      "aria-label": "Before and after: how much of the reconstruction is shown",
    });
    const stack = make("div", { className: "stack" }, this.before, this.after, make("span", { className: "edge" }));
    slide.oninput = () => {
      stack.style.setProperty("--cut", `${slide.value}%`);
      slide.setAttribute("aria-valuetext", `${slide.value} % reconstruction`);
    };
    this.verdict = make("p", { className: "verdict", role: "status" });
    this.measures = make("p", { className: "measures" });
    this.samples = Array.from({ length: SAMPLES }, () => canvas());
    this.numbers = new NumbersChart();
    this.results.append(
      make(
        "div",
        { className: "bench" },
        make("figure", {}, this.crop.element, make("figcaption", {}, "Your picture: move the square")),
        make(
          "figure",
          {},
          make("div", { className: "compare" }, stack, slide),
          make("figcaption", {}, make("span", {}, "reconstruction"), make("span", {}, "input")),
        ),
        make("figure", {}, this.error, make("figcaption", {}, "where they differ")),
      ),
      this.verdict,
      this.measures,
      this.#actions(),
      make("h3", {}, "Eight samples from its posterior"),
      make(
        "p",
        { className: "note" },
        "The encoder gives not one point but a small cloud, the ",
        term("posterior"),
        ". Each picture is z = ",
        term("μ"),
        " + ",
        term("σ"),
        " · ",
        term("ε"),
        " with new noise: the less they differ, the more certain the encoder is.",
      ),
      make(
        "div",
        { className: "samples" },
        ...this.samples,
        button("New samples", () => this.#drawSamples(this.#asked)),
      ),
      make("h3", {}, "The latents, most informative first"),
      this.numbers.element,
    );
  }

  #actions() {
    const option = (
      /** @type {"invert" | "values"} */ name,
      /** @type {string} */ label,
      /** @type {string[][]} */ words,
    ) =>
      make(
        "div",
        { className: "option" },
        make("span", { className: "note" }, label),
        choices(label, words, "auto", (value) => {
          this.#options[name] = value;
          this.#ask();
        }),
      );
    const exchange = [
      ["auto", "if needed"],
      ["no", "no"],
      ["yes", "yes"],
    ];
    this.range = option("values", "Range of values", [
      ["auto", "range in use"],
      ["full", "full range"],
    ]);
    return make(
      "div",
      { className: "bar" },
      button("Use as the large picture", () => this.#use("stage"), { className: "primary" }),
      button("Use as A", () => this.#use("a")),
      button("Use as B", () => this.#use("b")),
      option("invert", "Invert light and dark", exchange),
      this.range,
    );
  }

  /** @param {string} target */
  #use(target) {
    if (!this.#facts) return;
    const { invert, values, crop } = this.#options;
    const z = Float32Array.from(this.#facts.mean);
    if (target === "stage") {
      const isFound = invert === "auto" && values === "auto" && crop === null;
      this.app.begin(isFound ? { picture: this.#source.path } : { z });
      return;
    }
    this.app.ends[target] = { z, label: this.#source.label };
    this.app.say(`This picture is now ${target.toUpperCase()} of Interpolate.`);
  }

  /**
   * @param {Facts} facts
   * @param {ImageBitmap[]} pictures before and after
   * @param {number} asked
   */
  async #show(facts, [before, after], asked) {
    this.#facts = facts;
    this.#channels = facts.channels;
    this.message.textContent = "";
    this.results.classList.remove("empty");
    this.element.classList.remove("waiting");
    paint(this.before, before);
    paint(this.after, after);
    paint(this.error, heatMap(before, after));
    this.crop.show(facts.crop, this.#options.crop !== null);
    this.verdict.textContent = facts.sentence;
    this.verdict.classList.toggle("foreign", facts.foreign);
    const measure = (/** @type {Node} */ name, /** @type {string} */ text) => [name, ` ${text}`];
    const notes = facts.notes.map((note) => `${note[0].toUpperCase()}${note.slice(1)}.`).join(" ");
    this.measures.replaceChildren(
      ...(facts.psnr === null ? [] : measure(term("PSNR"), `${facts.psnr.toFixed(1)} dB`)),
      ...(facts.ssim === null ? [] : [" · ", ...measure(term("SSIM"), facts.ssim.toFixed(3))]),
      notes && ` · ${notes}`,
    );
    this.range.hidden = this.#options.values === "auto" && !facts.notes.some((note) => note.includes("values"));
    this.numbers.show(facts);
    await this.#drawSamples(asked);
    if (asked === this.#asked) this.#answered = asked;
  }

  /** @param {number} asked */
  async #drawSamples(asked) {
    for (const target of this.samples) target.getContext("2d").clearRect(0, 0, target.width, target.height);
    for (const target of this.samples) {
      if (asked !== this.#asked || !this.#facts) return;
      const { mean, logvar } = this.#facts;
      const z = Float32Array.from(mean, (middle, index) => middle + Math.exp(logvar[index] / 2) * gaussian());
      const picture = await this.app.decode(z);
      if (asked === this.#asked) paint(target, picture);
    }
  }
}

/** @type {Reconstruct} what is on the page, for tests */
export let reconstruct;

/**
 * @param {HTMLElement} element
 * @param {App} app
 * @returns {Reconstruct}
 */
export function mount(element, app) {
  reconstruct = new Reconstruct(element, app);
  return reconstruct;
}
