/** Asks for the first point and its decoder while the rest of the page is still on its way. */

import { Model } from "./model.js";
import { call } from "./server.js";
import { readFragment } from "./state.js";

/** @typedef {import("./state.js").Point} Point */

/** @type {HTMLMetaElement | null} */
const first = document.querySelector('meta[name="model"]'); // the model to begin with, see vae/demo/site.py
const link = readFragment(location.hash.slice(1));
document.documentElement.classList.toggle("linked", location.hash.length > 1);
const z = link?.z ? { z: link.z } : null;

/** What the endpoint is asked. */
export const question = [link?.model ?? first?.content ?? "", null, link?.seed ?? 0, z];

/** @type {Promise<[Point]> | null} the answer */
export const answer = question[0] ? /** @type {Promise<[Point]>} */ (call("point", question)) : null;

/** @type {Promise<{weights: string | null, engine: Model | null}>} the decoder, if the browser can have it */
export const decoder = Promise.resolve(answer).then(
  async (outputs) => {
    const weights = outputs?.[0].weights ?? null;
    return { weights, engine: weights ? await load(weights).catch(() => null) : null };
  },
  () => ({ weights: null, engine: null }), // who asks again is told
);

/**
 * @param {string} weights the name of a decoder's file
 * @returns {Promise<Model>}
 */
export function load(weights) {
  return Model.load(new URL(`decoders/${weights}`, import.meta.url).href);
}
