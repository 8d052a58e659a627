/** The Explore tab: all that the picture can be turned into. */

import { isAttribute } from "./app.js";
import { canvas, make, paint } from "./dom.js";
import { inWords } from "./stage.js";

/** @typedef {import("./app.js").App} App */
/** @typedef {import("./state.js").Control} Control */
/** @typedef {{value: number, canvas: HTMLCanvasElement, isHidden: () => boolean, drawn?: number}} Thumbnail of what a control would make of the picture */
/** @typedef {{control: Control, show: (position: number) => void, thumbnails: Thumbnail[], stands?: string}} Shown */

const MAX_CHIPS = 12; // values of an attribute; one with more gets a slider
const LONG_LETTERS = 9;
const NARROW_CHIPS = 6; // that fit half the room
const FEW = 2; // attributes that leave room enough to show more
const STEP = 0.05; // of sliders that have something between two values
const SETTLED_MS = 120; // after the last change, thumbnails follow
const STRIP = [-1, -0.5, 0, 0.5, 1]; // where the pictures of a filmstrip lie, of the way to either side

/**
 * @param {string} text
 * @returns {boolean} whether it may take two lines under a chip: room is kept for them, whichever chips are offered
 */
function isLong(text) {
  return text.length > LONG_LETTERS;
}

class Explore {
  /** @type {Shown[]} */
  #shown = [];
  #settled = 0; // the newest preview whose thumbnails are to be seen
  #settling = 0; // a timer
  #layout = "";

