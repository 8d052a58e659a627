/** Edits of attributes, as vae/attributes makes them. What a picture shows before an edit, the server predicts. */

/**
 * A position is the number of a value, 0 for the first; fractions lie between two values.
 * @abstract
 */
export class AttributeModel {
  /** @param {Map<string, string[]>} attributes the names of the values of each attribute: strangers' texts */
  constructor(attributes) {
    this.attributes = attributes;
  }

  /** @returns {number[]} how many values each attribute has */
  get sizes() {
    return [...this.attributes.values()].map((values) => values.length);
  }

  /**
   * Move a latent vector so that attributes come to other positions.
   * @param {Float32Array} z (latent_dim)
   * @param {Map<string, number>} to the attributes to edit, and where to
   * @param {number[]} since the values of all attributes before
   * @returns {Float32Array} (latent_dim)
   */
  edit(z, to, since) {
    const names = [...this.attributes.keys()];
    for (const name of to.keys()) {
      if (!names.includes(name)) throw new RangeError(`there is no attribute ${name}`);
    }
    const goal = names.map((name, index) => to.get(name) ?? since[index]);
    for (const positions of [since, goal]) this.#check(positions);
    const shift = this.shift(z, since, goal);
    return z.map((value, index) => value + shift[index]);
  }

  /**
   * Return what an edit adds to a latent vector.
   * @abstract
   * @param {Float32Array} _z (latent_dim)
   * @param {number[]} _old positions of all attributes
   * @param {number[]} _new positions of all attributes
   * @returns {Float64Array} (latent_dim)
   */
  shift(_z, _old, _new) {
    throw new TypeError("shift is the kind's own");
  }

  /** @param {number[]} positions of all attributes */
  #check(positions) {
    for (const [index, size] of this.sizes.entries()) {
      const position = positions[index];
      if (!(position >= 0 && position <= size - 1)) throw new RangeError(`expected 0 to ${size - 1}, got ${position}`);
    }
  }
}

/** Several attributes: a linear model adds up what each value does to a latent vector, and what two or three do together. */
export class Directions extends AttributeModel {
  /**
   * @param {Map<string, string[]>} attributes
   * @param {number[][]} groups the attributes, by their numbers, of each group that has an interplay
   * @param {Float32Array} mean (latent_dim)
   * @param {Float32Array} effects (values of all attributes, latent_dim)
   * @param {Float32Array} interplay (combinations of the values of all groups, latent_dim)
   */
  constructor(attributes, groups, mean, effects, interplay) {
    super(attributes);
    this.groups = groups;
    this.mean = mean;
    this.effects = effects;
    this.interplay = interplay;
  }

  /**
   * Return the mean of latent vectors of pictures with these positions.
   * @param {number[]} positions of all attributes
   * @returns {Float64Array} (latent_dim)
   */
  locate(positions) {
    const shares = this.sizes.map((size, index) => sharesAt(positions[index], size));
    const together = this.groups.flatMap((group) => group.map((index) => shares[index]).reduce(products));
    const place = Float64Array.from(this.mean);
    addRows(place, this.effects, shares.flat());
    addRows(place, this.interplay, together);
    return place;
  }

  /**
   * @override
   * @param {Float32Array} _z
   * @param {number[]} old
   * @param {number[]} goal
   */
  shift(_z, old, goal) {
    const from = this.locate(old);
    return this.locate(goal).map((value, index) => value - from[index]);
  }
}

/**
 * @param {number} position
 * @param {number} size
 * @returns {number[]} the share of each value: one or two of them have any
 */
function sharesAt(position, size) {
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
