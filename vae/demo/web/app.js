/** The one point that all tabs share: what model and picture, where it lies, and who draws it: the browser or the server. */

import * as early from "./early.js";
import * as server from "./server.js";
import { fit, readFragment, State, toFragment } from "./state.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./state.js").Point} Point */
/** @typedef {import("./state.js").Control} Control */
/** @typedef {{label: string, name: string}} ModelName */
/** @typedef {{seed?: number | null, picture?: string | null, z?: ArrayLike<number> | null}} Source one of them */
/** @typedef {{engine: Model | null, loading: Promise<void>}} Decoder the engine is null until it is there, if it can be had */
/** @typedef {{z: Float32Array, label?: string}} End of a walk */
/** @typedef {ImageData | ImageBitmap} Picture */

const RANDOM_SEEDS = 1_000_000;
const ADDRESS_MS = 400; // from one change of the address to the next: browsers refuse more than a hundred in half a minute

/** @param {Control} control */
export const isAttribute = (control) => control.values.length > 0;

/**
 * Events: "change" when the present moment is another one, "preview" when a control moves, "paint" with each picture for
 * the stage, "say" with a sentence for the status line, "refuse" when
 * something can't be begun with, "draw" when the browser or the server starts to draw.
 */
export class App extends EventTarget {
  state = new State();
  /** @type {Model | null} of the present moment, once it is there */
  engine = null;
  /** @type {string} the name of the model that is shown or on its way */
  model;
  /** @type {{a: End | null, b: End | null}} of Interpolate, that other tabs may set */
  ends = { a: null, b: null };
  /** @type {(tab: string) => void} set by page.js */
  open = () => {};
  isByServer = false;
  /** @type {Map<string, number>} where controls stand just now, also while one is dragged */
  positions = new Map();
  /** @type {Map<string | null, Decoder>} by the names of their files */
  #decoders = new Map();
  /** @type {Map<string, string>} what tabs keep in the link */
  #kept = new Map();
  #requested = 0; // counts what is begun with: only the newest counts
  #answered = 0; // the newest that the server has told of
  #drawn = 0; // counts the pictures that are asked for
  #painted = 0; // the newest of them that is to be seen
  /** @type {[Map<string, number> | null, Float32Array | null]} what was drawn last: positions, or a point */
  #shown = [null, null];
  previewed = 0; // counts where controls stood
  #addressed = Number.NEGATIVE_INFINITY; // when the address was changed last
  #timer = 0; // of its next change
  #isDrawing = false; // by the server
  /** @type {{z: ArrayLike<number>, positions: Map<string, number>} | null} */
  #awaited = null; // what it draws next
  /** @type {Float32Array | null} what the server told of the present moment: only it can edit there */
  #told = null;

