/** A pad to draw on: light on black, with a brush as wide as the strokes that a model of digits knows. */

import { button, make } from "./dom.js";

const SIDE = 280; // pixels
const BRUSH = 22; // of them, about a twelfth, as in MNIST

export class DrawPad {
  #isDrawing = false;

  /** @param {(file: Blob) => void} take what was drawn, after each stroke */
  constructor(take) {
    this.take = take;
    this.canvas = make("canvas", {
      width: SIDE,
      height: SIDE,
      role: "img",
      "aria-label": "Draw here with the mouse or a finger",
    });
    this.colour = make("input", { type: "color", value: "#ffffff", "aria-label": "Colour of the brush" });
    this.element = make(
      "div",
      { className: "drawpad", hidden: true },
      this.canvas,
      make(
        "div",
        { className: "bar" },
        make("span", { className: "note" }, "Draw with the mouse or a finger."),
        this.colour,
        button("Clear", () => this.#wipe()),
      ),
    );
    this.canvas.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => this.#press(event));
    this.canvas.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => this.#move(event));
    this.canvas.addEventListener("pointerup", () => this.#lift());
    this.canvas.addEventListener("pointercancel", () => this.#lift());
    this.#wipe();
  }

  /** @param {boolean} isColour whether the model sees colours */
  start(isColour) {
    this.colour.hidden = !isColour;
    if (!isColour) this.colour.value = "#ffffff";
  }

  #wipe() {
    const context = this.canvas.getContext("2d");
    context.fillStyle = "#000";
    context.fillRect(0, 0, SIDE, SIDE);
  }

  /** @param {PointerEvent} event */
  #press(event) {
    event.preventDefault();
    this.canvas.setPointerCapture(event.pointerId);
    this.#isDrawing = true;
    this.#last = this.#place(event);
    this.#move(event); // a dot is a stroke, too
  }

  /** @type {[number, number]} */
  #last = [0, 0];

  /** @param {PointerEvent} event */
  #move(event) {
    if (!this.#isDrawing) return;
    const context = this.canvas.getContext("2d");
    Object.assign(context, { strokeStyle: this.colour.value, lineWidth: BRUSH, lineCap: "round", lineJoin: "round" });
    const to = this.#place(event);
    context.beginPath();
    context.moveTo(...this.#last);
    context.lineTo(...to);
    context.stroke();
    this.#last = to;
  }

  #lift() {
    if (!this.#isDrawing) return;
    this.#isDrawing = false;
    this.canvas.toBlob((/** @type {Blob} */ file) => this.take(file), "image/png");
  }

  /**
   * @param {PointerEvent} event
   * @returns {[number, number]} in the canvas's own pixels
   */
  #place({ offsetX, offsetY }) {
    const scale = SIDE / this.canvas.clientWidth;
    return [offsetX * scale, offsetY * scale];
  }
}
