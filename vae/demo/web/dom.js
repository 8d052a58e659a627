/** Small helpers for elements: made, painted and saved the same way in every tab. */

const CRISP_BELOW = 64; // pixels a side: a digit of 28 is shown as it is, a face of 64 is smoothed
const SAVED_SIDE = 512; // pixels, at least
const REVOKE_MS = 10_000; // until a browser has surely begun to save a file

/** What a newcomer may not know, in one sentence each. */
const TERMS = {
  latent: "One of the few numbers that the picture is squeezed into; together they are a point in the latent space.",
  "latent space": "The space of all such lists of numbers: every point of it decodes to a picture.",
  encoder: "The half of the network that turns a picture into numbers.",
  decoder: "The half of the network that draws a picture from numbers.",
  prior: "Where new points are drawn from; it is fitted to where the encoder puts real pictures.",
  posterior: "The encoder's answer for a picture: not one point but a small cloud, with a mean and a spread.",
  "N(0, I)":
    "The standard normal distribution: mean 0 and standard deviation 1 in every dimension, nothing correlated.",
  KL: "How far the cloud of a picture is from N(0, I), in nats: what the model pays to remember it.",
  μ: "The mean: where the encoder puts the middle of the picture's cloud, one number per dimension.",
  σ: "The spread of the cloud in each dimension: small where the model is sure.",
  ε: "Random noise from N(0, I): it chooses a point in the cloud.",
  z: "The point itself, z = μ + σ · ε: all that the decoder sees.",
  slerp: "Turns from one point to the other along a great circle, keeping the usual distance from the origin.",
  lerp: "Goes straight from one point to the other, and so comes closer to the origin than real pictures are.",
  PSNR: "How close a copy is, in decibels: 20 is rough, 30 is good, 40 is hard to tell from the original.",
  SSIM: "How alike two pictures look, from 0 to 1, by their local structure.",
  temperature: "How much noise goes in: below 1 pictures get more typical and less varied, above 1 wilder.",
  "Fréchet distance":
    "How far new pictures are from real ones, as sets: the distance between Gaussians fitted to a classifier's features.",
  seed: "A number that starts the random generator: the same seed always draws the same picture.",
};

/**
 * Make an element; texts go in as text. Properties with a dash, and role, are attributes.
 * @param {string} tag
 * @param {Record<string, any>} properties
 * @param {...(Node | string)} children
 * @returns {any}
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role" || name === "for") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/**
 * @param {string} text
 * @param {() => void} onclick
 * @param {Record<string, any>} properties
 * @returns {HTMLButtonElement}
 */
export function button(text, onclick, properties = {}) {
  return make("button", { type: "button", onclick, ...properties }, text);
}

let groups = 0; // of choices

/**
 * Some words of which one is chosen.
 * @param {string} label
 * @param {string[][]} options each a value and its word
 * @param {string} chosen the value to begin with
 * @param {(value: string) => void} change
 * @returns {HTMLElement} its inputs' values are those
 */
export function choices(label, options, chosen, change) {
  const name = `choices-${++groups}`;
  const choice = (/** @type {string[]} */ [value, word]) => {
    const input = make("input", { type: "radio", name, value, checked: value === chosen });
    input.onchange = () => change(value);
    return make("label", { className: "choice" }, input, make("span", {}, word));
  };
  return make("div", { className: "choices", role: "radiogroup", "aria-label": label }, ...options.map(choice));
}

/**
 * A word that is explained where it stands, to those who point at it or come to it by the keyboard.
 * @param {keyof typeof TERMS} word
 * @param {string} text what to write instead of the word itself
 * @returns {HTMLElement}
 */
export function term(word, text = word) {
  const bubble = make("span", { className: "bubble", role: "tooltip" }, TERMS[word]);
  const element = make("span", { className: "term", tabIndex: 0 }, text, bubble);
  const place = () => {
    const { left } = element.getBoundingClientRect();
    const room = document.documentElement.clientWidth - bubble.offsetWidth - 8;
    bubble.style.left = `${Math.min(0, room - left)}px`;
  };
  element.addEventListener("pointerenter", place);
  element.addEventListener("focus", place);
  element.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Escape") element.blur();
  });
  return element;
}

/**
 * @param {Record<string, any>} properties
 * @returns {HTMLCanvasElement} of a picture that is still to come; it has alternative text if there is an aria-label
 */
export function canvas(properties = {}) {
  const hidden = "aria-label" in properties ? { role: "img" } : { "aria-hidden": "true" };
  return make("canvas", { width: 1, height: 1, ...hidden, ...properties });
}