  /** @param {ModelName[]} models */
  constructor(models) {
    super();
    this.models = models;
    this.model = models[0].name;
    this.state.addEventListener("change", () => this.#change());
    globalThis.addEventListener("pagehide", () => this.#timer && this.#writeAddress());
    globalThis.addEventListener("hashchange", () => {
      if (this.state.present && location.hash.slice(1) !== this.#fragment) location.reload();
    });
  }

  /** Begin with what the address names. */
  async start() {
    const link = readFragment(location.hash.slice(1));
    if (!link || !this.models.some(({ name }) => name === link.model)) return this.begin({ seed: 0 });
    this.#kept = link.kept;
    this.model = link.model;
    return this.begin(link, link.positions);
  }

  /** @returns {string} the address that leads here. A fragment alone would be that of gradio's base, without the query */
  get link() {
    return Object.assign(new URL(location.href), { hash: this.#fragment }).href;
  }

  /** @returns {string} what to call the present model */
  get label() {
    return this.models.find(({ name }) => name === this.model).label;
  }

  /** @returns {Float32Array} the latent vector of the present moment */
  get z() {
    return this.engine
      ? this.edit(this.state.present.positions)
      : (this.#told ?? Float32Array.from(this.state.present.point.z));
  }

  /**
   * Begin anew: a new entry of the history. What goes wrong is said. What is begun with later counts, also if it comes first.
   * @param {Source | Promise<Source>} promised
   * @param {Map<string, number>} positions of controls
   * @param {string} model
   */
  async begin(promised, positions = new Map(), model = this.model) {
    const request = ++this.#requested;
    this.say("");
    try {
      const source = await promised;
      const point = await this.find(source, model);
      if (request !== this.#requested) return;
      this.say("");
      const seed = source.picture || source.z ? null : (source.seed ?? 0);
      if (model !== this.state.present?.model && this.state.present) this.#forget();
      this.model = model;
      this.state.go({ model, seed, picture: source.picture ?? null, point, positions: fit(positions, point.controls) });
    } catch (error) {
      if (request !== this.#requested) return;
      this.say(error.message);
      this.dispatchEvent(new Event("refuse"));
    } finally {
      this.#answered = Math.max(this.#answered, request);
    }
  }

  /**
   * @param {Source} source
   * @param {string} model
   * @returns {Promise<Point>} where it lies
   */
  async find({ seed, picture, z }, model = this.model) {
    const given = z ? { z: [...asArray(z)] } : null;
    const question = [model, picture ? { path: picture } : null, seed ?? 0, given];
    const isEarly = JSON.stringify(question) === JSON.stringify(early.question);
    const [point] = await ((isEarly && (await early.answer?.catch(() => null))) || this.call("point", question));
    return point;
  }

  /**
   * @param {string} model
   * @returns {Promise<{picture: string, label: string}[]>} test pictures of its dataset, by their paths on the server
   */
  async examples(model) {
    return (await this.call("examples", [model]))[0].examples;
  }

  /** @param {string} model to show the same picture or seed with */
  choose(model) {
    const { seed = 0, picture = null } = this.state.present ?? {};
    return this.begin(picture ? { picture } : { seed: seed ?? 0 }, new Map(), model);
  }

  random() {
    return this.begin({ seed: Math.floor(Math.random() * RANDOM_SEEDS) });
  }

  /** Draw another point of the posterior of the present picture, z = μ + σ · ε. */
  roll() {
    const present = this.state.present;
    const { mean, logvar } = present.point;
    const z = mean.map((middle, index) => middle + Math.exp(logvar[index] / 2) * gaussian());
    this.state.go({ ...present, seed: null, point: { ...present.point, z } });
  }

  /**
   * @param {string} endpoint
   * @param {unknown[]} data
   * @returns {Promise<any[]>} its outputs
   */
  call(endpoint, data) {
    return server.call(endpoint, data);
  }

  /**
   * @param {Blob} file
   * @returns {Promise<string>} its path, for endpoints and `begin`
   */
  upload(file) {
    return server.upload(file);
  }

  /** @param {string} text for the status line */
  say(text) {
    this.dispatchEvent(new CustomEvent("say", { detail: text }));
  }

  /**
   * @param {string} name of what a tab keeps in the link
   * @returns {string | undefined}
   */
  kept(name) {
    return this.#kept.get(name);
  }

  /**
   * Keep something in the link.
   * @param {string} name
   * @param {string | null} text
   */
  keep(name, text) {
    if (text === null) this.#kept.delete(name);
    else this.#kept.set(name, text);
    if (this.state.present) this.#address();
  }

  /**
   * Decode for a tab.
   * @param {Float32Array} z
   * @returns {Promise<Picture>} by the server where the browser can't
   */
  async decode(z) {
    this.#check(z);
    await this.#decoders.get(this.state.present.point.weights)?.loading;
    if (this.engine) return this.engine.decode(z);
    return (await this.#ask(z, new Map())).picture;
  }

  /**
   * Show another point on the stage without a history entry.
   * @param {Float32Array | null} z null returns to the present moment
   */
  show(z) {
    if (z) this.#check(z);
    if (this.state.present) this.#draw(z === null ? this.state.present.positions : null, z);
  }

  /**
   * Show the present picture with other positions, while a control is dragged.
   * @param {Map<string, number>} positions
   */
  preview(positions) {
    this.#draw(positions);
  }

  /** @param {Map<string, number>} positions @returns {Float32Array} where they move the present point; takes the engine */
  edit(positions) {
    const { z, axes, controls } = this.state.present.point;
    const moved = Float32Array.from(z);
    const [attributes, along] = [controls.filter(isAttribute), controls.filter((control) => !isAttribute(control))];
    for (const [row, { name }] of along.entries()) {
      const share = positions.get(name) ?? 0;
      if (share !== 0) for (let index = 0; index < moved.length; index++) moved[index] += share * axes[row][index];
    }
    const to = new Map([...positions].filter(([name]) => attributes.some((control) => control.name === name)));
    if (to.size === 0) return moved;
    return this.engine.directions.edit(
      moved,
      to,
      attributes.map(({ start }) => start),
    );
  }

  /** Whether the stage shows what was begun with last, and the address says it. */
  get isSettled() {
    const hasDrawn = this.#painted === this.#drawn && this.#answered === this.#requested && this.#drawn > 0;
    return hasDrawn && (this.engine !== null || this.isByServer) && this.#timer === 0;
  }

  /** The worker has failed. */
  lose() {
    if (!this.engine) return;
    this.#decoders.get(this.state.present.point.weights).engine = null;
    this.engine = null;
    this.#fallBack();
    this.#draw(...this.#shown);
  }

  /** What tabs keep is of one model. */
  #forget() {
    this.ends = { a: null, b: null };
    this.#kept = new Map([...this.#kept].filter(([name]) => name === "tab"));
  }

  /** @param {Float32Array} z which a worker would fail at, and with it the model, if it were another model's */
  #check(z) {
    const { length } = this.state.present.point.z;
    if (z.length !== length) throw new RangeError(`expected ${length} latents, got ${z.length}`);
  }

  /** Let the address lead back to here, in a moment: more may change. */
  #address() {
    const wait = Math.max(0, this.#addressed + ADDRESS_MS - performance.now());
    this.#timer ||= setTimeout(() => this.#writeAddress(), wait);
  }

  #writeAddress() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#addressed = performance.now();
    history.replaceState(history.state, "", this.link);
  }

  get #fragment() {
    return toFragment(this.state.present, this.#kept);
  }

  /** Show the present moment. */
  async #change() {
    const { point } = this.state.present;
    this.#told = null;
    this.model = this.state.present.model;
    this.#address();
    const decoder = this.#load(point.weights);
    this.engine = decoder.engine;
    this.dispatchEvent(new Event("change"));
    this.#draw(this.state.present.positions);
    if (this.engine) return;
    await decoder.loading;
    if (this.state.present.point.weights !== point.weights) return;
    this.engine = decoder.engine;
    if (!this.engine) this.#fallBack();
    this.#draw(...this.#shown);
  }

  /** @param {string | null} weights */
  #load(weights) {
    if (!this.#decoders.has(weights)) {
      const found = this.#decoders.size === 0 ? early.decoder : Promise.resolve(null);
      /** @type {Decoder} */
      const decoder = { engine: null, loading: Promise.resolve() };
      const keep = (/** @type {Model} */ engine) => {
        decoder.engine = engine;
      };
      const load = async () => {
        const first = await found;
        keep((first?.weights === weights && first.engine) || (await early.load(weights)));
      };
      if (weights !== null) decoder.loading = load().catch(console.warn);
      this.#decoders.set(weights, decoder);
    }
    return this.#decoders.get(weights);
  }

  #fallBack() {
    this.isByServer = true;
    this.say("This browser can't run the decoder, so the server draws the pictures: that takes a little longer.");
    this.dispatchEvent(new Event("draw"));
  }

  /**
   * @param {Map<string, number> | null} positions that may still be on their way
   * @param {Float32Array | null} z to show instead
   */
  #draw(positions, z = null) {
    const drawing = ++this.#drawn;
    this.#shown = [positions, z];
    if (positions) {
      this.positions = positions;
      this.previewed++;
      this.dispatchEvent(new Event("preview"));
    }
    if (!this.engine) {
      this.#awaited = { z: z ?? this.state.present.point.z, positions: positions ?? new Map() };
      this.#drawByServer();
      return;
    }
    if (this.isByServer) {
      this.isByServer = false;
      this.dispatchEvent(new Event("draw"));
    }
    const shown = z ?? this.edit(positions);
    this.engine.show(
      shown,
      (picture) => this.#paint(drawing, picture, shown, z === null),
      () => this.lose(),
    );
  }

  /**
   * @param {number} drawing
   * @param {Picture} picture
   * @param {Float32Array} z
   * @param {boolean} isOwn whether it is the present moment's, and not only visited
   */
  #paint(drawing, picture, z, isOwn) {
    if (drawing < this.#painted) return;
    this.#painted = drawing;
    this.dispatchEvent(new CustomEvent("paint", { detail: { picture, z, isOwn } }));
  }

  async #drawByServer() {
    if (this.#isDrawing) return; // the newest only
    this.#isDrawing = true;
    while (this.#awaited) {
      const { point } = this.state.present;
      const { z, positions } = this.#awaited;
      const drawing = this.#drawn;
      this.#awaited = null;
      try {
        const answer = await this.#ask(z, positions);
        if (point !== this.state.present.point) continue;
        if (z === point.z && positions === this.state.present.positions) this.#told = answer.z;
        this.#paint(drawing, answer.picture, answer.z, z === point.z);
      } catch (error) {
        this.say(error.message);
      }
    }
    this.#isDrawing = false;
  }

  /**
   * @param {ArrayLike<number>} z
   * @param {Map<string, number>} positions
   * @returns {Promise<{picture: ImageBitmap, z: Float32Array}>}
   */
  async #ask(z, positions) {
    const point = { z: [...asArray(z)], positions: Object.fromEntries(positions) };
    const [file, told] = await this.call("draw_point", [this.state.present.model, point]);
    return { picture: await createImageBitmap(await server.download(file)), z: Float32Array.from(told.z) };
  }
}

/** @param {ArrayLike<number>} z */
const asArray = (z) => Array.from(z);

/** @returns {number} drawn from N(0, 1) */
export function gaussian() {
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}
