/** What only the server knows, or does where the browser can't: endpoints of vae/demo, by their names. */

const API = new URL("../gradio_api/", import.meta.url);

/** @typedef {{path: string}} ServerFile */

/**
 * @param {URL | string} url
 * @param {RequestInit} [options]
 * @returns {Promise<Response>}
 */
async function ask(url, options) {
  try {
    return await fetch(url, options);
  } catch {
    throw new Error("The server can't be reached: check the connection, and try again.");
  }
}

/**
 * @param {Response} response
 * @returns {Promise<any>}
 */
async function read(response) {
  const answer = await response.json().catch(() => ({}));
  if (!response.ok)
    throw new Error(answer.error ?? answer.detail ?? `The server returned an error (${response.status}).`);
  return answer;
}

/**
 * @param {string} endpoint
 * @param {unknown[]} data
 * @returns {Promise<any[]>} its outputs
 */
export async function call(endpoint, data) {
  const response = await ask(new URL(`run/${endpoint}`, API), {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ data }),
  });
  return (await read(response)).data;
}

/**
 * @param {Blob} file
 * @returns {Promise<string>} its path on the server, for endpoints
 */
export async function upload(file) {
  const body = new FormData();
  body.append("files", file, file instanceof File ? file.name : "picture.png");
  const [path] = await read(await ask(new URL("upload", API), { method: "POST", body }));
  return path;
}

/**
 * @param {string | ServerFile} file as an endpoint gave it
 * @returns {string} its address
 */
export function address(file) {
  return new URL(`file=${typeof file === "string" ? file : file.path}`, API).href;
}

/**
 * @param {string | ServerFile} file
 * @returns {Promise<Blob>}
 */
export async function download(file) {
  const response = await ask(address(file));
  if (!response.ok) throw new Error(`The file could not be loaded (${response.status}).`);
  return response.blob();
}
