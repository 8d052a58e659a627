/** What the page shows, what it showed before, and the link that leads back to it. */

/**
 * Where a picture begins, as the server tells it (vae/demo/explore.py): a latent vector, and what can be set.
 * @typedef {object} Point
 * @property {number[]} z (latent_dim)
 * @property {number} size pixels a side
 * @property {number[][]} axes (axes, latent_dim): those of the controls without values, in their order
 * @property {string | null} weights the name of the decoder's file, if the browser can have it
 * @property {Control[]} controls
 * @property {number[]} [mean] of a picture: what the encoder says of it, (latent_dim)
 * @property {number[]} [logvar] (latent_dim)
 * @property {string} [seen] the picture as the model sees it: the path of a file on the server
 */

/**
 * @typedef {object} Control
 * @property {string} name a stranger's text, like the values
 * @property {string[]} values of an attribute; an axis has none
 * @property {number} low
 * @property {number} high
 * @property {number} start where it stands for z
 * @property {boolean} ordered whether there is something between two values
 * @property {boolean[]} offered of each value, whether edits to it succeed
 */

/**
 * @typedef {object} Moment
 * @property {string} model
 * @property {number | null} seed null if it began with a picture or with numbers
 * @property {string | null} picture its path on the server, if it began with one
 * @property {Point} point
 * @property {Map<string, number>} positions of the controls that were set
 */

/**
 * @typedef {object} Link
 * @property {string} model
 * @property {number | null} seed
 * @property {number[] | null} z
 * @property {Map<string, number>} positions
 * @property {Map<string, string>} kept what tabs keep
 */

export const MAX_SEED = 2 ** 31 - 1;
const MAX_POSITIONS = 100; // in a link
const OWN = ["model", "seed", "z", "at"]; // parts of a link that are not a tab's

export class State extends EventTarget {
  /** @type {Moment[]} */
  #past = [];
  /** @type {Moment[]} */
  #future = [];
  /** @type {Moment | null} */
  present = null;

  get canUndo() {
    return this.#past.length > 0;
  }

  get canRedo() {
    return this.#future.length > 0;
  }

  /** @param {Moment} moment to show from now on; another model has a history of its own */
  go(moment) {
    if (this.present?.model === moment.model) this.#past.push(this.present);
    else this.#past = [];
    this.#future = [];
    this.#show(moment);
  }

  /** @param {Map<string, number>} positions */
  set(positions) {
    this.go({ ...this.present, positions });
  }

  undo() {
    if (!this.canUndo) return;
    this.#future.push(this.present);
    this.#show(this.#past.pop());
  }

  redo() {
    if (!this.canRedo) return;
    this.#past.push(this.present);
    this.#show(this.#future.pop());
  }

  /** @param {Moment} moment */
  #show(moment) {
    this.present = moment;
    this.dispatchEvent(new Event("change"));
  }
}

/**
 * @param {Moment} moment
 * @param {Map<string, string>} kept what tabs keep, by names of their own
 * @returns {string} what stands after the # of its address
 */
export function toFragment({ model, seed, point, positions }, kept = new Map()) {
  const parts = new URLSearchParams({ model });
  if (seed === null) parts.set("z", encode(point.z));
  else parts.set("seed", String(seed));
  if (positions.size > 0) parts.set("at", JSON.stringify([...positions]));
  for (const [name, text] of kept) parts.set(name, text);
  return parts.toString();
}

/**
 * @param {string} fragment as anybody may have written it
 * @returns {Link | null}
 */
export function readFragment(fragment) {
  const parts = new URLSearchParams(fragment);
  const model = parts.get("model");
  const [seed, z] = [parts.get("seed") ?? "", decode(parts.get("z") ?? "")];
  const isSeed = /^\d{1,10}$/.test(seed) && Number(seed) <= MAX_SEED;
  if (model === null || !(isSeed || z)) return null;
  const kept = new Map([...parts].filter(([name]) => !OWN.includes(name)));
  const positions = readPositions(parts.get("at"));
  return { model, seed: isSeed ? Number(seed) : null, z: isSeed ? null : z, positions, kept };
}

/**
 * @param {string | null} text
 * @returns {Map<string, number>} those that make sense
 */
function readPositions(text) {
  try {
    const pairs = JSON.parse(text ?? "[]");
    const isPair = (/** @type {unknown} */ pair) =>
      Array.isArray(pair) && typeof pair[0] === "string" && Number.isFinite(pair[1]);
    return new Map(pairs.slice(0, MAX_POSITIONS).filter(isPair));
  } catch {
    return new Map();
  }
}

/**
 * @param {Map<string, number>} positions
 * @param {Control[]} controls
 * @returns {Map<string, number>} those of the controls that there are, as far as they go, and between two values only where
 *     there is an order
 */
export function fit(positions, controls) {
  const fitted = new Map();
  for (const { name, low, high, values, ordered } of controls) {
    if (!positions.has(name)) continue;
    const position = Math.min(high, Math.max(low, positions.get(name)));
    fitted.set(name, values.length > 0 && !ordered ? Math.round(position) : position);
  }
  return fitted;
}

/**
 * @param {ArrayLike<number>} z
 * @returns {string} its numbers as float32, in base64 fit for addresses
 */
export function encode(z) {
  const bytes = new Uint8Array(Float32Array.from(z).buffer);
  return btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-")
    .replaceAll("/", "_");
}

/**
 * @param {string} text
 * @returns {number[] | null}
 */
export function decode(text) {
  try {
    const letters = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    const bytes = Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
    const z = [...new Float32Array(bytes.buffer)];
    return z.length > 0 && z.every(Number.isFinite) ? z : null;
  } catch {
    return null;
  }
}