/**
 * @param {HTMLCanvasElement} target takes the size of the picture
 * @param {ImageData | ImageBitmap | HTMLImageElement} picture
 */
export function paint(target, picture) {
  if (target.width !== picture.width || target.height !== picture.height) {
    target.width = picture.width;
    target.height = picture.height;
    target.classList.toggle("crisp", picture.height < CRISP_BELOW);
  }
  const context = target.getContext("2d");
  if (picture instanceof ImageData) context.putImageData(picture, 0, 0);
  else context.drawImage(picture, 0, 0);
}

/**
 * @param {HTMLCanvasElement} source
 * @param {number} least pixels of its shorter side in the copy
 * @returns {HTMLCanvasElement} a copy enlarged by a whole factor, as crisp as it is shown
 */
export function enlarged(source, least = SAVED_SIDE) {
  const side = Math.min(source.width, source.height);
  const scale = Math.max(1, Math.ceil(least / side));
  const large = make("canvas", { width: scale * source.width, height: scale * source.height });
  const context = large.getContext("2d");
  context.imageSmoothingEnabled = side >= CRISP_BELOW;
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, large.width, large.height);
  return large;
}

/**
 * Let the visitor keep a file.
 * @param {Blob} file
 * @param {string} name
 */
export function save(file, name) {
  const href = URL.createObjectURL(file);
  make("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), REVOKE_MS);
}

/**
 * @param {HTMLCanvasElement} source
 * @returns {Promise<Blob>}
 */
export function toPng(source) {
  return new Promise((give) => source.toBlob(give, "image/png"));
}

/**
 * Draw numbers as bars, up and down from a middle line or, where none is negative, up from the bottom.
 * @param {HTMLCanvasElement} target as large as its place on the page; drawn in its CSS colour
 * @param {ArrayLike<number>} values
 * @param {number} reach the value of a bar of full length
 */
export function bars(target, values, reach = 3) {
  const isSigned = Array.from(values).some((value) => value < 0);
  const ratio = Math.ceil(globalThis.devicePixelRatio || 1);
  const [width, height] = [target.clientWidth * ratio || 120, target.clientHeight * ratio || 36];
  const context = target.getContext("2d");
  if (target.width !== width || target.height !== height) Object.assign(target, { width, height });
  context.clearRect(0, 0, width, height);
  context.fillStyle = getComputedStyle(target).color;
  const step = width / values.length;
  const [zero, full] = isSigned ? [height / 2, height / 2] : [height, height];
  for (let index = 0; index < values.length; index++) {
    const length = Math.max(-1, Math.min(1, values[index] / reach)) * full;
    context.fillRect(index * step, zero - Math.max(length, 0), Math.max(1, step * 0.75), Math.abs(length) || 1);
  }
}

/** @returns {boolean} whether the visitor asked for little motion */
export const isStill = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Lines of icons in a square of 24. */
const ICONS = {
  random: "M4 7h3l10 10h3m-3-3 3 3-3 3M4 17h3l3-3m4-4 3-3h3m-3-3 3 3-3 3",
  undo: "M9 6 4 11l5 5M4 11h10a6 6 0 0 1 0 12",
  redo: "m15 6 5 5-5 5m5-5H10a6 6 0 0 0 0 12",
  reset: "M5 4v5h5M5.5 9A8 8 0 1 1 4 14",
  link: "M10 14a4 4 0 0 0 6 0l3-3a4 4 0 0 0-6-6l-1 1m2 4a4 4 0 0 0-6 0l-3 3a4 4 0 0 0 6 6l1-1",
  save: "M12 4v11m-5-5 5 5 5-5M5 20h14",
  die: "M5 4h14a1 1 0 0 1 1 1v14a1 1 0 0 1-1 1H5a1 1 0 0 1-1-1V5a1 1 0 0 1 1-1ZM8.5 8.5h.01M15.5 8.5h.01M12 12h.01M8.5 15.5h.01M15.5 15.5h.01",
  upload: "M12 16V5m-5 5 5-5 5 5M5 20h14",
  play: "M7 5v14l12-7Z",
  pause: "M8 5v14M16 5v14",
};
const SVG = "http://www.w3.org/2000/svg";

/**
 * @param {keyof typeof ICONS} name
 * @returns {SVGElement} for the eye only
 */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("icon");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/**
 * @param {HTMLElement} panel of a tab
 * @param {() => void} action when the visitor leaves it
 */
export function onLeave(panel, action) {
  new MutationObserver(() => panel.hidden && action()).observe(panel, { attributeFilter: ["hidden"] });
}
