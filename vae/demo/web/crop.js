/** A picture with the square that a model sees of it, which can be moved and resized. */

import { button, make } from "./dom.js";

/** @typedef {{left: number, top: number, size: number}} Crop in parts of the picture's width */

const STEP = 0.02; // of the picture's width, for each press of an arrow key
const SMALL = 240; // pixels a side: a picture that is enlarged
const [LEAST, MOST] = [0.1, 2]; // sizes

export class CropBox {
  /** @type {Crop} */
  #crop = { left: 0, top: 0, size: 1 };
  #isHeld = false;

  /** @param {(crop: Crop | null) => void} change the visitor's square, or null if it shall be found */
  constructor(change) {
    this.change = change;
    this.image = make("img", { alt: "Your picture", draggable: false });
    this.square = make("div", {
      className: "square",
      tabIndex: 0,
      role: "group",
      "aria-label": "The square that the model sees: arrow keys move it, plus and minus resize it",
    });
    this.frame = make("div", { className: "frame-box" }, this.image, this.square);
    this.size = make("input", {
      type: "range",
      min: String(LEAST),
      max: String(MOST),
      step: "0.01",
      "aria-label": "Size of the square",
    });
    this.size.oninput = () => this.#resize(Number(this.size.value));
    this.found = button("Find it again", () => this.change(null), { className: "quiet" });
    this.element = make(
      "div",
      { className: "crop" },
      this.frame,
      make("div", { className: "bar" }, this.size, this.found),
    );
    this.#listen();
  }

  /** @param {string} source of the picture */
  async load(source) {
    if (this.image.src === source) return;
    this.image.src = source;
    await this.image.decode().catch(() => {}); // one that this browser can't show leaves its place empty
    this.image.classList.toggle("crisp", this.image.naturalWidth < 64);
    this.image.classList.toggle("little", this.image.naturalWidth < SMALL);
  }

  /**
   * @param {Crop} crop of the picture that is loaded
   * @param {boolean} isChosen by the visitor
   */
  show(crop, isChosen) {
    this.found.disabled = !isChosen;
    if (this.#isHeld) return; // what is dragged is newer
    this.#crop = { ...crop };
    this.#place();
  }

  #listen() {
    this.square.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
      this.#isHeld = true;
      this.square.setPointerCapture(event.pointerId);
    });
    this.square.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
      if (!this.#isHeld) return;
      const width = this.image.clientWidth;
      this.#move(event.movementX / width, event.movementY / width);
    });
    const drop = () => {
      this.#isHeld = false;
    };
    this.square.addEventListener("pointerup", drop);
    this.square.addEventListener("pointercancel", drop);
    this.square.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      const scales = { "+": 1.1, "-": 1 / 1.1 };
      if (event.key in steps) this.#move(STEP * steps[event.key][0], STEP * steps[event.key][1]);
      else if (event.key in scales) this.#resize(this.#crop.size * scales[event.key]);
      else return;
      event.preventDefault();
    });
  }

  /**
   * @param {number} x
   * @param {number} y
   */
  #move(x, y) {
    const { left, top, size } = this.#crop;
    const height = this.image.naturalHeight / this.image.naturalWidth || 1;
    // Half of the square stays in the picture.
    const within = (/** @type {number} */ value, /** @type {number} */ end) =>
      Math.min(end - size / 2, Math.max(-size / 2, value));
    this.#set({ left: within(left + x, 1), top: within(top + y, height), size });
  }

  /** @param {number} wanted */
  #resize(wanted) {
    const { left, top, size } = this.#crop;
    const next = Math.min(MOST, Math.max(LEAST, wanted));
    this.#set({ left: left + (size - next) / 2, top: top + (size - next) / 2, size: next });
  }

  /** @param {Crop} crop */
  #set(crop) {
    this.#crop = crop;
    this.#place();
    this.change({ ...crop });
  }

  #place() {
    const { left, top, size } = this.#crop;
    const height = this.image.naturalHeight / this.image.naturalWidth || 1;
    Object.assign(this.square.style, {
      left: `${100 * left}%`,
      width: `${100 * size}%`,
      top: `${(100 * top) / height}%`,
      height: `${(100 * size) / height}%`,
    });
    this.size.value = String(size);
  }
}
