/**
 * The decoder of vae/model.py, in the browser: a latent vector becomes a picture.
 *
 * All layers are products of weights with the neighbourhood of each pixel (of 1x1 or 3x3), which kernel.js computes, and
 * what stands between them. Batch normalisations are a factor and a number to add for each channel. Arrays lie row by
 * row, channels last: (height, width, channels).
 */

import { readModelFile, STEP } from "./file.js";
import { Kernel, LANES, PIXELS } from "./kernel.js";

const BYTES = 4; // of a float32
const RGBA = 4; // channels of a canvas

/** @typedef {import("./file.js").Layer} Layer */

export class Decoder {
  /** @param {ArrayBuffer} file what `decoder_bytes` of vae/demo/export.py wrote */
  constructor(file) {
    const { config, layers, tensors } = readModelFile(file);
    this.config = config;
    this.layers = layers;
    this.tensors = tensors;
    const names = [...tensors.keys()].filter((name) => name.endsWith(".weight"));
    const weights = names.map((name) => pack(tensors.get(name), tensors.get(name + STEP).length));
    const inputLength = Math.max(...layers.map((layer) => (layer.size + 2) ** 2 * layer.inputs));
    const numbers = weights.reduce((sum, packed) => sum + packed.length, inputLength + PIXELS * LANES);
    this.kernel = new Kernel(numbers);
    this.input = this.kernel.take(inputLength);
    this.sums = this.kernel.take(PIXELS * LANES);
    for (const [index, name] of names.entries()) {
      const shared = this.kernel.take(weights[index].length);
      shared.set(weights[index]);
      tensors.set(name, shared);
    }
  }

  /**
   * @param {Float32Array} z latent vector, (latent_dim)
   * @returns {Float32Array} the picture in [0, 1], (image_size, image_size, channels)
   */
  decode(z) {
    if (z.length !== this.config.latent_dim) {
      throw new RangeError(`expected ${this.config.latent_dim} latents, got ${z.length}`);
    }
    return this.layers.reduce((x, layer) => this[layer.kind](x, layer), z).map(sigmoid);
  }

  /**
   * @param {Float32Array} z
   * @param {Layer} layer
   */
  linear(z, layer) {
    this.input.set(z);
    return this.#multiply(layer.name, layer, 0, this.#biases(layer));
  }

  /**
   * @param {Float32Array} x
   * @param {Layer} layer
   */
  block(x, layer) {
    this.#activate(x, `${layer.name}.1`, layer);
    const hidden = this.#multiply(`${layer.name}.1`, layer, 1, new Float32Array(x.length));
    this.#activate(hidden, `${layer.name}.2`, layer);
    return this.#multiply(`${layer.name}.2`, layer, 1, x);
  }

  /**
   * @param {Float32Array} x
   * @param {Layer} layer
   */
  up(x, layer) {
    this.input.set(x);
    return pixelShuffle(this.#multiply(layer.name, layer, 0, this.#biases(layer)), layer.size, 2);
  }

  /**
   * @param {Float32Array} x
   * @param {Layer} layer
   */
  conv(x, layer) {
    this.#activate(x, layer.name, layer);
    return this.#multiply(layer.name, layer, 1, this.#biases(layer));
  }

  /**
   * The head of small patches: one convolution.
   * @param {Float32Array} x
   * @param {Layer} layer
   */
  head(x, layer) {
    return pixelShuffle(this.conv(x, layer), layer.size, this.config.patch);
  }

  /**
   * The end of the head of large patches, after a convolution.
   * @param {Float32Array} x
   * @param {Layer} layer
   */
  patches(x, layer) {
    this.input.set(x.map(silu));
    return pixelShuffle(this.#multiply(layer.name, layer, 0, this.#biases(layer)), layer.size, this.config.patch);
  }

  /**
   * @param {Layer} layer
   * @returns {Float32Array} its biases for each pixel, (size, size, outputs)
   */
  #biases({ name, size, outputs }) {
    const bias = this.tensors.get(`${name}.bias`);
    const x = new Float32Array(size ** 2 * outputs);
    for (let start = 0; start < x.length; start += outputs) x.set(bias, start);
    return x;
  }

  /**
   * Write silu(scale · x + shift) to the input of the kernel, with a border of zeros, one pixel wide.
   * @param {Float32Array} x (size, size, inputs)
   * @param {string} name of the normalisation
   * @param {Layer} layer
   */
  #activate(x, name, { size, inputs }) {
    const scale = this.tensors.get(`${name}.scale`);
    const shift = this.tensors.get(`${name}.shift`);
    this.input.fill(0, 0, (size + 2) ** 2 * inputs);
    for (let row = 0, from = 0; row < size; row++) {
      let to = ((row + 1) * (size + 2) + 1) * inputs;
      for (let column = 0; column < size; column++) {
        for (let channel = 0; channel < inputs; channel++) {
          this.input[to++] = silu(scale[channel] * x[from++] + shift[channel]);
        }
      }
    }
  }

