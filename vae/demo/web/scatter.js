/** A scatter of coloured points that one can point at, pick, and draw paths over. */

import { make } from "./dom.js";

/** @typedef {{left: number, right: number, bottom: number, top: number}} View the part of the plane that is shown */
/** @typedef {{x: number, y: number, rx?: number, ry?: number}} Mark a place, perhaps with the half axes of an ellipse */

/**
 * What happens: places are in the coordinates of the points.
 * @typedef {object} Actions
 * @property {(x: number, y: number) => void} [hover] the pointer or the keyboard's cursor is there
 * @property {() => void} [leave]
 * @property {(x: number, y: number) => void} [pick] a click, or Enter
 * @property {(path: [number, number][]) => void} [path] was drawn
 */

/**
 * @typedef {object} Data
 * @property {Float32Array} places (N, 2)
 * @property {(index: number) => number} label the number of the colour of a point
 * @property {View} view
 * @property {Float32Array} [spread] (N, 2) half axes of the cloud of each point, which is drawn for some
 * @property {boolean} [circles] whether to draw where N(0, I) has its first and second standard deviation
 */

/** Each told from its neighbours, and at least 3:1 against the page. */
const COLOURS = {
  light: ["#1c6fb8", "#d9480f", "#2b8a3e", "#c2255c", "#7048e8", "#8a5a2b", "#0b7f92", "#8f6a00", "#495057", "#b02fc4"],
  dark: ["#74c0fc", "#ffa94d", "#8ce99a", "#faa2c1", "#b7a1ff", "#e0b089", "#66d9e8", "#ffe066", "#ced4da", "#f09bff"],
};
const RADIUS = 2.6; // pixels of a point
const FAINT = 0.12; // of points that are not the chosen ones
const CLOUDS = 120; // that are drawn, at most
const DRAG = 6; // pixels that tell a path from a click
const KEY_STEP = 1 / 40; // of the width
const THUMB = 28; // pixels a side of a picture on the map
const THUMB_GAP = 40; // from the middle of one to that of the next, at least

/** @param {Element} element @returns {boolean} whether it stands on a dark page */
function isDark(element) {
  const [red, green, blue] = getComputedStyle(element)
    .color.match(/[\d.]+/g)
    .map(Number);
  return red + green + blue > 382;
}

/** @param {Element} element @param {number} label @returns {string} the colour of a class there */
export function colourOf(element, label) {
  const colours = COLOURS[isDark(element) ? "dark" : "light"];
  return colours[label % colours.length];
}

export class Scatter {
  /** @type {Data | null} */
  #data = null;
  /** @type {number | null} the colour that stands out */
  #chosen = null;
  /** @type {{mark: Mark, text: string}[]} */
  #marks = [];
  /** @type {[number, number][]} */
  #path = [];
  /** @type {[number, number] | null} where the pointer or the keyboard's cursor is */
  #cursor = null;
  /** @type {{index: number, picture: ImageData | ImageBitmap}[]} */
  #thumbs = [];
  #isDrawing = false;
  #size = 0; // pixels of the screen

