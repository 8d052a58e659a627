/** Edits of attributes, as `Directions` of vae/attributes.py makes them. */

/** @typedef {Map<string, string[]>} Attributes the names of the values of each attribute: strangers' texts */

/** Where in the latent space pictures lie whose attributes are known. What a picture shows, the server predicts. */
export class Directions {
  /**
   * @param {Attributes} attributes
   * @param {number[][]} groups the attributes, by their numbers, of each group that has an interplay
   * @param {Float32Array} mean (latent_dim)
   * @param {Float32Array} effects (values of all attributes, latent_dim)
   * @param {Float32Array} interplay (combinations of the values of all groups, latent_dim)
   */
  constructor(attributes, groups, mean, effects, interplay) {
    this.attributes = attributes;
    this.groups = groups;
    this.mean = mean;
    this.effects = effects;
    this.interplay = interplay;
  }

  /** @returns {number[]} how many values each attribute has */
  get sizes() {
    return [...this.attributes.values()].map((values) => values.length);
  }

  /**
   * Say where pictures lie whose sliders stand at positions.
   * @param {number[]} positions of all attributes: 0 at the first value, 1 at the second; between them all changes evenly
   * @returns {Float64Array} (latent_dim)
   */
  locate(positions) {
    const shares = this.sizes.map((size, index) => sharesAt(positions[index], size));
    const place = Float64Array.from(this.mean);
    addRows(place, this.effects, shares.flat());
    addRows(
      place,
      this.interplay,
      this.groups.flatMap((group) => group.map((index) => shares[index]).reduce(products)),
    );
    return place;
  }

  /**
   * Move a latent vector so that attributes come to other positions.
   * @param {Float32Array} z (latent_dim)
   * @param {Map<string, number>} to the attributes to turn, and where to
   * @param {number[]} since where all attributes stand before
   * @returns {Float32Array} (latent_dim)
   */
  edit(z, to, since) {
    const names = [...this.attributes.keys()];
    for (const name of to.keys()) {
      if (!names.includes(name)) throw new RangeError(`there is no attribute ${name}`);
    }
    const from = this.locate(since);
    const goal = this.locate(names.map((name, index) => to.get(name) ?? since[index]));
    return z.map((value, index) => value + goal[index] - from[index]);
  }
}

/**
 * @param {number} position
 * @param {number} size
 * @returns {number[]} the share of each value: one or two of them have any
 */
function sharesAt(position, size) {
  if (!(position >= 0 && position <= size - 1)) throw new RangeError(`expected 0 to ${size - 1}, got ${position}`);
  return Array.from({ length: size }, (_, value) => Math.max(0, 1 - Math.abs(position - value)));
}

/**
 * @param {number[]} first
 * @param {number[]} second
 * @returns {number[]} each of the first times each of the second
 */
function products(first, second) {
  return first.flatMap((a) => second.map((b) => a * b));
}

/**
 * Add the rows of a matrix, each times its share.
 * @param {Float64Array} sum (columns)
 * @param {Float32Array} matrix (rows, columns)
 * @param {number[]} shares (rows), most of them 0
 */
function addRows(sum, matrix, shares) {
  for (const [row, share] of shares.entries()) {
    if (share === 0) continue;
    for (let column = 0; column < sum.length; column++) sum[column] += share * matrix[row * sum.length + column];
  }
}
