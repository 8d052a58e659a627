/** The five tiny models of the Learn tab, whose latent vectors have two numbers: one sees the whole space at once. */

import { gaussian } from "./app.js";
import { Decoder, toRgba } from "./decoder.js";
import { button, canvas, make, paint, term } from "./dom.js";
import { unpack } from "./points.js";
import { colourOf, Scatter } from "./scatter.js";

/**
 * What `describe_tiny` of vae/demo/learn.py tells.
 * @typedef {object} Tiny
 * @property {number} beta
 * @property {string} weights the name of the decoder's file
 * @property {string} points means, (N, 2) float32 in base64
 * @property {string} std (N, 2) float32
 * @property {string} labels (N, 1) int16
 * @property {number | null} error squared, summed over the pixels, mean of the test pictures
 * @property {number | null} kl nats, mean of the test pictures
 */

/** @typedef {import("./learn.js").Place} Place */
/** @typedef {import("./scatter.js").View} View */
/** @typedef {Tiny & {places: Float32Array, classes: Int16Array, spread: Float32Array, view: View}} Ready */

const BOUND = 1; // the β of the variational autoencoder itself
const LEAST_VIEW = 3.2; // standard deviations of N(0, I) that are always in view
const KEPT = 0.99; // of the points are in view
const GRID = 17; // pictures a side of the sheet
const FRAME_MS = 8; // of a frame are spent on the sheet
const SAMPLES = 12; // new pictures of each model
const DIGITS = 10;
/** @type {Record<string, [string, string]>} by β: what to call the model, and what became of its latent space */
const STORIES = {
  0: [
    "plain autoencoder",
    "Nothing pulls the clouds together: they are narrow and lie wherever the encoder puts them, well beyond N(0, I).",
  ],
  0.1: ["hardly tidied", "A light pull. The map shrinks towards N(0, I), and the gaps between the digits close."],
  1: ["variational autoencoder", "The bound itself. The clouds fill N(0, I), and neighbours blend into each other."],
  2: ["too tidy", "The pull is twice as strong: fewer digits can be told apart, and pictures blur."],
  4: [
    "collapsed",
    "Storing information costs more than it gains. One latent is unused, the clouds overlap, and digits can hardly be told apart.",
  ],
};

export class TinyModels {
  /** @type {(Decoder | null)[]} */
  #decoders;
  /** @type {Map<number, HTMLCanvasElement>} sheets that are drawn */
  #sheets = new Map();
  #shown = 0; // the number of the model
  #sheet = 0; // counts sheets: only the newest is drawn
  /** @type {Place | null} */
  #place = null;
  /** @type {number[][]} noise of the new pictures */
  #noise = [];
  /** @type {[number, number]} the place that was pointed at */
  #under = [0, 0];

