/** The Explore tab: a picture, large, and all that it can be turned into. The browser decodes, or else the server. */

import { Model } from "./model.js";
import { drawPoint, findPoint } from "./server.js";
import { fit, MAX_SEED, readFragment, State, toFragment } from "./state.js";

/** @typedef {import("./state.js").Control} Control */
/** @typedef {{value: number, input: HTMLInputElement, canvas: HTMLCanvasElement, label: HTMLLabelElement}} Chip */
/** @typedef {{engine: Model | null, loading: Promise<void>}} Decoder the engine is null until it is there, if it can be had */

const CRISP_BELOW = 64; // pixels a side: a digit of 28 is shown as it is, a face of 64 is smoothed
const MAX_CHIPS = 12; // values of an attribute; one with more gets a slider
const NARROW_CHIPS = 6; // that fit half the room
const STEP = 0.05; // of sliders that have something between two values
const SETTLED_MS = 120; // after the last change, thumbnails follow
const SAVED_SIDE = 512; // pixels, at least
const RANDOM_SEEDS = 1_000_000;

/**
 * Make an element; texts go in as text.
 * @param {string} tag
 * @param {Record<string, any>} properties
 * @param {...(Node | string)} children
 * @returns {any}
 */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/**
 * @param {Control} control
 * @param {number} position
 * @returns {string} in words
 */
function inWords({ values }, position) {
  if (values.length === 0) return position.toFixed(2);
  const [low, high] = [values[Math.floor(position)], values[Math.ceil(position)]];
  return low === high ? low : `between ${low} and ${high}`;
}

class Explore {
  state = new State();
  /** @type {Map<string | null, Decoder>} by the names of their files */
  #decoders = new Map();
  /** @type {Model | null} of the present moment, once it is there */
  engine = null;
  #requested = 0; // counts what is begun with: only the newest counts
  #answered = 0; // the newest that the server has told of
  #drawn = 0; // counts the pictures that are asked for
  #painted = 0; // the newest of them that is to be seen
  #settled = 0; // the newest whose thumbnails are
  #isDrawing = false; // by the server
  /** @type {Map<string, number> | null} */
  #awaited = null; // what it draws next
  #settling = 0; // a timer
  /** @type {{control: Control, show: (position: number) => void, chips: Chip[]}[]} */
  #shown = [];
  #picture = globalThis.exploreInput?.picture ?? null;

