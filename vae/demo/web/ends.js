/** The ends of a walk: where they come from, and what a visitor chooses them by. */

import { canvas, make, paint } from "./dom.js";
import { address } from "./server.js";

/** @typedef {import("./app.js").App} App */

/**
 * @typedef {object} End
 * @property {Float32Array} z
 * @property {string} [label]
 * @property {number} [seed] if it was drawn
 * @property {string} [seen] the picture that was encoded, as the model saw it: the path of a file on the server
 */

const RANDOM_SEEDS = 1_000_000;
const CRISP_BELOW = 64; // pixels a side

/**
 * @param {App} app
 * @returns {End} the present point
 */
export function ofStage(app) {
  const { seed, positions, point } = app.state.present;
  if (seed !== null && positions.size === 0) return { z: app.z, seed, label: `seed ${seed}` };
  return { z: app.z, label: "the large picture", seen: positions.size === 0 ? point.seen : undefined };
}

/**
 * @param {App} app
 * @param {number} seed
 * @returns {Promise<End>}
 */
export async function ofSeed(app, seed) {
  const { z } = await app.find({ seed });
  return { z: Float32Array.from(z), seed, label: `seed ${seed}` };
}

/**
 * @param {App} app
 * @param {string} picture its path on the server
 * @param {string} label
 * @returns {Promise<End>}
 */
async function ofPicture(app, picture, label) {
  const { z, seen } = await app.find({ picture });
  return { z: Float32Array.from(z), seen, label };
}

/** Shows an end, and lets it be chosen anew. */
export class EndCard {
  #exampled = ""; // the model whose examples are shown
  #asked = 0; // counts what was chosen: only the newest counts

  /**
   * @param {App} app
   * @param {string} name a letter
   * @param {(end: End) => void} choose
   */
  constructor(app, name, choose) {
    this.app = app;
    this.letter = name.toUpperCase();
    this.choose = choose;
    this.back = canvas({ "aria-label": `The picture at ${this.letter}` });
    this.seen = make("img", { alt: `What the model saw at ${this.letter}` });
    this.original = make("figure", { hidden: true }, this.seen, make("figcaption", {}, "picture"));
    this.caption = make("figcaption", {}, "drawn");
    this.label = make("span", { className: "label" });
    this.examples = make("div", { className: "examples" });
    const file = make("input", { type: "file", accept: "image/*", className: "file" });
    file.setAttribute("aria-label", `A picture of your own for ${this.letter}`);
    file.onchange = () => {
      const [chosen] = file.files;
      if (chosen) this.#take(async () => ofPicture(app, await app.upload(chosen), "your picture"));
      file.value = "";
    };
    this.element = make(
      "section",
      { className: `end ${name}`, "aria-label": this.letter },
      make("div", { className: "pair" }, this.original, make("figure", {}, this.back, this.caption)),
      make(
        "div",
        { className: "choose" },
        make("p", {}, make("strong", {}, this.letter), " ", this.label),
        make(
          "div",
          { className: "row" },
          this.#button("Current", () => ofStage(app)),
          this.#button("Random", () => ofSeed(app, Math.floor(Math.random() * RANDOM_SEEDS))),
          make("label", { className: "button" }, "Upload", file),
        ),
        this.examples,
      ),
    );
  }

  /**
   * @param {End} end
   * @param {ImageData | ImageBitmap} picture that is drawn of it
   */
  show(end, picture) {
    paint(this.back, picture);
    this.label.textContent = end.label ?? "";
    this.caption.textContent = end.seen ? "redrawn" : "drawn";
    this.original.hidden = !end.seen;
    if (end.seen && this.seen.src !== address(end.seen)) this.seen.src = address(end.seen);
    this.seen.classList.toggle("crisp", picture.width < CRISP_BELOW);
    this.#offer();
  }

  /** @returns {Promise<CanvasImageSource>} the picture itself, if there is one, or else what is drawn */
  async picture() {
    if (this.original.hidden) return this.back;
    await this.seen.decode();
    return this.seen;
  }

  /** Offer the test pictures of the present model. */
  async #offer() {
    const { app, letter } = this;
    const { model } = app;
    if (this.#exampled === model) return;
    this.#exampled = model;
    const show = ({ picture, label }, /** @type {number} */ index) => {
      const title = label || `example ${index + 1}`;
      const image = make("img", { src: address(picture), alt: "" });
      image.onload = () => image.classList.toggle("crisp", image.naturalWidth < CRISP_BELOW);
      const onclick = () => this.#take(() => ofPicture(app, picture, title));
      const name = `${letter}: ${title}`;
      return make("button", { type: "button", className: "example", "aria-label": name, title, onclick }, image);
    };
    try {
      const examples = await app.examples(model);
      if (model === this.#exampled) this.examples.replaceChildren(...examples.map(show));
    } catch (error) {
      app.say(error.message);
    }
  }

  /**
   * @param {string} text
   * @param {() => Promise<End> | End} find
   */
  #button(text, find) {
    const onclick = () => this.#take(find);
    return make("button", { type: "button", onclick, "aria-label": `${this.letter}: ${text.toLowerCase()}` }, text);
  }

  /** @param {() => Promise<End> | End} find */
  async #take(find) {
    const { app } = this;
    const { model } = app;
    const asked = ++this.#asked;
    app.say("");
    try {
      const end = await find();
      if (asked === this.#asked && model === app.model) this.choose(end);
    } catch (error) {
      if (asked === this.#asked && model === app.model) app.say(error.message);
    }
  }
}