  /**
   * Add to `out` the products of weights with the neighbourhood of each pixel in the input of the kernel.
   * @param {string} name of the weights
   * @param {Layer} layer
   * @param {number} border around the input in pixels, 1 for neighbourhoods of 3x3 and 0 for 1x1
   * @param {Float32Array} out (size, size, outputs)
   * @returns {Float32Array} out
   */
  #multiply(name, { size, inputs, outputs }, border, out) {
    const rows = 2 * border + 1;
    const length = rows * inputs;
    const stride = (size + 2 * border) * inputs; // from one row of the input to the next
    const skip = BYTES * (stride - length);
    const weights = this.tensors.get(`${name}.weight`).byteOffset;
    const pixels = size ** 2;
    const address = (/** @type {number} */ pixel) => {
      const inside = Math.min(pixel, pixels - 1); // the last tile repeats the last pixel
      return this.input.byteOffset + BYTES * (Math.floor(inside / size) * stride + (inside % size) * inputs);
    };
    for (let channel = 0; channel < outputs; channel += LANES) {
      const own = weights + BYTES * rows * length * channel;
      for (let pixel = 0; pixel < pixels; pixel += PIXELS) {
        const [x0, x1, x2, x3] = [address(pixel), address(pixel + 1), address(pixel + 2), address(pixel + 3)];
        this.kernel.tile(x0, x1, x2, x3, own, rows, length, skip, this.sums.byteOffset);
        this.#addTile(out, pixel, channel, pixels, outputs);
      }
    }
    return out;
  }

  /**
   * @param {Float32Array} out (pixels, outputs)
   * @param {number} pixel the first of the tile
   * @param {number} channel the first of the tile
   * @param {number} pixels
   * @param {number} outputs
   */
  #addTile(out, pixel, channel, pixels, outputs) {
    const height = Math.min(PIXELS, pixels - pixel);
    const width = Math.min(LANES, outputs - channel);
    for (let row = 0; row < height; row++) {
      const start = (pixel + row) * outputs + channel;
      for (let column = 0; column < width; column++) out[start + column] += this.sums[LANES * row + column];
    }
  }
}

/**
 * Lay a matrix out as the loop reads it, with zeros where the last tile has no outputs.
 * @param {Float32Array} matrix (outputs, length)
 * @param {number} outputs
 * @returns {Float32Array} (outputs / LANES, length, LANES)
 */
function pack(matrix, outputs) {
  const length = matrix.length / outputs;
  const packed = new Float32Array(Math.ceil(outputs / LANES) * length * LANES);
  for (let output = 0; output < outputs; output++) {
    const lane = output % LANES;
    const start = (output - lane) * length + lane;
    for (let k = 0; k < length; k++) packed[start + k * LANES] = matrix[output * length + k];
  }
  return packed;
}

/**
 * @param {Float32Array} picture in [0, 1], with one channel or three
 * @param {number} channels
 * @returns {Uint8ClampedArray<ArrayBuffer>} the nearest pixels of a canvas, RGBA
 */
export function toRgba(picture, channels) {
  const pixels = new Uint8ClampedArray((RGBA * picture.length) / channels).fill(255);
  for (let from = 0, to = 0; from < picture.length; from += channels, to += RGBA) {
    for (let colour = 0; colour < 3; colour++) pixels[to + colour] = 255 * picture[from + (colour % channels)];
  }
  return pixels;
}

/**
 * Spread the channels of each pixel over patch x patch pixels.
 * @param {Float32Array} x (size, size, patch · patch · channels)
 * @param {number} size
 * @param {number} patch
 * @returns {Float32Array} (size · patch, size · patch, channels)
 */
function pixelShuffle(x, size, patch) {
  const run = x.length / (size ** 2 * patch); // a row of a patch lies together before and after
  const shuffled = new Float32Array(x.length);
  for (let row = 0, from = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      for (let inner = 0; inner < patch; inner++, from += run) {
        shuffled.set(x.subarray(from, from + run), ((row * patch + inner) * size + column) * run);
      }
    }
  }
  return shuffled;
}

/** @param {number} x */
const sigmoid = (x) => 1 / (1 + Math.exp(-x));

/** @param {number} x */
const silu = (x) => x / (1 + Math.exp(-x));
