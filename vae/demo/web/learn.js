/** The Learn tab: what a variational autoencoder does, in seven cards on the present picture. */

import { gaussian } from "./app.js";
import { bars, button, canvas, make, onLeave, paint, term } from "./dom.js";
import { gradient } from "./gradient.js";
import { TinyModels } from "./tiny.js";

/** @typedef {import("./app.js").App} App */
/** @typedef {import("./tiny.js").Tiny} Tiny */

/**
 * What `tutorial` of vae/demo/learn.py tells.
 * @typedef {object} Tutorial
 * @property {Record<string, {place: string, lines: string}[]>} code of each card
 * @property {[number, number, number]} shape channels, pixels a side, latents
 * @property {number} width channels of the coarsest grid
 * @property {number} grid cells a side of it
 * @property {Tiny[]} tiny
 */

/**
 * What `place` of vae/demo/learn.py tells of the present picture.
 * @typedef {object} Place
 * @property {number[]} mean
 * @property {number[]} logvar
 * @property {boolean} is_own whether the tiny models are shown the present picture
 * @property {string} digit what they are shown, uint8 in base64
 * @property {{mean: number[], std: number[], error: number, kl: number}[]} tiny error: squared, summed over the pixels
 */

const MAX_SPREAD = 10; // times σ, at the end of the knob
const ROLLS = 6; // pictures from one cloud
const USED = 0.9; // a dimension whose σ is larger tells next to nothing
const SETTLED_MS = 200; // after the last change of the present picture

class Learn {
  /** @type {Place | null} */
  #place = null;
  /** @type {Tutorial | null} */
  #tutorial = null;
  #model = "";
  /** @type {unknown} the present moment that is told of */
  #moment = null;
  /** @type {Float32Array} */
  #eps = new Float32Array(0);
  #settling = 0; // a timer
  /** @type {Float32Array | null} what this tab shows on the stage */
  #shown = null;
  #rolled = 0; // counts rows of rolls

