/** The first seconds: the picture changes slowly by itself, until the visitor touches anything. */

import { isStill } from "./dom.js";
import { slerp } from "./latent.js";

const WAY_MS = 3500; // from one picture to the next
const SEEDS = [7, 23, 42, 5, 0]; // where it goes, and back to the beginning
const TOUCHES = ["pointerdown", "keydown", "wheel", "touchstart", "input", "hashchange"];

/** @param {import("./app.js").App} app */
export async function morph(app) {
  if (isStill() || !app.state.present) return;
  const begun = app.state.present;
  let isOver = false;
  const stop = () => {
    if (isOver) return;
    isOver = true;
    for (const touch of TOUCHES) removeEventListener(touch, stop, true);
    if (app.state.present === begun) app.show(null);
  };
  for (const touch of TOUCHES) addEventListener(touch, stop, { capture: true, passive: true });
  app.addEventListener("change", stop, { once: true });
  await app.decode(app.z).catch(console.warn); // until the decoder is there, or can't be had
  let from = app.z;
  for (const seed of SEEDS) {
    const { z } = await app.find({ seed }).catch(() => ({ z: null }));
    if (isOver || !z || !app.engine) return stop();
    const to = Float32Array.from(z);
    await walk(from, to);
    from = to;
  }
  stop();

  /**
   * @param {Float32Array} a
   * @param {Float32Array} b
   * @returns {Promise<void>}
   */
  function walk(a, b) {
    return new Promise((arrive) => {
      let start = 0;
      const frame = (/** @type {number} */ now) => {
        start ||= now;
        const t = Math.min(1, (now - start) / WAY_MS);
        if (isOver) return arrive();
        app.show(slerp(a, b, t * t * (3 - 2 * t)));
        return t < 1 ? requestAnimationFrame(frame) : arrive();
      };
      requestAnimationFrame(frame);
    });
  }
}