  /** @param {Tiny[]} models */
  constructor(models) {
    this.models = models.map(ready);
    this.#shown = Math.max(
      0,
      models.findIndex(({ beta }) => beta === BOUND),
    );
    this.#decoders = models.map(() => null);
    if (models.length === 0) return;
    this.balance = this.#layOutBalance();
    this.samples = this.#layOutSamples();
  }

  /** Fetch the decoders, and show what they draw. */
  async start() {
    if (this.models.length === 0) return;
    this.#describe();
    try {
      const fetched = await Promise.all(this.models.map(({ weights }) => load(weights)));
      this.#decoders = fetched;
    } catch (error) {
      this.words.textContent = `The tiny models could not be loaded: ${error.message}`;
      return;
    }
    this.#show(this.#shown);
    this.#drawAgain();
  }

  /** @param {Place} place of the present picture */
  place(place) {
    this.#place = place;
    const pixels = new Uint8ClampedArray(unpack(place.digit));
    paint(
      this.digit,
      toImage(
        toRgba(
          Float32Array.from(pixels, (value) => value / 255),
          1,
        ),
      ),
    );
    this.#describe();
  }

  #layOutBalance() {
    this.slider = make("input", {
      type: "range",
      min: "0",
      max: String(this.models.length - 1),
      step: "1",
      value: String(this.#shown),
      "aria-label": "β, the weight of the KL",
    });
    this.slider.oninput = () => this.#show(Number(this.slider.value));
    this.title = make("output");
    this.words = make("p", { className: "note told" });
    this.scatter = new Scatter("The latent space of the tiny model. Arrow keys move over it and draw.", {
      hover: (x, y) => this.#hover(x, y),
    });
    this.sheet = canvas({
      "aria-label": "What the decoder draws at each place of the same square",
      className: "sheet",
    });
    this.under = canvas({ "aria-label": "The picture under the pointer", className: "small" });
    this.underText = make("figcaption", {}, "point at the map");
    this.digit = canvas({ "aria-label": "What the tiny models are shown", className: "small" });
    this.again = canvas({ "aria-label": "What the tiny model draws of it", className: "small" });
    this.whose = make("p", { className: "note told" });
    this.costs = make("table", { className: "costs" });
    const scale = make(
      "div",
      { className: "ticks", "aria-hidden": "true" },
      ...this.models.map(({ beta }) => make("span", {}, String(beta))),
    );
    return [
      make(
        "p",
        {},
        "Training balances two goals: a small squared error, and clouds near ",
        term("N(0, I)"),
        ", as measured by the ",
        term("KL"),
        ". β is the weight of the second. These five tiny models differ only in β and have two latents, so the whole latent space fits on a map.",
      ),
      make("label", { className: "knob beta" }, make("span", {}, "β"), make("div", {}, this.slider, scale), this.title),
      make(
        "div",
        { className: "pair" },
        make(
          "figure",
          {},
          this.scatter.element,
          make("figcaption", {}, "Where 2,000 test digits lie, and the clouds (μ ± σ) of some. Circles: N(0, I)."),
        ),
        make("figure", {}, this.sheet, make("figcaption", {}, "What the decoder draws, place by place.")),
      ),
      this.#legend(),
      this.words,
      make(
        "div",
        { className: "flow" },
        make("figure", { className: "thumb" }, this.under, this.underText),
        make(
          "div",
          { className: "grow" },
          this.whose,
          make(
            "div",
            { className: "flow" },
            this.digit,
            make("span", { className: "arrow", "aria-hidden": "true" }, "→"),
            this.again,
          ),
        ),
      ),
      this.costs,
    ];
  }

  #legend() {
    const legend = make("div", { className: "legend" });
    // The colours are those of the page, which the element is not yet part of.
    requestAnimationFrame(() => {
      for (let digit = 0; digit < DIGITS; digit++) {
        const dot = make("span", { className: "dot", "aria-hidden": "true" });
        dot.style.background = colourOf(legend, digit);
        legend.append(make("span", {}, dot, String(digit)));
      }
    });
    return legend;
  }

  #layOutSamples() {
    const [plain, tidy] = [this.models[0], this.models[this.#shown]];
    const lane = (/** @type {Ready} */ model, /** @type {string} */ name) => {
      const scatter = new Scatter(`Where the new points fall in the latent space of the ${name}`);
      const strip = Array.from({ length: SAMPLES }, (_, index) =>
        canvas({ "aria-label": `New picture ${index + 1} of the ${name}`, className: "cell" }),
      );
      return {
        model,
        scatter,
        strip,
        element: make(
          "div",
          { className: "lane" },
          make("h4", {}, `${name}, β = ${model.beta}`),
          make("div", { className: "flow" }, scatter.element, make("div", { className: "new" }, ...strip)),
        ),
      };
    };
    this.lanes = [lane(plain, "plain autoencoder"), lane(tidy, "variational autoencoder")];
    this.share = make("p", { className: "note told" });
    return [
      make(
        "p",
        {},
        "To make a new picture, draw z from ",
        term("N(0, I)"),
        " and decode it. That works only where the clouds of real pictures fill N(0, I). The same twelve draws, black on the maps:",
      ),
      ...this.lanes.map(({ element }) => element),
      this.share,
      button("Draw twelve others", () => this.#drawAgain()),
    ];
  }

  /** @param {number} index of a model */
  #show(index) {
    this.#shown = index;
    const model = this.models[index];
    const { places, classes, spread, view } = model;
    this.scatter.show({ places, label: (row) => classes[row], view, spread, circles: true });
    this.#describe();
    this.#hover(...this.#under);
    this.#drawSheet();
  }

  /** Say what the present model makes of things. */
  #describe() {
    const index = this.#shown;
    const { beta } = this.models[index];
    const [name, story] = STORIES[beta] ?? [`β = ${beta}`, ""];
    this.title.textContent = name;
    this.slider.setAttribute("aria-valuetext", `β = ${beta}, ${name}`);
    this.words.textContent = story;
    this.#tellCosts();
    const own = this.#place?.tiny[index];
    if (!own) return;
    const [x, y] = own.mean;
    const costs = `squared error ${own.error.toFixed(1)}, KL ${own.kl.toFixed(1)} nats`;
    this.whose.textContent = this.#place.is_own
      ? `Your picture, as this model draws it again: ${costs}.`
      : `These models know digits only. An example, as this one draws it again: ${costs}.`;
    this.scatter.mark([
      { mark: { x, y, rx: own.std[0], ry: own.std[1] }, text: this.#place.is_own ? "your picture" : "example" },
    ]);
    this.#draw(own.mean, this.again);
  }

  #tellCosts() {
    const longest = Math.max(...this.models.map(({ error }) => error ?? 0));
    const most = Math.max(...this.models.map(({ kl }) => kl ?? 0));
    const cell = (/** @type {number | null} */ value, /** @type {number} */ full, /** @type {string} */ className) => {
      const measure = make("span", { className: `measure ${className}`, "aria-hidden": "true" });
      measure.style.width = `${(100 * (value ?? 0)) / full}%`;
      return make("td", {}, measure, make("span", {}, value === null ? "–" : value.toFixed(1)));
    };
    this.costs.replaceChildren(
      make("caption", {}, "Means of 10,000 test pictures"),
      make(
        "tr",
        {},
        make("th", { scope: "col" }, "β"),
        make("th", { scope: "col" }, "squared error"),
        make("th", { scope: "col" }, "KL, nats"),
      ),
      ...this.models.map(({ beta, error, kl }, index) =>
        make(
          "tr",
          { className: index === this.#shown ? "present" : "" },
          make("th", { scope: "row" }, String(beta)),
          cell(error, longest, "error"),
          cell(kl, most, "kl"),
        ),
      ),
    );
  }

  /** @param {number} x @param {number} y */
  #hover(x, y) {
    this.#under = [x, y];
    this.underText.textContent = `z = (${x.toFixed(1)}, ${y.toFixed(1)})`;
    this.#draw(this.#under, this.under);
  }

  /** @param {ArrayLike<number>} z @param {HTMLCanvasElement} target @param {number} index of the model */
  #draw(z, target, index = this.#shown) {
    const decoder = this.#decoders[index];
    if (decoder) paint(target, toImage(toRgba(decoder.decode(Float32Array.from(z)), 1)));
  }

  /** Draw what the present model makes of each place, some pictures in each frame. */
  #drawSheet() {
    const [index, sheet] = [this.#shown, ++this.#sheet];
    const decoder = this.#decoders[index];
    if (!decoder) return;
    const { image_size: size } = decoder.config;
    const known = this.#sheets.get(index);
    const whole = known ?? make("canvas", { width: GRID * size, height: GRID * size });
    const { left, right, bottom, top } = this.models[index].view;
    let cell = known ? GRID ** 2 : 0;
    const frame = () => {
      if (sheet !== this.#sheet) return;
      const start = performance.now();
      for (; cell < GRID ** 2 && performance.now() - start < FRAME_MS; cell++) {
        const [row, column] = [Math.floor(cell / GRID), cell % GRID];
        const z = [left + ((column + 0.5) / GRID) * (right - left), top - ((row + 0.5) / GRID) * (top - bottom)];
        const picture = toImage(toRgba(decoder.decode(Float32Array.from(z)), 1));
        whole.getContext("2d").putImageData(picture, column * size, row * size);
      }
      if (cell === GRID ** 2) this.#sheets.set(index, whole);
      Object.assign(this.sheet, { width: whole.width, height: whole.height });
      this.sheet.getContext("2d").drawImage(whole, 0, 0);
      if (cell < GRID ** 2) requestAnimationFrame(frame);
    };
    frame();
  }

  #drawAgain() {
    this.#noise = Array.from({ length: SAMPLES }, () => [gaussian(), gaussian()]);
    for (const { model, scatter, strip } of this.lanes) {
      scatter.show({ places: model.places, label: (row) => model.classes[row], view: model.view, circles: true });
      scatter.mark(this.#noise.map(([x, y]) => ({ mark: { x, y }, text: "" })));
      for (const [index, target] of strip.entries()) this.#draw(this.#noise[index], target, this.models.indexOf(model));
    }
    const [plain, tidy] = this.lanes.map(({ model }) => Math.round(100 * shareInside(model.places)));
    this.share.textContent = `86 % of draws fall within two standard deviations. Only ${plain} % of the plain autoencoder's test digits lie there: digits farther out are hardly ever drawn, and many draws fall between digits. For the variational autoencoder it is ${tidy} %.`;
  }
}

