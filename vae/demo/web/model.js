/** A model on the page: fetched once, it decodes in a worker, so that the page never waits for it. */

import { Directions } from "./attributes.js";
import { ClassGaussians } from "./class-gaussians.js";
import { readModelFile } from "./file.js";

/** @typedef {import("./attributes.js").AttributeModel} AttributeModel */
/** @typedef {{z: Float32Array, give: (picture: ImageData) => void, refuse: (error: Error) => void}} Task */

export class Model {
  #worker;
  /** @type {Task[]} */
  #tasks = []; // waiting for the worker
  /** @type {Task | null} */
  #running = null;
  /** @type {Task | null} */
  #newest = null; // to show, since the last frame
  /** @type {Task | null} */
  #shown = null; // to show, before all tasks
  /** @type {Error | null} */
  #failure = null; // after which there are no more pictures

  /**
   * Use `Model.load`.
   * @param {import("./file.js").Config} config
   * @param {AttributeModel | null} directions null if the training pictures had no labels
   * @param {Worker} worker
   */
  constructor(config, directions, worker) {
    this.config = config;
    this.directions = directions;
    this.#worker = worker;
    worker.onmessage = ({ data }) => this.#receive(data);
    worker.onerror = (event) => this.#fail(new Error(event.message || "the worker can't be started"));
  }

  /**
   * @param {string} url of what `decoder_bytes` of vae/demo/export.py wrote
   * @returns {Promise<Model>} which rejects where the file can't be had, or the browser lacks workers or SIMD
   */
  static async load(url) {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`${url} can't be had: ${response.status}`);
    const file = await response.arrayBuffer();
    const { config, directions, tensors } = readModelFile(file);
    const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    const model = new Model(config, readDirections(directions, tensors), worker);
    await model.#start(file);
    return model;
  }

  /**
   * Decode one vector after another; what is to be shown comes first.
   * @param {Float32Array} z (latent_dim)
   * @returns {Promise<ImageData>}
   */
  decode(z) {
    return new Promise((give, refuse) => {
      this.#tasks.push({ z: z.slice(), give, refuse });
      this.#next();
    });
  }

  /**
   * Decode for the eye: only the newest vector of each frame, and only if the worker comes round to it in time.
   * @param {Float32Array} z (latent_dim)
   * @param {(picture: ImageData) => void} draw
   * @param {(error: Error) => void} refuse
   */
  show(z, draw, refuse = console.error) {
    if (!this.#newest) requestAnimationFrame(() => this.#frame());
    this.#newest = { z: z.slice(), give: draw, refuse };
  }

  /** Stop the worker; whoever waits for a picture is told. */
  close() {
    this.#fail(new Error("the model was closed"));
  }

  /** @param {ArrayBuffer} file */
  #start(file) {
    return new Promise((give, refuse) => {
      this.#running = { z: null, give, refuse };
      this.#worker.postMessage(file, [file]);
    });
  }

  #frame() {
    this.#shown = this.#newest;
    this.#newest = null;
    this.#next();
  }

  #next() {
    if (this.#running) return;
    this.#running = this.#shown ?? this.#tasks.shift() ?? null;
    this.#shown = null;
    if (this.#running && this.#failure) this.#refuse(this.#failure);
    else if (this.#running) this.#worker.postMessage(this.#running.z);
  }

  /** @param {Uint8ClampedArray<ArrayBuffer> | null} pixels RGBA, or nothing when the worker is ready */
  #receive(pixels) {
    const size = this.config.image_size;
    this.#running.give(pixels && new ImageData(pixels, size, size));
    this.#running = null;
    this.#next();
  }

  /** @param {Error} error */
  #fail(error) {
    this.#failure = error;
    this.#worker.terminate();
    this.#refuse(error);
  }

  /** @param {Error} error */
  #refuse(error) {
    this.#running?.refuse(error);
    this.#running = null;
    this.#next();
  }
}

/**
 * @param {import("./file.js").Description["directions"]} description
 * @param {import("./file.js").Tensors} tensors
 * @returns {AttributeModel | null}
 */
function readDirections(description, tensors) {
  if (!description) return null;
  const attributes = new Map(description.attributes);
  const tensor = (/** @type {string} */ key) => tensors.get(`directions.${key}`);
  if (description.kind === "class-gaussians") {
    return new ClassGaussians(attributes, tensor("means"), tensor("scale_tril"));
  }
  return new Directions(attributes, description.groups, tensor("mean"), tensor("effects"), tensor("interplay"));
}
