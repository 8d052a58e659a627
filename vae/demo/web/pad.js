/** A square of pictures with any point in between under the finger. */

import { canvas, make } from "./dom.js";

/** @type {Record<string, [number, number]>} */
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const MOVE = 0.05; // of the side, by an arrow key

const inside = (/** @type {number} */ share) => Math.min(1, Math.max(0, share));

export class Pad {
  #at = [0, 0];

  /**
   * @param {number} side pictures
   * @param {(u: number, v: number) => void} go called with where the finger is, across and down, from 0 to 1
   */
  constructor(side, go) {
    this.cells = Array.from({ length: side ** 2 }, (_, index) => ({
      u: (index % side) / (side - 1),
      v: Math.floor(index / side) / (side - 1),
      picture: canvas(),
    }));
    this.dot = make("span", { className: "mark", "aria-hidden": "true" });
    const pictures = this.cells.map(({ picture }) => picture);
    const name = "Among the corners: arrow keys move";
    this.element = make(
      "div",
      { className: "pad", tabIndex: 0, role: "group", "aria-label": name },
      ...pictures,
      this.dot,
    );
    const follow = (/** @type {PointerEvent} */ event) => {
      const { left, top, width, height } = this.element.getBoundingClientRect();
      go(inside((event.clientX - left) / width), inside((event.clientY - top) / height));
    };
    this.element.onpointerdown = follow;
    this.element.onpointermove = follow;
    this.element.onkeydown = (/** @type {KeyboardEvent} */ event) => {
      if (!(event.key in MOVES)) return;
      event.preventDefault();
      const [across, down] = MOVES[event.key];
      go(inside(this.#at[0] + across * MOVE), inside(this.#at[1] + down * MOVE));
    };
  }

  /**
   * @param {number} u
   * @param {number} v
   */
  mark(u, v) {
    this.#at = [u, v];
    this.dot.style.left = `${100 * u}%`;
    this.dot.style.top = `${100 * v}%`;
  }
}
