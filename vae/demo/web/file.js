/** Reads what vae/demo/export.py wrote: a file in the safetensors format, whose large matrices are of 16-bit numbers. */

/**
 * @typedef {object} Config
 * @property {number} image_size pixels a side
 * @property {number} channels 1 (grey) or 3 (RGB)
 * @property {number} latent_dim
 * @property {number} patch pixels a side that the decoder's head makes of one
 * @property {string} attribution a stranger's text: show it as text only
 */

/**
 * @typedef {object} Layer
 * @property {"linear" | "block" | "up" | "conv" | "head" | "patches"} kind
 * @property {string} name prefix of its tensors
 * @property {number} size of the input, pixels a side
 * @property {number} inputs channels
 * @property {number} outputs channels for each pixel of the input
 */

/**
 * @typedef {object} Description
 * @property {Config} config
 * @property {Layer[]} layers
 * @property {{kind: string, attributes: [string, string[]][], groups: number[][]} | null} directions
 */

/** @typedef {Map<string, Float32Array>} Tensors */

const INTEGERS = "I16"; // the type of large matrices; all else is F32
export const STEP = ".step"; // after the name of such a matrix: what 1 stands for in each of its rows

/**
 * @param {ArrayBuffer} file
 * @returns {Description & {tensors: Tensors}}
 */
export function readModelFile(file) {
  const headerLength = Number(new DataView(file).getBigUint64(0, true));
  const start = 8 + headerLength;
  const text = new TextDecoder().decode(new Uint8Array(file, 8, headerLength));
  const { __metadata__: metadata, ...table } = JSON.parse(text);
  const bytes = (/** @type {string} */ name) => {
    const [from, to] = table[name].data_offsets;
    return file.slice(start + from, start + to);
  };
  /** @type {Tensors} */
  const tensors = new Map();
  for (const [name, { dtype }] of Object.entries(table)) {
    const steps = () => new Float32Array(bytes(name + STEP));
    tensors.set(
      name,
      dtype === INTEGERS ? multiplyRows(new Int16Array(bytes(name)), steps()) : new Float32Array(bytes(name)),
    );
  }
  return { ...JSON.parse(metadata.description), tensors };
}

/**
 * @param {Int16Array} matrix (rows, columns)
 * @param {Float32Array} steps (rows)
 * @returns {Float32Array} each row times its step
 */
function multiplyRows(matrix, steps) {
  const columns = matrix.length / steps.length;
  const product = new Float32Array(matrix.length);
  for (const [row, step] of steps.entries()) {
    const end = (row + 1) * columns;
    for (let index = row * columns; index < end; index++) product[index] = step * matrix[index];
  }
  return product;
}
