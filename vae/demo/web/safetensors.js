/** Reads files in the safetensors format, of float16 and float32 tensors. */

const HALF_BIAS = 2 ** 112; // what the exponent of a float16, put where a float32 has its own, lacks

/**
 * @typedef {object} Safetensors
 * @property {Record<string, string>} metadata
 * @property {Map<string, Float32Array>} tensors
 */

/**
 * @param {ArrayBuffer} file
 * @returns {Safetensors}
 */
export function readSafetensors(file) {
  const headerLength = Number(new DataView(file).getBigUint64(0, true));
  const start = 8 + headerLength;
  const text = new TextDecoder().decode(new Uint8Array(file, 8, headerLength));
  const { __metadata__: metadata, ...table } = JSON.parse(text);
  /** @type {Map<string, Float32Array>} */
  const tensors = new Map();
  for (const [name, { dtype, data_offsets }] of Object.entries(table)) {
    const [from, to] = data_offsets;
    const bytes = file.slice(start + from, start + to);
    tensors.set(name, dtype === "F16" ? fromFloat16(new Uint16Array(bytes)) : new Float32Array(bytes));
  }
  return { metadata, tensors };
}

/**
 * @param {Uint16Array} halves the bits of finite numbers
 * @returns {Float32Array} the same numbers
 */
function fromFloat16(halves) {
  const bits = new Uint32Array(halves);
  for (const [index, half] of halves.entries()) bits[index] = ((half & 0x8000) << 16) | ((half & 0x7fff) << 13);
  return new Float32Array(bits.buffer).map((value) => value * HALF_BIAS);
}
