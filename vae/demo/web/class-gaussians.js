/** One attribute: a Gaussian for the pictures of each class, and optimal transport from one class to another. */

import { AttributeModel } from "./attributes.js";

const ORTHOGONAL = 1e-9; // cosine between two vectors that count as orthogonal
const MAX_SWEEPS = 30; // over all pairs of vectors; ten are many

/** @typedef {Float64Array[]} Matrix its rows */

export class ClassGaussians extends AttributeModel {
  /** @type {Map<string, Matrix>} */
  #transports = new Map();

  /**
   * @param {Map<string, string[]>} attributes of which there is one
   * @param {Float32Array} means (values, latent_dim)
   * @param {Float32Array} scaleTril (values, latent_dim · (latent_dim + 1) / 2): the rows of the lower triangles of the
   *     Cholesky factors of the covariances
   */
  constructor(attributes, means, scaleTril) {
    super(attributes);
    this.means = split(means, this.sizes[0]);
    this.scaleTril = split(scaleTril, this.sizes[0]);
  }

  /**
   * @override
   * @param {Float32Array} z
   * @param {number[]} old a class, not between two
   * @param {number[]} goal
   */
  shift(z, [old], [goal]) {
    const [low, high] = [Math.floor(goal), Math.ceil(goal)];
    const first = this.#shiftToClass(z, old, low);
    const second = this.#shiftToClass(z, old, high);
    return first.map((value, index) => value + (goal - low) * (second[index] - value));
  }

  /**
   * @param {Float32Array} z
   * @param {number} a class of z
   * @param {number} b
   * @returns {Float64Array} what brings z to that place in class b which it has in class a
   */
  #shiftToClass(z, a, b) {
    if (a === b) return new Float64Array(z.length);
    const rest = Float64Array.from(z, (value, index) => value - this.means[a][index]);
    const moved = Float64Array.from(z, (value, index) => this.means[b][index] - value);
    for (const row of this.transport(a, b)) {
      const share = dot(row, rest);
      for (let index = 0; index < moved.length; index++) moved[index] += share * row[index];
    }
    return moved;
  }

  /**
   * Return H, where HᵀH is the matrix A of the map z -> means[b] + A (z - means[a]) from class a to class b.
   *
   * With Σa = L Lᵀ and Σb = T Tᵀ, A = L^-ᵀ (Lᵀ Σb L)^½ L^-1. Where U S Vᵀ is the singular value decomposition of LᵀT,
   * that root is U S Uᵀ, and H = S^½ Uᵀ L^-1. It is computed once for each pair of classes: in 64 dimensions that takes
   * some 20 ms, in 512 many seconds.
   * @param {number} a
   * @param {number} b
   * @returns {Matrix}
   */
  transport(a, b) {
    const key = `${a} ${b}`;
    if (!this.#transports.has(key)) {
      const [factor, target] = [triangle(this.scaleTril[a]), triangle(this.scaleTril[b])];
      const product = transposedProduct(factor, target);
      const half = inverse(factor);
      decompose(product, half);
      for (const [row, values] of half.entries()) {
        const root = Math.sqrt(Math.sqrt(dot(product[row], product[row])));
        half[row] = values.map((value) => root * value);
      }
      this.#transports.set(key, half);
    }
    return this.#transports.get(key);
  }
}

/**
 * @param {Float32Array} array
 * @param {number} count
 * @returns {Float32Array[]} so many equal parts
 */
function split(array, count) {
  const length = array.length / count;
  return Array.from({ length: count }, (_, part) => array.subarray(part * length, (part + 1) * length));
}

/**
 * @param {Float32Array} packed the rows of a lower triangle
 * @returns {Matrix}
 */
function triangle(packed) {
  const size = Math.floor(Math.sqrt(2 * packed.length)); // size · (size + 1) / 2 numbers
  return Array.from({ length: size }, (_, row) => {
    const values = new Float64Array(size);
    values.set(packed.subarray((row * (row + 1)) / 2, ((row + 1) * (row + 2)) / 2));
    return values;
  });
}

/**
 * @param {Matrix} a
 * @param {Matrix} b
 * @returns {Matrix} aᵀb
 */
function transposedProduct(a, b) {
  const product = a.map(() => new Float64Array(a.length));
  for (const [k, row] of a.entries()) {
    for (const [i, value] of row.entries()) {
      for (let j = 0; j < row.length; j++) product[i][j] += value * b[k][j];
    }
  }
  return product;
}

/**
 * @param {Matrix} lower a lower triangle
 * @returns {Matrix} its inverse
 */
function inverse(lower) {
  const result = lower.map(() => new Float64Array(lower.length));
  for (const [row, values] of lower.entries()) {
    result[row][row] = 1;
    for (let k = 0; k < row; k++) {
      for (let column = 0; column <= k; column++) result[row][column] -= values[k] * result[k][column];
    }
    for (let column = 0; column <= row; column++) result[row][column] /= values[row];
  }
  return result;
}

/**
 * Turn the rows of a matrix U S Vᵀ into those of S Vᵀ, and the rows of another, X, into those of UᵀX.
 *
 * Two rows at a time are turned until they are orthogonal, over and over (one-sided Jacobi method).
 * @param {Matrix} matrix
 * @param {Matrix} other
 */
function decompose(matrix, other) {
  for (let sweep = 0, turned = true; turned && sweep < MAX_SWEEPS; sweep++) {
    turned = false;
    const squares = matrix.map((row) => dot(row, row));
    for (let i = 0; i < matrix.length; i++) {
      for (let j = i + 1; j < matrix.length; j++) {
        const product = dot(matrix[i], matrix[j]);
        if (Math.abs(product) <= ORTHOGONAL * Math.sqrt(squares[i] * squares[j])) continue;
        const slope = (squares[j] - squares[i]) / (2 * product);
        const tangent = (slope < 0 ? -1 : 1) / (Math.abs(slope) + Math.sqrt(1 + slope * slope));
        turn(matrix[i], matrix[j], tangent);
        turn(other[i], other[j], tangent);
        squares[i] -= tangent * product;
        squares[j] += tangent * product;
        turned = true;
      }
    }
  }
}

/**
 * Turn two vectors in their plane, in place.
 * @param {Float64Array} x
 * @param {Float64Array} y
 * @param {number} tangent of the angle
 */
function turn(x, y, tangent) {
  const cosine = 1 / Math.sqrt(1 + tangent * tangent);
  const sine = tangent * cosine;
  for (let index = 0; index < x.length; index++) {
    const before = x[index];
    x[index] = cosine * before - sine * y[index];
    y[index] = sine * before + cosine * y[index];
  }
}

/**
 * @param {Float64Array} x
 * @param {Float64Array} y
 */
function dot(x, y) {
  let sum = 0;
  for (let index = 0; index < x.length; index++) sum += x[index] * y[index];
  return sum;
}