  /**
   * @param {HTMLElement} element
   * @param {[string, string][]} names what to call each model, and its name
   * @param {() => void} forget the picture of the visitor
   */
  constructor(element, names, forget) {
    this.names = new Map(names.map(([label, name]) => [name, label]));
    this.forget = forget;
    this.#build(element);
    this.state.addEventListener("change", () => this.#change());
    globalThis.addEventListener("exploreinput", () => this.#hear());
    globalThis.addEventListener("hashchange", () => this.#follow());
  }

  /** @param {HTMLElement} element */
  #build(element) {
    const button = (/** @type {string} */ text, /** @type {() => void} */ onclick, className = "") =>
      make("button", { type: "button", textContent: text, onclick, className });
    this.canvas = make("canvas", { width: 1, height: 1 });
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", "The picture is on its way");
    this.undoButton = button("Undo", () => this.state.undo());
    this.redoButton = button("Redo", () => this.state.redo());
    this.seed = make("input", { type: "number", min: "0", max: String(MAX_SEED), step: "1" });
    this.seed.onchange = () => this.#typeSeed();
    this.status = make("p", { className: "status" });
    this.status.setAttribute("role", "status");
    const buttons = make(
      "div",
      { className: "buttons" },
      button("Random", () => this.#random(), "primary"),
      this.undoButton,
      this.redoButton,
      button("Reset", () => this.state.set(new Map())),
      button("Save PNG", () => this.#save()),
      button("Copy link", () => this.#copy()),
    );
    this.controls = make("div", { className: "controls" });
    this.seedRow = make("label", { className: "seed" }, "Seed", this.seed);
    this.root = make(
      "div",
      { className: "explore" },
      make("div", { className: "stage" }, this.canvas, buttons, this.status),
      make("div", {}, this.controls),
    );
    element.replaceChildren(this.root);
  }

  /** Begin with what the address or gradio's inputs name. */
  async open() {
    const link = readFragment(location.hash.slice(1));
    const model = globalThis.exploreInput?.model ?? [...this.names.keys()][0];
    if (link && this.names.has(link.model)) await this.begin(link.model, link, link.positions);
    else await this.begin(model, this.#picture ? { picture: this.#picture } : { seed: 0 });
  }

  /**
   * @param {string} model
   * @param {{seed?: number | null, picture?: string | null, z?: number[] | null}} source
   * @param {Map<string, number>} positions
   */
  async begin(model, source, positions = new Map()) {
    const request = ++this.#requested;
    this.model = model;
    this.#say("");
    try {
      const point = await findPoint(model, { ...source, seed: source.seed ?? 0 });
      if (request !== this.#requested) return;
      const seed = source.picture || source.z ? null : (source.seed ?? 0);
      this.state.go({ model, seed, point, positions: fit(positions, point.controls) });
    } catch (error) {
      if (request === this.#requested) this.#say(error.message);
    } finally {
      this.#answered = Math.max(this.#answered, request);
    }
  }

  #random() {
    this.#leavePicture();
    this.begin(this.model, { seed: Math.floor(Math.random() * RANDOM_SEEDS) });
  }

  #typeSeed() {
    const seed = Number(this.seed.value);
    if (this.seed.value === "" || !this.seed.checkValidity())
      return this.#say(`A seed is a whole number up to ${MAX_SEED}.`);
    this.#leavePicture();
    this.begin(this.model, { seed }, this.state.present?.positions);
  }

  #leavePicture() {
    if (this.#picture === null) return;
    this.#picture = null;
    this.forget();
  }

  /** Another model was chosen, or another picture. */
  #hear() {
    const { model, picture } = globalThis.exploreInput;
    const isOther = picture !== this.#picture;
    if (!isOther && model === this.model) return;
    const present = this.state.present;
    this.#picture = picture;
    if (picture !== null && (isOther || present?.seed === null)) this.begin(model, { picture });
    else if (model !== this.model || present?.seed === null) this.begin(model, { seed: present?.seed ?? 0 });
  }

  /** The visitor changed the address. */
  #follow() {
    const link = readFragment(location.hash.slice(1));
    if (!link || (this.state.present && location.hash.slice(1) === toFragment(this.state.present))) return;
    if (link.model === this.model) this.begin(link.model, link, link.positions);
    else location.reload(); // gradio's own inputs follow
  }

  /** Show the present moment. */
  async #change() {
    const { point, seed } = this.state.present;
    history.replaceState(history.state, "", `#${toFragment(this.state.present)}`);
    this.undoButton.disabled = !this.state.canUndo;
    this.redoButton.disabled = !this.state.canRedo;
    this.seed.value = seed ?? "";
    if (point.controls.map(keyOf).join() !== this.#shown.map(({ control }) => keyOf(control)).join()) this.#layOut();
    const decoder = this.#load(point.weights);
    this.engine = decoder.engine;
    this.#draw(this.state.present.positions);
    if (this.engine) return;
    await decoder.loading;
    if (this.state.present.point.weights !== point.weights) return;
    this.engine = decoder.engine;
    if (!this.engine) this.#fallBack();
    this.#draw(this.state.present.positions);
  }

  /** @param {string | null} weights */
  #load(weights) {
    if (!this.#decoders.has(weights)) {
      const url = new URL(`decoders/${weights}`, import.meta.url);
      /** @type {Decoder} */
      const decoder = { engine: null, loading: Promise.resolve() };
      const keep = (/** @type {Model} */ engine) => {
        decoder.engine = engine;
      };
      if (weights !== null) decoder.loading = Model.load(url.href).then(keep, console.warn);
      this.#decoders.set(weights, decoder);
    }
    return this.#decoders.get(weights);
  }

  #fallBack() {
    this.root.classList.add("by-server");
    this.#say("The server draws these pictures, since this browser can't: that takes a moment longer.");
  }

  /** @param {Map<string, number>} positions */
  #edit(positions) {
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

  /** @returns {Float32Array} the latent vector of the picture that is shown */
  get z() {
    return this.#edit(this.state.present.positions);
  }

  /** @param {Map<string, number>} positions that may still be on their way */
  #draw(positions) {
    const drawing = ++this.#drawn;
    this.#describe(positions);
    clearTimeout(this.#settling);
    if (!this.engine) {
      this.#drawByServer(positions);
      return;
    }
    this.root.classList.remove("by-server");
    this.engine.show(
      this.#edit(positions),
      (picture) => {
        if (drawing < this.#painted) return;
        this.#painted = drawing;
        this.#paint(this.canvas, picture);
      },
      () => this.#lose(),
    );
    this.#settling = setTimeout(() => this.#drawThumbnails(drawing, positions), SETTLED_MS);
  }

  /** The worker has failed. */
  #lose() {
    const { weights } = this.state.present.point;
    if (!this.engine) return;
    this.#decoders.get(weights).engine = null;
    this.engine = null;
    this.#fallBack();
    this.#draw(this.state.present.positions);
  }

  /** @param {Map<string, number>} positions */
  async #drawByServer(positions) {
    this.#awaited = positions;
    if (this.#isDrawing) return; // the newest only
    this.#isDrawing = true;
    while (this.#awaited) {
      const { model, point } = this.state.present;
      const wanted = this.#awaited;
      const drawing = this.#drawn;
      this.#awaited = null;
      try {
        const picture = await drawPoint(model, point.z, wanted);
        if (point === this.state.present.point && drawing >= this.#painted) {
          this.#painted = drawing;
          this.#paint(this.canvas, picture);
        }
      } catch (error) {
        this.#say(error.message);
      }
    }
    this.#isDrawing = false;
  }

  /**
   * @param {number} drawing
   * @param {Map<string, number>} positions
   */
  async #drawThumbnails(drawing, positions) {
    for (const { control, chips } of this.#shown) {
      for (const { value, canvas, label } of chips) {
        if (label.hidden) continue;
        if (drawing !== this.#drawn || !this.engine) return;
        try {
          const edited = this.#edit(new Map(positions).set(control.name, value));
          const picture = await this.engine.decode(edited);
          if (drawing === this.#drawn) this.#paint(canvas, picture);
        } catch {
          this.#lose();
          return;
        }
      }
    }
    this.#settled = drawing;
  }

  /** Whether all pictures are there, of whatever was begun with last. */
  get isSettled() {
    const hasDrawn = this.#painted === this.#drawn && this.#answered === this.#requested && this.#drawn > 0;
    return hasDrawn && (this.engine ? this.#settled === this.#drawn : this.root.classList.contains("by-server"));
  }

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {ImageData | ImageBitmap} picture
   */
  #paint(canvas, picture) {
    if (canvas.width !== picture.width) {
      canvas.width = picture.width;
      canvas.height = picture.height;
      canvas.classList.toggle("crisp", picture.width < CRISP_BELOW);
    }
    const context = canvas.getContext("2d");
    if (picture instanceof ImageData) context.putImageData(picture, 0, 0);
    else context.drawImage(picture, 0, 0);
  }

  /** @param {Map<string, number>} positions say in words what is to be seen, and let the controls stand so */
  #describe(positions) {
    const { model, seed } = this.state.present;
    const said = [];
    for (const { control, show } of this.#shown) {
      const position = positions.get(control.name) ?? control.start;
      show(position);
      if (isAttribute(control)) said.push(`${control.name} ${inWords(control, position)}`);
    }
    const origin = seed === null ? "from a picture of your own" : `from seed ${seed}`;
    this.canvas.setAttribute("aria-label", `${this.names.get(model)}, ${[...said, origin].join(", ")}`);
  }

  /** Lay out the controls of the present point. */
  #layOut() {
    const { controls } = this.state.present.point;
    this.#shown = [];
    const more = make("div");
    const attributes = [];
    for (const control of controls) {
      if (control.low === control.high) this.#shown.push({ control, show: () => {}, chips: [] });
      else if (!isAttribute(control)) more.append(this.#slider(control));
      else if (control.values.length > MAX_CHIPS || control.ordered) attributes.push(this.#slider(control));
      else attributes.push(this.#chips(control));
    }
    const details = make("details", { open: attributes.length === 0 }, make("summary", {}, "More"), this.seedRow, more);
    this.controls.replaceChildren(...attributes, details);
  }

  /** @param {Control} control */
  #chips(control) {
    const group = `explore-${this.#shown.length}`;
    const chips = control.values.map((text, value) => {
      const input = make("input", { type: "radio", name: group });
      input.setAttribute("aria-label", text);
      const canvas = make("canvas", { width: 1, height: 1 });
      canvas.setAttribute("aria-hidden", "true");
      input.onchange = () => this.state.set(new Map(this.state.present.positions).set(control.name, value));
      const label = make("label", { className: "chip" }, input, canvas, make("span", {}, text));
      return { value, input, canvas, label };
    });
    const show = (/** @type {number} */ position) => {
      const start = this.state.present.point.controls.find(({ name }) => name === control.name).start;
      for (const { value, input, label } of chips) {
        input.checked = value === position;
        // What the picture showed at first can always be had again.
        label.hidden = !(control.offered[value] || value === start || value === position);
      }
    };
    this.#shown.push({ control, show, chips });
    return make(
      "fieldset",
      { className: control.values.length > NARROW_CHIPS ? "wide" : "" },
      make("legend", {}, control.name),
      make("div", { className: "chips" }, ...chips.map(({ label }) => label)),
    );
  }

  /** @param {Control} control */
  #slider(control) {
    const step = isAttribute(control) && !control.ordered ? 1 : STEP;
    const input = make("input", {
      type: "range",
      min: String(control.low),
      max: String(control.high),
      step: String(step),
    });
    const output = make("output");
    const moved = () => new Map(this.state.present.positions).set(control.name, Number(input.value));
    input.setAttribute("aria-label", control.name);
    input.oninput = () => this.#draw(moved());
    input.onchange = () => this.state.set(moved());
    const show = (/** @type {number} */ position) => {
      if (Number(input.value) !== position) input.value = String(position);
      output.textContent = inWords(control, position);
      input.setAttribute("aria-valuetext", output.textContent);
    };
    this.#shown.push({ control, show, chips: [] });
    return make("label", { className: "slider" }, make("span", {}, control.name), output, input);
  }

  #save() {
    const { width } = this.canvas;
    const scale = Math.ceil(SAVED_SIDE / width);
    const large = make("canvas", { width: scale * width, height: scale * width });
    const context = large.getContext("2d");
    context.imageSmoothingEnabled = width >= CRISP_BELOW;
    context.drawImage(this.canvas, 0, 0, large.width, large.height);
    large.toBlob((/** @type {Blob} */ file) => {
      const href = URL.createObjectURL(file);
      make("a", { href, download: `${this.names.get(this.model)}.png` }).click();
      setTimeout(() => URL.revokeObjectURL(href), 1000);
    });
  }

  async #copy() {
    try {
      await navigator.clipboard.writeText(location.href);
      this.#say("The link is copied.");
    } catch {
      this.#say("Copy the address of this page: it is the link.");
    }
  }

  /** @param {string} text */
  #say(text) {
    this.status.textContent = text;
  }
}

/** @param {Control} control */
const isAttribute = (control) => control.values.length > 0;

/** @param {Control} control what has to be laid out anew if it changes */
const keyOf = ({ name, values, ordered, offered }) => JSON.stringify([name, values, ordered, offered]);

/** @type {Explore} what is on the page, for tests */
export let explore;

/**
 * @param {HTMLElement} element
 * @param {[string, string][]} names
 * @param {() => void} forget
 */
export async function start(element, names, forget) {
  const style = make("link", { rel: "stylesheet", href: new URL("style.css", import.meta.url).href });
  await new Promise((go) => {
    style.onload = style.onerror = go;
    document.head.append(style);
  });
  explore = new Explore(element, names, forget);
  explore.open();
}
