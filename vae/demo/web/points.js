/** Points on a map, as the server sends them, and the latent vectors that belong to places between them. */

/**
 * What `describe_map` of vae/demo/map.py tells.
 * @typedef {object} Chart
 * @property {boolean} has_pictures whether each point is a test picture; else it is drawn from the prior
 * @property {string} points (N, 2) float32 in base64, within [-1, 1] unless the latent space has two dimensions
 * @property {string} latents (N, D) int8, to be multiplied by `step`
 * @property {number[]} step (D)
 * @property {string} labels (N, attributes) int16: numbers of values
 * @property {[string, string[]][]} attributes with their values
 */

const NEIGHBOURS = 8; // that a place between points takes its latent vector from
const CLOSE = 1e-6; // squared: at a point itself

/**
 * @param {string} text base64
 * @returns {ArrayBuffer}
 */
export function unpack(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
}

export class Points {
  /** @param {Chart} chart */
  constructor({ has_pictures, points, latents, step, labels, attributes }) {
    this.hasPictures = has_pictures;
    this.places = new Float32Array(unpack(points));
    this.count = this.places.length / 2;
    this.dimension = step.length;
    const whole = new Int8Array(unpack(latents));
    this.latents = Float32Array.from(whole, (value, index) => value * step[index % this.dimension]);
    this.labels = new Int16Array(unpack(labels));
    this.attributes = attributes;
  }

  /** @param {number} index @param {number} attribute @returns {number} the number of its value */
  label(index, attribute) {
    return this.labels[index * this.attributes.length + attribute];
  }

  /** @param {number} index @returns {Float32Array} its latent vector */
  latent(index) {
    return this.latents.subarray(index * this.dimension, (index + 1) * this.dimension);
  }

  /** @param {number} x @param {number} y @returns {number} the index of the nearest point */
  nearest(x, y) {
    return closest(this.places, [x, y], 1)[0].index;
  }

  /**
   * The latent vector of a place: a mean of those of the nearest points, the nearer the heavier, and exactly that of a
   * point at the point itself (Franke and Little's weights: no jump where one neighbour takes the place of another).
   * @param {number} x
   * @param {number} y
   * @returns {Float32Array}
   */
  latentAt(x, y) {
    return blend(closest(this.places, [x, y], NEIGHBOURS + 1), this.latents, this.dimension);
  }

  /**
   * @param {ArrayLike<number>} z
   * @returns {[number, number]} where a latent vector belongs: among the points whose latent vectors are near it
   */
  placeOf(z) {
    const [x, y] = blend(closest(this.latents, z, NEIGHBOURS + 1), this.places, 2);
    return [x, y];
  }
}

/**
 * @param {Float32Array} rows (N, length of `target`)
 * @param {ArrayLike<number>} target
 * @param {number} count
 * @returns {{index: number, squared: number}[]} the rows nearest to the target, the nearest first
 */
function closest(rows, target, count) {
  /** @type {{index: number, squared: number}[]} */
  const found = [];
  let worst = Number.POSITIVE_INFINITY;
  for (let index = 0, start = 0; start < rows.length; index++, start += target.length) {
    let squared = 0;
    for (let k = 0; k < target.length && squared < worst; k++) squared += (rows[start + k] - target[k]) ** 2;
    if (squared >= worst) continue;
    const place = found.findIndex((other) => other.squared > squared);
    found.splice(place < 0 ? found.length : place, 0, { index, squared });
    if (found.length > count) found.pop();
    if (found.length === count) worst = found[count - 1].squared;
  }
  return found;
}

/**
 * @param {{index: number, squared: number}[]} near the last of them counts nothing: it sets how far the others reach
 * @param {Float32Array} rows
 * @param {number} length of a row
 * @returns {Float32Array} their weighted mean
 */
function blend(near, rows, length) {
  const blended = new Float32Array(length);
  const reach = Math.sqrt(near[near.length - 1].squared);
  const inner = near[0].squared < CLOSE * reach ** 2 ? near.slice(0, 1) : near;
  const weights = inner.map(({ squared }) => {
    const distance = Math.max(Math.sqrt(squared), Number.MIN_VALUE);
    return inner.length === 1 ? 1 : ((reach - distance) / (reach * distance)) ** 2;
  });
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  for (const [which, { index }] of inner.entries()) {
    const share = total > 0 ? weights[which] / total : 1 / inner.length; // all equally far
    for (let k = 0; k < length; k++) blended[k] += share * rows[index * length + k];
  }
  return blended;
}