  /** @param {HTMLElement} element @param {App} app */
  constructor(element, app) {
    this.app = app;
    this.root = make("section");
    element.replaceChildren(this.root);
    app.addEventListener("paint", ({ detail }) => this.#copy(detail));
    onLeave(element, () => {
      if (this.#shown) app.show(null);
      this.#shown = null;
    });
  }

  /** The shared point is another one. */
  async update() {
    const { app } = this;
    const moment = app.state.present;
    if (!moment || moment === this.#moment) return;
    this.#moment = moment;
    clearTimeout(this.#settling);
    try {
      if (app.model !== this.#model) {
        const [tutorial] = await app.call("tutorial", [app.model]);
        if (moment !== this.#moment) return;
        this.#model = app.model;
        this.#layOut(tutorial);
      }
      this.#settling = setTimeout(() => this.#tell(moment), this.#place ? SETTLED_MS : 0);
    } catch (error) {
      this.#moment = null; // to be asked for again
      app.say(error.message);
    }
  }

  /** @param {import("./state.js").Moment} moment to show in the cards */
  async #tell(moment) {
    const { app } = this;
    const own = moment.positions.size === 0 && moment.picture;
    try {
      const given = [app.model, own ? { path: own } : null, own ? null : { z: [...app.z] }];
      const [[place], picture] = await Promise.all([app.call("place_picture", given), app.decode(app.z)]);
      if (moment !== this.#moment) return;
      this.#place = place;
      this.#show(picture);
    } catch (error) {
      if (moment === this.#moment) app.say(error.message);
    }
  }

  /** @param {Tutorial} tutorial */
  #layOut(tutorial) {
    this.#tutorial = tutorial;
    this.#place = null;
    const [channels, size, latents] = tutorial.shape;
    this.tiny = new TinyModels(tutorial.tiny);
    this.root.replaceChildren(
      make("h2", {}, "A variational autoencoder in seven steps"),
      this.#card(1, "Squeeze", "squeeze", this.#squeeze(channels * size * size, latents)),
      this.#card(2, "Two vectors, not one", "two vectors", this.#vectors()),
      this.#card(3, "Roll the dice", "noise", this.#dice(latents)),
      this.#card(4, "Shift and stretch the noise", "sample", this.#sample()),
      this.#card(5, "Draw it again", "decode", this.#decode(latents)),
      ...(tutorial.tiny.length > 0
        ? [
            this.#card(6, "Exact, or tidy", "balance", this.tiny.balance),
            this.#card(7, "Why new pictures work", "new pictures", this.tiny.samples),
          ]
        : []),
    );
    this.tiny.start();
  }

  /**
   * @param {number} number
   * @param {string} title
   * @param {string} key of its code
   * @param {Node[]} content
   */
  #card(number, title, key, content) {
    const parts = this.#tutorial.code[key].map(({ place, lines }) =>
      make(
        "figure",
        {},
        make("figcaption", {}, place),
        make("pre", { tabIndex: 0, "aria-label": `Code of ${place}` }, make("code", {}, lines)),
      ),
    );
    return make(
      "article",
      { className: "step" },
      make("h3", {}, make("span", { className: "number", "aria-hidden": "true" }, String(number)), title),
      ...content,
      make("details", { className: "code", open: true }, make("summary", {}, "The code that does it"), ...parts),
    );
  }

  /** @param {number} pixels @param {number} latents */
  #squeeze(pixels, latents) {
    this.source = canvas({ "aria-label": "The present picture", className: "small" });
    this.meanBars = bar("mu", "The mean of each latent");
    return [
      make(
        "p",
        {},
        "The ",
        term("encoder"),
        ` reads the ${pixels.toLocaleString("en")} numbers of the picture and keeps ${latents}: ${(pixels / latents).toFixed(0)} times fewer. They are its place in the `,
        term("latent space"),
        ".",
      ),
      make(
        "div",
        { className: "flow" },
        this.source,
        make("span", { className: "arrow", "aria-hidden": "true" }, "→"),
        make(
          "div",
          { className: "grow" },
          this.meanBars,
          make("p", { className: "note" }, `${pixels.toLocaleString("en")} numbers → ${latents}`),
        ),
      ),
    ];
  }

  #vectors() {
    this.meanAgain = bar("mu", "The mean of each latent");
    this.stdBars = bar("sigma", "The spread of each latent");
    this.used = make("p", { className: "note told" });
    return [
      make(
        "p",
        {},
        "The encoder gives not one point but a small cloud: its mean ",
        term("μ"),
        " and its spread ",
        term("σ"),
        " in each dimension. The more the picture says about a latent, the narrower the cloud.",
      ),
      make("div", { className: "rows" }, row("μ", "mu", this.meanAgain), row("σ", "sigma", this.stdBars)),
      this.used,
    ];
  }

  /** @param {number} latents */
  #dice(latents) {
    this.epsBars = bar("eps", "The noise of each latent");
    this.die = button("", () => this.#roll(), { className: "die", "aria-label": "Roll ε" });
    this.die.append(die());
    return [
      make(
        "p",
        {},
        "To pick one point of the cloud, draw ",
        term("ε"),
        `: ${latents} random numbers from `,
        term("N(0, I)"),
        ". Roll, and see which details of the large picture that changes.",
      ),
      make(
        "div",
        { className: "flow" },
        this.die,
        make("div", { className: "grow rows" }, row("ε", "eps", this.epsBars)),
      ),
    ];
  }

  #sample() {
    this.knob = make("input", {
      type: "range",
      min: "0",
      max: String(MAX_SPREAD),
      step: "0.1",
      value: "1",
      "aria-label": "How much noise, in times σ",
    });
    this.knob.oninput = () => this.#draw();
    this.knobText = make("output");
    this.sampleMean = bar("mu", "The mean of each latent");
    this.noiseBars = bar("sigma", "The noise times the spread");
    this.zBars = bar("z", "The point that is decoded");
    this.drawn = canvas({ "aria-label": "The picture of this point", className: "small" });
    return [
      make(
        "p",
        {},
        "Stretch the noise by σ, shift it by μ: ",
        term("z", "z = μ + σ · ε"),
        ". Turn the spread up, and the point leaves the cloud that the decoder was trained on.",
      ),
      make("label", { className: "knob" }, make("span", {}, "spread"), this.knob, this.knobText),
      make(
        "div",
        { className: "flow" },
        make(
          "div",
          { className: "grow rows" },
          row("μ", "mu", this.sampleMean),
          row("+ σ·ε", "sigma", this.noiseBars),
          row("= z", "z", this.zBars),
        ),
        this.drawn,
      ),
      button("Keep this picture", () => this.#shown && this.app.begin({ z: this.#shown })),
      ...gradient(),
    ];
  }

  /** @param {number} latents */
  #decode(latents) {
    const { shape, grid, width } = this.#tutorial;
    const [channels, size] = shape;
    this.rolls = Array.from({ length: ROLLS }, (_, index) =>
      canvas({ "aria-label": `Roll ${index + 1}`, className: "cell" }),
    );
    return [
      make(
        "p",
        {},
        "The ",
        term("decoder"),
        " never sees the picture. From z alone it paints a coarse grid and refines it, step by step.",
      ),
      make(
        "p",
        { className: "shapes" },
        ...[`${latents} numbers`, `${grid} × ${grid} × ${width}`, `${size} × ${size} × ${channels}`].flatMap(
          (text, index) => [
            ...(index ? [make("span", { "aria-hidden": "true" }, "→")] : []),
            make("span", { className: "shape" }, text),
          ],
        ),
      ),
      make("div", { className: "rolls" }, ...this.rolls),
      make(
        "div",
        { className: "flow" },
        make("p", { className: "note grow" }, "Six draws of ε for this picture: only details differ."),
        button("Roll six more", () => this.#rollMany()),
      ),
    ];
  }

  /** @param {ImageData | ImageBitmap} picture */
  #show(picture) {
    const { mean, logvar } = this.#place;
    const std = logvar.map((value) => Math.exp(value / 2));
    paint(this.source, picture);
    for (const target of [this.meanBars, this.meanAgain, this.sampleMean]) bars(target, mean);
    bars(this.stdBars, std, Math.max(...std));
    const used = std.filter((value) => value < USED).length;
    this.used.textContent = `In ${used} of ${std.length} dimensions the cloud is clearly narrower than the ±1 of the whole space: σ goes from ${Math.min(...std).toFixed(2)} to ${Math.max(...std).toFixed(2)}.`;
    if (this.#eps.length !== mean.length) this.#eps = gaussians(mean.length);
    this.#describe();
    paint(this.drawn, picture);
    this.#rollMany();
    this.tiny.place(this.#place);
  }

  #roll() {
    if (!this.#place) return;
    this.die.classList.remove("rolling");
    void this.die.offsetWidth; // so that the animation starts anew
    this.die.classList.add("rolling");
    this.#eps = gaussians(this.#place.mean.length);
    this.#draw();
  }

  /** Draw the point that ε and the knob give, here and on the stage. */
  #draw() {
    if (!this.#place) return;
    this.#shown = this.#describe();
    this.app.show(this.#shown);
  }

  /** @returns {Float32Array} z */
  #describe() {
    const { mean, logvar } = this.#place;
    const spread = Number(this.knob.value);
    this.knobText.textContent = `${spread.toFixed(2)} × σ`;
    this.knob.setAttribute("aria-valuetext", `${spread.toFixed(2)} times σ`);
    const noise = this.#eps.map((value, index) => spread * Math.exp(logvar[index] / 2) * value);
    const z = noise.map((value, index) => mean[index] + value);
    bars(this.epsBars, this.#eps);
    bars(this.noiseBars, noise);
    bars(this.zBars, z);
    return z;
  }

  /** @param {{picture: ImageData | ImageBitmap, z: Float32Array}} painted on the stage */
  #copy({ picture, z }) {
    const shown = this.#shown;
    if (shown && z.length === shown.length && shown.every((value, index) => value === z[index]))
      paint(this.drawn, picture);
  }

  async #rollMany() {
    if (!this.#place) return;
    const rolling = ++this.#rolled;
    const { mean, logvar } = this.#place;
    for (const target of this.rolls) {
      const eps = gaussians(mean.length);
      try {
        const picture = await this.app.decode(
          eps.map((value, index) => mean[index] + Math.exp(logvar[index] / 2) * value),
        );
        if (rolling !== this.#rolled) return;
        paint(target, picture);
      } catch {
        return; // the page says why
      }
    }
  }
}

/** @param {number} count @returns {Float32Array} numbers drawn from N(0, 1) */
const gaussians = (count) => Float32Array.from({ length: count }, gaussian);

/** @param {string} className @param {string} label */
const bar = (className, label) => canvas({ className: `bars ${className}`, "aria-label": label });

/** @param {string} text @param {string} className @param {Node} figure */
const row = (text, className, figure) =>
  make("div", { className: "bar-row" }, make("span", { className: `symbol ${className}` }, text), figure);

function die() {
  const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  picture.setAttribute("viewBox", "0 0 48 48");
  picture.setAttribute("aria-hidden", "true");
  const spots = [
    [14, 14],
    [34, 14],
    [24, 24],
    [14, 34],
    [34, 34],
  ];
  picture.innerHTML = `<rect x="4" y="4" width="40" height="40" rx="9" />${spots.map(([x, y]) => `<circle cx="${x}" cy="${y}" r="3.6" />`).join("")}`;
  return picture;
}

/**
 * @param {HTMLElement} element
 * @param {App} app
 */
export function mount(element, app) {
  const learn = new Learn(element, app);
  return { update: () => learn.update() };
}
