/**
 * Walks from one latent vector to another, as in vae/latent.py.
 *
 * The vectors themselves come from the server: what a seed stands for is torch's generator and the model's prior, which
 * live there.
 */

const PARALLEL = 1e-4; // radians: closer to 0 or π than this, two directions span no plane to turn in

/**
 * Walk straight from a to b.
 * @param {Float32Array} a (latent_dim)
 * @param {Float32Array} b (latent_dim)
 * @param {number} t from 0, exactly a, to 1, exactly b
 * @returns {Float32Array} (latent_dim)
 */
export function lerp(a, b, t) {
  return a.map((start, index) => (1 - t) * start + t * b[index]);
}

/**
 * Turn from a to b at a steady angle while the length changes evenly.
 *
 * In many dimensions nearly all of N(0, I) lies in a thin shell around the origin, which a straight line cuts short and
 * this one follows. Where a and b lie on one line through the origin, the walk is straight.
 * @param {Float32Array} a (latent_dim)
 * @param {Float32Array} b (latent_dim)
 * @param {number} t from 0, exactly a, to 1, exactly b
 * @returns {Float32Array} (latent_dim)
 */
export function slerp(a, b, t) {
  const [lengthA, lengthB] = [Math.hypot(...a), Math.hypot(...b)];
  const u = Float64Array.from(a, (value) => value / lengthA);
  const v = Float64Array.from(b, (value) => value / lengthB);
  const difference = u.map((value, index) => value - v[index]);
  const sum = u.map((value, index) => value + v[index]);
  const angle = 2 * Math.atan2(Math.hypot(...difference), Math.hypot(...sum));
  const turns = angle > PARALLEL && angle < Math.PI - PARALLEL; // not where a or b is zero, and the angle not a number
  if (!turns || t === 0 || t === 1) return lerp(a, b, t);
  const scale = ((1 - t) * lengthA + t * lengthB) / Math.sin(angle);
  const [shareA, shareB] = [Math.sin((1 - t) * angle), Math.sin(t * angle)];
  return a.map((_, index) => scale * (shareA * u[index] + shareB * v[index]));
}
