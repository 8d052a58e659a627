/** A chart of what the encoder says of a picture: μ ± σ and KL of each number, the most telling first. */

import { canvas, make, term } from "./dom.js";

/** @typedef {{mean: number[], logvar: number[], kl: number[]}} Numbers of each dimension; kl in nats */

const KNOWS = 0.1; // nats: a dimension with more carries something of the picture
const REACH = 4.2; // of the axis to either side; μ hardly ever lies beyond

export class NumbersChart {
  /** @type {Numbers | null} */
  #numbers = null;
  /** @type {number[]} the dimensions, that with the most KL first */
  #order = [];
  /** @type {number | null} a place in that order */
  #marked = null;

  constructor() {
    this.canvas = canvas({ className: "numbers", tabIndex: 0, "aria-label": "μ ± σ and KL of each number" });
    this.told = make("p", { className: "note told" });
    this.element = make("div", { className: "chart" }, this.canvas, this.told);
    this.canvas.addEventListener("pointermove", (/** @type {PointerEvent} */ event) =>
      this.#mark(Math.floor((event.offsetX / this.canvas.clientWidth) * this.#order.length)),
    );
    this.canvas.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (by === undefined) return;
      event.preventDefault();
      this.#mark((this.#marked ?? -by) + by);
    });
  }

  /** @param {Numbers} numbers */
  show(numbers) {
    const { kl } = numbers;
    this.#numbers = numbers;
    this.#order = [...kl.keys()].sort((a, b) => kl[b] - kl[a]);
    this.#draw(null);
    const told = `${kl.filter((nats) => nats > KNOWS).length} of ${kl.length} numbers carry information about this picture, ${kl.reduce((sum, nats) => sum + nats, 0).toFixed(0)} nats in total.`;
    this.canvas.setAttribute("aria-label", `μ ± σ and KL of each number. ${told} Arrow keys go through them.`);
    const band = "Above: μ ± σ of each number, beside the band of ";
    this.told.replaceChildren(band, term("N(0, I)"), ". Below: its ", term("KL"), `. ${told}`);
  }

  /** @param {number} place in the order */
  #mark(place) {
    if (!this.#numbers || place < 0 || place >= this.#order.length || place === this.#marked) return;
    this.#draw(place);
    const index = this.#order[place];
    const [mean, spread] = [this.#numbers.mean[index], Math.exp(this.#numbers.logvar[index] / 2)];
    const nats = this.#numbers.kl[index].toFixed(2);
    this.told.textContent = `Number ${index + 1}: μ = ${mean.toFixed(2)}, σ = ${spread.toFixed(3)}, KL ${nats} nats.`;
    this.canvas.setAttribute("aria-label", this.told.textContent);
  }

  /** @param {number | null} marked */
  #draw(marked) {
    const { mean, logvar, kl } = this.#numbers;
    this.#marked = marked;
    const ratio = Math.ceil(globalThis.devicePixelRatio || 1);
    const [width, height] = [this.canvas.clientWidth * ratio || 600, this.canvas.clientHeight * ratio || 144];
    Object.assign(this.canvas, { width, height });
    const context = this.canvas.getContext("2d");
    const style = getComputedStyle(this.canvas);
    const fill = (/** @type {string} */ colour, /** @type {[number, number, number, number]} */ ...place) => {
      context.fillStyle = style.getPropertyValue(colour);
      context.fillRect(...place);
    };
    const [step, middle, most] = [width / this.#order.length, height * 0.38, Math.max(...kl, 1e-6)];
    const unit = middle / REACH;
    fill("--tint", 0, middle - unit, width, 2 * unit); // where N(0, I) mostly lies
    fill("--line", 0, middle, width, ratio);
    if (marked !== null) fill("--line", marked * step, 0, step, height);
    const bar = Math.max(1, step * 0.6);
    for (const [place, index] of this.#order.entries()) {
      const x = (place + 0.2) * step;
      const spread = Math.exp(logvar[index] / 2);
      const within = (/** @type {number} */ value) => Math.max(-REACH, Math.min(REACH, value));
      const top = middle - within(mean[index] + spread) * unit;
      const low = middle - within(mean[index] - spread) * unit;
      fill("--accent", x, top, bar, Math.max(2 * ratio, low - top));
      const length = (kl[index] / most) * height * 0.2;
      fill("--warm", x, height - length, bar, length);
    }
  }
}