  /**
   * @param {string} label what it is, for those who can't see it
   * @param {Actions} actions
   */
  constructor(label, actions = {}) {
    this.actions = actions;
    this.base = make("canvas", { "aria-hidden": "true" });
    this.over = make("canvas", { role: "img", "aria-label": label, className: "over" });
    this.element = make("div", { className: "scatter" }, this.base, this.over);
    if (actions.hover) this.#listen();
    new ResizeObserver(() => this.#resize()).observe(this.element);
  }

  /** @param {Data} data */
  show(data) {
    this.#data = data;
    this.#thumbs = [];
    this.#path = [];
    this.#cursor = null;
    this.#drawBase();
  }

  /** @param {number | null} label the only one to be in full colour */
  choose(label) {
    this.#chosen = label;
    this.#drawBase();
  }

  /** @param {{mark: Mark, text: string}[]} marks with a word beside each */
  mark(marks) {
    this.#marks = marks;
    this.#drawOver();
  }

  /** @param {[number, number][]} path @param {[number, number] | null} at where on it one is */
  trace(path, at = null) {
    this.#path = path;
    this.#cursor = at;
    this.#drawOver();
  }

  /** @param {number} index of a point @param {ImageData | ImageBitmap} picture to show there */
  addThumb(index, picture) {
    this.#thumbs.push({ index, picture });
    this.#drawThumb(this.base.getContext("2d"), this.#thumbs[this.#thumbs.length - 1]);
  }

  clearThumbs() {
    this.#thumbs = [];
    this.#drawBase();
  }

  /** @returns {number[]} the indices of points whose pictures have room beside each other */
  roomy() {
    /** @type {[number, number][]} */
    const taken = [];
    const found = [];
    for (let index = 0; index < this.#data.places.length / 2; index++) {
      const [x, y] = this.#toPixels(this.#data.places[2 * index], this.#data.places[2 * index + 1]);
      if (taken.some(([left, top]) => Math.max(Math.abs(left - x), Math.abs(top - y)) < THUMB_GAP)) continue;
      taken.push([x, y]);
      found.push(index);
    }
    return found;
  }

  #listen() {
    const { over } = this;
    over.tabIndex = 0;
    over.classList.toggle("draws", this.actions.path !== undefined);
    /** @type {{x: number, y: number} | null} */
    let pressed = null;
    const place = (/** @type {PointerEvent} */ event) => {
      const box = over.getBoundingClientRect();
      return this.#toPlace(event.clientX - box.left, event.clientY - box.top);
    };
    over.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      pressed = { x: event.clientX, y: event.clientY };
      this.#path = [];
      over.setPointerCapture(event.pointerId);
    });
    over.addEventListener("pointermove", (event) => {
      const here = place(event);
      const isFar = pressed && Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) > DRAG;
      if (isFar && this.actions.path) this.#isDrawing = true;
      if (this.#isDrawing) this.#path.push(here);
      this.#point(here);
    });
    over.addEventListener("pointerup", (event) => {
      const here = place(event);
      const wasDrawing = this.#isDrawing;
      const wasPressed = pressed !== null;
      pressed = null;
      this.#isDrawing = false;
      if (wasDrawing && this.#path.length > 1) this.actions.path(this.#path);
      else if (wasPressed) this.actions.pick?.(...here);
      this.#drawOver();
    });
    const leave = () => {
      pressed = null;
      this.#isDrawing = false;
      this.#cursor = null;
      this.#drawOver();
      this.actions.leave?.();
    };
    over.addEventListener("pointercancel", leave);
    over.addEventListener("pointerleave", leave);
    over.addEventListener("blur", leave);
    over.addEventListener("keydown", (event) => this.#press(event));
  }

  /** @param {KeyboardEvent} event */
  #press(event) {
    if (!this.#data) return;
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const step = steps[event.key];
    const { left, right, bottom, top } = this.#data.view;
    const [x, y] = this.#cursor ?? [(left + right) / 2, (bottom + top) / 2];
    if (step) {
      const moved = [x + step[0] * KEY_STEP * (right - left), y + step[1] * KEY_STEP * (top - bottom)];
      this.#point([Math.min(right, Math.max(left, moved[0])), Math.min(top, Math.max(bottom, moved[1]))]);
    } else if (event.key === "Enter" || event.key === " ") this.actions.pick?.(x, y);
    else return;
    event.preventDefault();
  }

  /** @param {[number, number]} here */
  #point(here) {
    if (!this.#data) return;
    this.#cursor = here;
    this.#drawOver();
    this.actions.hover(...here);
  }

  #resize() {
    const size = this.element.clientWidth;
    if (size === this.#size || size === 0) return;
    this.#size = size;
    const ratio = Math.ceil(globalThis.devicePixelRatio || 1);
    for (const layer of [this.base, this.over]) {
      layer.width = layer.height = size * ratio;
      layer.getContext("2d").scale(ratio, ratio);
    }
    this.#drawBase();
  }

  /** @param {number} x @param {number} y @returns {[number, number]} */
  #toPixels(x, y) {
    const { left, right, bottom, top } = this.#data.view;
    return [((x - left) / (right - left)) * this.#size, ((top - y) / (top - bottom)) * this.#size];
  }

  /** @param {number} x @param {number} y pixels @returns {[number, number]} */
  #toPlace(x, y) {
    const { left, right, bottom, top } = this.#data.view;
    return [left + (x / this.#size) * (right - left), top - (y / this.#size) * (top - bottom)];
  }

  #drawBase() {
    if (!this.#data || !this.#size) return;
    const context = this.base.getContext("2d");
    const { places, label, circles, spread } = this.#data;
    context.clearRect(0, 0, this.#size, this.#size);
    if (circles) this.#drawCircles(context);
    /** @type {Map<number, Path2D>} a class at once: thousands of single points would take many times as long */
    const dots = new Map();
    for (let index = 0; index < places.length / 2; index++) {
      const [x, y] = this.#toPixels(places[2 * index], places[2 * index + 1]);
      const own = dots.get(label(index)) ?? new Path2D();
      own.moveTo(x + RADIUS, y);
      own.arc(x, y, RADIUS, 0, 2 * Math.PI);
      dots.set(label(index), own);
    }
    for (const [colour, path] of dots) {
      context.globalAlpha = this.#chosen === null || this.#chosen === colour ? 0.8 : FAINT;
      context.fillStyle = colourOf(this.element, colour);
      context.fill(path);
    }
    if (spread) this.#drawClouds(context);
    context.globalAlpha = 1;
    for (const thumb of this.#thumbs) this.#drawThumb(context, thumb);
    this.#drawOver();
  }

  /** @param {CanvasRenderingContext2D} context */
  #drawCircles(context) {
    context.strokeStyle = getComputedStyle(this.element).color;
    context.globalAlpha = 0.45;
    context.setLineDash([4, 4]);
    for (const reach of [1, 2]) this.#ellipse(context, { x: 0, y: 0, rx: reach, ry: reach });
    context.setLineDash([]);
    context.globalAlpha = 1;
  }

  /** @param {CanvasRenderingContext2D} context */
  #drawClouds(context) {
    const { places, label, spread } = this.#data;
    const step = 2 * Math.ceil(places.length / 2 / CLOUDS);
    context.lineWidth = 1;
    for (let at = 0; at < places.length; at += step) {
      context.strokeStyle = context.fillStyle = colourOf(this.element, label(at / 2));
      context.globalAlpha = 0.7;
      this.#ellipse(context, { x: places[at], y: places[at + 1], rx: spread[at], ry: spread[at + 1] });
      context.globalAlpha = 0.12;
      context.fill();
    }
    context.globalAlpha = 1;
  }

  /** @param {CanvasRenderingContext2D} context @param {Mark} mark */
  #ellipse(context, { x, y, rx = 0, ry = 0 }) {
    const [middleX, middleY] = this.#toPixels(x, y);
    const [right, top] = this.#toPixels(x + rx, y + ry);
    context.beginPath();
    context.ellipse(middleX, middleY, right - middleX, middleY - top, 0, 0, 2 * Math.PI);
    context.stroke();
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {{index: number, picture: ImageData | ImageBitmap}} thumb
   */
  #drawThumb(context, { index, picture }) {
    const { places, label } = this.#data;
    const [x, y] = this.#toPixels(places[2 * index], places[2 * index + 1]);
    const own = make("canvas", { width: picture.width, height: picture.height });
    if (picture instanceof ImageData) own.getContext("2d").putImageData(picture, 0, 0);
    else own.getContext("2d").drawImage(picture, 0, 0);
    context.globalAlpha = this.#chosen === null || this.#chosen === label(index) ? 1 : FAINT;
    context.fillStyle = colourOf(this.element, label(index));
    context.fillRect(x - THUMB / 2 - 1.5, y - THUMB / 2 - 1.5, THUMB + 3, THUMB + 3);
    context.drawImage(own, x - THUMB / 2, y - THUMB / 2, THUMB, THUMB);
    context.globalAlpha = 1;
  }

  #drawOver() {
    if (!this.#data || !this.#size) return;
    const context = this.over.getContext("2d");
    context.clearRect(0, 0, this.#size, this.#size);
    const ink = getComputedStyle(this.element).color;
    const paper = isDark(this.element) ? "#000" : "#fff";
    this.#drawPath(context, ink, paper);
    for (const { mark, text } of this.#marks) {
      context.strokeStyle = ink;
      context.lineWidth = 2;
      if (mark.rx) this.#ellipse(context, mark);
      const [x, y] = this.#toPixels(mark.x, mark.y);
      this.#dot(context, x, y, ink, paper);
      context.font = "600 12px system-ui, sans-serif";
      const isLate = x > this.#size * 0.7;
      context.textAlign = isLate ? "right" : "left";
      context.lineWidth = 3;
      context.strokeStyle = paper;
      context.strokeText(text, x + (isLate ? -9 : 9), y - 8);
      context.fillStyle = ink;
      context.fillText(text, x + (isLate ? -9 : 9), y - 8);
    }
    if (this.#cursor) {
      const [x, y] = this.#toPixels(...this.#cursor);
      context.strokeStyle = paper;
      context.lineWidth = 4;
      context.beginPath();
      context.arc(x, y, 8, 0, 2 * Math.PI);
      context.stroke();
      context.strokeStyle = ink;
      context.lineWidth = 2;
      context.stroke();
    }
  }

  /** @param {CanvasRenderingContext2D} context @param {string} ink @param {string} paper */
  #drawPath(context, ink, paper) {
    if (this.#path.length < 2) return;
    context.lineJoin = context.lineCap = "round";
    context.beginPath();
    for (const place of this.#path) context.lineTo(...this.#toPixels(...place));
    for (const [width, colour] of /** @type {[number, string][]} */ ([
      [6, paper],
      [3, ink],
    ])) {
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.stroke();
    }
  }

  /** @param {CanvasRenderingContext2D} context @param {number} x @param {number} y @param {string} ink @param {string} paper */
  #dot(context, x, y, ink, paper) {
    context.beginPath();
    context.arc(x, y, 5, 0, 2 * Math.PI);
    context.lineWidth = 2.5;
    context.strokeStyle = paper;
    context.stroke();
    context.fillStyle = ink;
    context.fill();
  }
}
