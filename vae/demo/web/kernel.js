/**
 * The one hot loop of the decoder, in WebAssembly with SIMD instructions: seven times as fast as the same in JavaScript.
 *
 * It is written below as text, in the stack machine's own words, and assembled when the page loads.
 */

export const PIXELS = 4; // of one tile
export const LANES = 8; // output channels of one tile: two vectors of four numbers

const BYTES = 4; // of a float32
const PAGE = 65_536; // bytes

/**
 * The bytes of each instruction that the loop needs (https://webassembly.github.io/spec/core/appendix/index-instructions.html).
 * @type {Record<string, number[]>}
 */
const OPCODES = {
  loop: [0x03, 0x40],
  end: [0x0b],
  br_if: [0x0d],
  "local.get": [0x20],
  "local.set": [0x21],
  "local.tee": [0x22],
  "i32.const": [0x41],
  "i32.add": [0x6a],
  "i32.sub": [0x6b],
  "v128.load": [0xfd, 0x00, 0x00], // the last 0: no alignment is promised
  "v128.load32_splat": [0xfd, 0x09, 0x00],
  "v128.store": [0xfd, 0x0b, 0x00],
  "f32x4.add": [0xfd, 0xe4, 0x01],
  "f32x4.mul": [0xfd, 0xe6, 0x01],
};

const PARAMETERS = ["x0", "x1", "x2", "x3", "weights", "rows", "length", "skip", "out"]; // addresses and counts, i32
const COUNTER = "k"; // i32
const VECTORS = ["w0", "w1", "x", ...[0, 1, 2, 3].flatMap((pixel) => [`sum${pixel}0`, `sum${pixel}1`])]; // v128
const LOCALS = [...PARAMETERS, COUNTER, ...VECTORS];

/**
 * Four pixels times eight channels: sum[pixel][channel] = Σ_k x[pixel][k] · weights[k][channel], where k runs over
 * `rows` times `length` numbers, and `skip` bytes lie between two rows of x.
 */
const TILE = `
  loop
    local.get $length  local.set $k
    loop
      local.get $weights  v128.load 0   local.set $w0
      local.get $weights  v128.load 16  local.set $w1
      local.get $weights  i32.const 32  i32.add  local.set $weights
      ${[0, 1, 2, 3].map(multiplyAdd).join("")}
      local.get $k  i32.const 1  i32.sub  local.tee $k  br_if 0
    end
    ${[0, 1, 2, 3].map((pixel) => `local.get $x${pixel}  local.get $skip  i32.add  local.set $x${pixel}`).join("\n")}
    local.get $rows  i32.const 1  i32.sub  local.tee $rows  br_if 0
  end
  ${[0, 1, 2, 3].map(store).join("")}
end`;

/** @param {number} pixel */
function multiplyAdd(pixel) {
  return `
      local.get $x${pixel}  v128.load32_splat 0  local.set $x
      local.get $x${pixel}  i32.const 4  i32.add  local.set $x${pixel}
      local.get $x  local.get $w0  f32x4.mul  local.get $sum${pixel}0  f32x4.add  local.set $sum${pixel}0
      local.get $x  local.get $w1  f32x4.mul  local.get $sum${pixel}1  f32x4.add  local.set $sum${pixel}1`;
}

/** @param {number} pixel */
function store(pixel) {
  return `
  local.get $out  local.get $sum${pixel}0  v128.store ${32 * pixel}
  local.get $out  local.get $sum${pixel}1  v128.store ${32 * pixel + 16}`;
}

/**
 * @param {string} text instructions, names of locals after a $, and whole numbers
 * @returns {number[]} their bytes
 */
function assemble(text) {
  return text
    .trim()
    .split(/\s+/)
    .flatMap((word) => {
      if (word.startsWith("$")) return [LOCALS.indexOf(word.slice(1))];
      return OPCODES[word] ?? [Number(word)]; // every number here fits one byte
    });
}

/**
 * @param {number} value
 * @returns {number[]} its bytes, seven bits in each (LEB128)
 */
function leb128(value) {
  return value < 128 ? [value] : [(value & 127) | 128, ...leb128(value >> 7)];
}

/** @param {number[]} bytes */
const sized = (bytes) => [...leb128(bytes.length), ...bytes];

/** @param {string} text */
const name = (text) => sized([...text].map((letter) => letter.charCodeAt(0)));

/** @returns {Uint8Array<ArrayBuffer>} a module that imports `js.memory` and exports `tile` */
function moduleBytes() {
  const I32 = 0x7f;
  const V128 = 0x7b;
  const locals = [2, 1, I32, VECTORS.length, V128]; // two kinds of them, and how many of each
  /** @type {[number, number[]][]} */
  const sections = [
    [1, [1, 0x60, ...sized(PARAMETERS.map(() => I32)), 0]], // one type of function, which returns nothing
    [2, [1, ...name("js"), ...name("memory"), 2, 0, 0]], // imports a memory
    [3, [1, 0]], // one function, of that type
    [7, [1, ...name("tile"), 0, 0]], // exports it
    [10, [1, ...sized([...locals, ...assemble(TILE)])]], // its code
  ];
  const header = [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]; // "\0asm", version 1
  return new Uint8Array([...header, ...sections.flatMap(([id, content]) => [id, ...sized(content)])]);
}

/** Memory that JavaScript and the loop share, handed out in pieces, and the loop itself. */
export class Kernel {
  #used = 0; // numbers

  /** @param {number} capacity of the memory, in numbers */
  constructor(capacity) {
    this.memory = new WebAssembly.Memory({ initial: Math.ceil((BYTES * capacity) / PAGE) });
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(moduleBytes()), {
      js: { memory: this.memory },
    });
    this.tile = /** @type {(...values: number[]) => void} see PARAMETERS */ (exports.tile);
  }

  /**
   * @param {number} length in numbers
   * @returns {Float32Array} a piece of the memory, zeros at first
   */
  take(length) {
    const piece = new Float32Array(this.memory.buffer, BYTES * this.#used, length);
    this.#used += length;
    return piece;
  }
}