  /**
   * @param {HTMLElement} element
   * @param {App} app
   */
  constructor(element, app) {
    this.app = app;
    this.element = element;
    this.controls = make("div", { className: "controls" });
    element.append(make("h2", { className: "unseen" }, "Explore"), this.controls);
    app.addEventListener("preview", () => this.#preview());
    app.addEventListener("draw", () => element.classList.toggle("by-server", app.isByServer));
    element.classList.toggle("by-server", app.isByServer);
  }

  /** The tab is shown, or the shared point is another one. */
  update() {
    const { controls } = this.app.state.present.point;
    const layout = controls.map(keyOf).join();
    if (layout !== this.#layout) this.#layOut(controls);
    this.#layout = layout;
    this.#preview();
  }

  /** Whether all thumbnails show what is set. */
  get isSettled() {
    return this.app.isSettled && (this.app.isByServer || this.#settled === this.app.previewed);
  }

  #preview() {
    if (this.element.hidden || this.#shown.length === 0) return;
    const { positions } = this.app;
    for (const entry of this.#shown) {
      const start = startOf(this.app, entry.control);
      const position = positions.get(entry.control.name) ?? start;
      if (entry.stands === `${position} ${start}`) continue; // there are many, and one is dragged
      entry.stands = `${position} ${start}`;
      entry.show(position);
    }
    clearTimeout(this.#settling);
    this.#settling = setTimeout(() => this.#drawThumbnails(), SETTLED_MS);
  }

  async #drawThumbnails() {
    const { app } = this;
    const { previewed, positions } = app;
    for (const { control, thumbnails } of this.#shown) {
      for (const thumbnail of thumbnails) {
        const { value, canvas, isHidden, drawn } = thumbnail;
        if (isHidden() || drawn === previewed) continue;
        if (previewed !== app.previewed || !app.engine) return;
        try {
          const picture = await app.engine.decode(app.edit(new Map(positions).set(control.name, value)));
          if (previewed !== app.previewed) return;
          paint(canvas, picture);
          thumbnail.drawn = previewed;
        } catch {
          app.lose();
          return;
        }
      }
    }
    if (app.engine) this.#settled = previewed;
  }

  /** @param {Control[]} controls of the present point */
  #layOut(controls) {
    this.#shown = [];
    const more = make("div", { className: "axes" });
    /** @type {HTMLElement[][]} */
    const [narrow, wide, sliders] = [[], [], []];
    this.details = make("details", {}, make("summary", {}, "More"));
    for (const control of controls) {
      if (control.low === control.high) this.#shown.push({ control, show: () => {}, thumbnails: [] });
      else if (!isAttribute(control)) more.append(this.#axis(control));
      else if (control.values.length > MAX_CHIPS || control.ordered) sliders.push(this.#slider(control));
      else (control.values.length > NARROW_CHIPS ? wide : narrow).push(this.#chips(control));
    }
    this.details.append(
      make(
        "p",
        { className: "note" },
        "The directions in which this model's latent vectors vary most. They have no names: see what each one does.",
      ),
      more,
    );
    const attributes = [...narrow, ...sliders, ...wide];
    this.details.open = attributes.length <= FEW;
    this.details.ontoggle = () => this.#preview();
    this.controls.replaceChildren(...attributes, this.details);
  }

  /**
   * @param {Control} control
   * @param {number} value
   */
  #set(control, value) {
    this.app.state.set(new Map(this.app.state.present.positions).set(control.name, value));
  }

  /** @param {Control} control */
  #chips(control) {
    const group = `explore-${this.#shown.length}`;
    const chips = control.values.map((text, value) => {
      const input = make("input", { type: "radio", name: group, "aria-label": text });
      const picture = canvas();
      input.onchange = () => this.#set(control, value);
      const label = make("label", { className: "chip" }, input, picture, make("span", {}, text));
      return { value, input, label, canvas: picture, isHidden: () => label.hidden };
    });
    const show = (/** @type {number} */ position) => {
      const start = startOf(this.app, control);
      for (const { value, input, label } of chips) {
        input.checked = value === position;
        // What the picture showed at first can always be had again.
        label.hidden = !(control.offered[value] || value === start || value === position);
      }
    };
    this.#shown.push({ control, show, thumbnails: chips });
    return make(
      "fieldset",
      { className: control.values.length > NARROW_CHIPS ? "wide" : "" },
      make("legend", {}, control.name),
      make(
        "div",
        { className: control.values.some(isLong) ? "chips long" : "chips" },
        ...chips.map(({ label }) => label),
      ),
    );
  }

  /** @param {Control} control */
  #slider(control) {
    const step = isAttribute(control) && !control.ordered ? 1 : STEP;
    const [min, max] = [String(control.low), String(control.high)];
    const input = make("input", { type: "range", min, max, step: String(step), "aria-label": control.name });
    const output = make("span", { className: "value" });
    const moved = () => new Map(this.app.state.present.positions).set(control.name, Number(input.value));
    input.oninput = () => this.app.preview(moved());
    input.onchange = () => this.app.state.set(moved());
    const show = (/** @type {number} */ position) => {
      if (Number(input.value) !== position) input.value = String(position);
      output.textContent = inWords(control, position);
      input.setAttribute("aria-valuetext", output.textContent);
    };
    this.#shown.push({ control, show, thumbnails: [] });
    return make("label", { className: "slider" }, make("span", {}, control.name), output, input);
  }

  /** @param {Control} control a slider and a filmstrip of where it leads */
  #axis(control) {
    const slider = this.#slider(control);
    const frames = STRIP.map((share) => {
      const value = share * control.high;
      const picture = canvas();
      const name = `${control.name} to ${value}`;
      const frame = make(
        "button",
        { type: "button", className: "frame", "aria-label": name, onclick: () => this.#set(control, value) },
        picture,
      );
      return { value, frame, canvas: picture, isHidden: () => !this.details.open };
    });
    this.#shown.at(-1).thumbnails = frames;
    return make(
      "div",
      { className: "axis" },
      slider,
      make("div", { className: "film" }, ...frames.map(({ frame }) => frame)),
    );
  }
}

/** @param {Control} control what has to be laid out anew if it changes */
const keyOf = ({ name, values, ordered, offered }) => JSON.stringify([name, values, ordered, offered]);

/**
 * @param {App} app
 * @param {Control} control
 * @returns {number} where the control stands for the present point
 */
const startOf = (app, { name }) =>
  app.state.present.point.controls.find((control) => control.name === name)?.start ?? 0;

/** @type {Explore} what is on the page, for tests */
export let explore;

/**
 * @param {HTMLElement} element
 * @param {App} app
 * @returns {Explore}
 */
export function mount(element, app) {
  explore = new Explore(element, app);
  return explore;
}