/** @param {Tiny} model @returns {Ready} */
function ready(model) {
  const places = new Float32Array(unpack(model.points));
  const far = [...places].map(Math.abs).sort((a, b) => a - b);
  const half = Math.max(LEAST_VIEW, 1.05 * far[Math.floor(KEPT * (far.length - 1))]);
  return {
    ...model,
    places,
    classes: new Int16Array(unpack(model.labels)),
    spread: new Float32Array(unpack(model.std)),
    view: { left: -half, right: half, bottom: -half, top: half },
  };
}

/** @param {Float32Array} places @returns {number} the part of them within two standard deviations of N(0, I) */
function shareInside(places) {
  let inside = 0;
  for (let index = 0; index < places.length; index += 2)
    inside += Number(Math.hypot(places[index], places[index + 1]) < 2);
  return (2 * inside) / places.length;
}

/** @param {string} weights @returns {Promise<Decoder>} small enough to decode at once, without a worker */
async function load(weights) {
  const response = await fetch(new URL(`decoders/${weights}`, import.meta.url));
  if (!response.ok) throw new Error(`the server answers ${response.status}`);
  return new Decoder(await response.arrayBuffer());
}

/** @param {Uint8ClampedArray<ArrayBuffer>} pixels of a square picture, RGBA */
function toImage(pixels) {
  const side = Math.sqrt(pixels.length / 4);
  return new ImageData(pixels, side, side);
}
