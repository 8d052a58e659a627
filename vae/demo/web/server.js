/** What only the server knows, or does where the browser can't: endpoints of vae/demo/explore.py, by their names. */

/** @typedef {import("./state.js").Point} Point */

const API = new URL("../gradio_api/", import.meta.url);

/**
 * @param {string} endpoint
 * @param {unknown[]} data
 * @returns {Promise<any>} what it returns
 */
async function call(endpoint, data) {
  const response = await fetch(new URL(`run/${endpoint}`, API), {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ data }),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error ?? answer.detail ?? "The server does not answer.");
  return answer.data[0];
}

/**
 * @param {string} model
 * @param {{seed?: number, picture?: string | null, z?: number[] | null}} begin a seed, a picture's path, or a latent vector
 * @returns {Promise<Point>}
 */
export function findPoint(model, { seed = 0, picture = null, z = null }) {
  return call("point", [model, picture && { path: picture }, seed, z && { z }]);
}

/**
 * @param {string} model
 * @param {number[]} z
 * @param {Map<string, number>} positions
 * @returns {Promise<ImageBitmap>}
 */
export async function drawPoint(model, z, positions) {
  const { path } = await call("draw_point", [model, { z, positions: Object.fromEntries(positions) }]);
  const response = await fetch(new URL(`file=${path}`, API));
  if (!response.ok) throw new Error(`The picture can't be had: ${response.status}.`);
  return createImageBitmap(await response.blob());
}
