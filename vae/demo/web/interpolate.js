/** The Interpolate tab: walks between two pictures, or among four. */

import { canvas, enlarged, icon, make, onLeave, paint, save, term, toPng } from "./dom.js";
import { EndCard, ofSeed, ofStage } from "./ends.js";
import { lerp, slerp } from "./latent.js";
import { Pad } from "./pad.js";
import { record, VIDEO } from "./record.js";
import { download } from "./server.js";
import { decode, encode, MAX_SEED } from "./state.js";

/** @typedef {import("./app.js").App} App */
/** @typedef {import("./app.js").Picture} Picture */
/** @typedef {import("./ends.js").End} End */
/** @typedef {"a" | "b" | "c" | "d"} Name */

const FRAMES = 9; // of the strip
const GRID = 7; // pictures a side, among four corners
const PLAY_MS = 3000; // from A to B
const STEP = 0.01; // of t
/** @type {Name[]} */
const NAMES = ["a", "b", "c", "d"];
const PATHS = { slerp, lerp };
/** @type {Record<string, string>} */
const KINDS = { line: "From A to B", corners: "Four corners" };

class Interpolate {
  /** @type {Record<Name, End | null>} */
  #ends = { a: null, b: null, c: null, d: null };
  /** @type {string | null} the model that the ends are of */
  #model = null;
  #t = [0, 0]; // where we are: across, and down among four corners
  #drawn = 0; // counts strips: only the newest is drawn
  #settled = 0;
  #request = 0;
  #playing = 0; // the number of an animation frame

  /**
   * @param {HTMLElement} element
   * @param {App} app
   */
  constructor(element, app) {
    this.app = app;
    this.element = element;
    this.kind = app.kept("i") === "corners" ? "corners" : "line";
    this.path = app.kept("ip") === "lerp" ? "lerp" : "slerp";
    const [u, v] = (app.kept("it") ?? "").split("_").map(Number);
    if (u >= 0 && u <= 1 && v >= 0 && v <= 1) this.#t = [u, v];
    this.cards = Object.fromEntries(NAMES.map((name) => [name, new EndCard(app, name, (end) => this.#set(name, end))]));
    this.frames = Array.from({ length: FRAMES }, (_, index) => this.#frame(index / (FRAMES - 1)));
    this.faded = Array.from({ length: FRAMES }, () => canvas());
    this.slider = make("input", {
      type: "range",
      min: "0",
      max: "1",
      step: String(STEP),
      "aria-label": "On the way from A to B",
    });
    this.slider.oninput = () => this.#go([Number(this.slider.value), 0]);
    this.play = make(
      "button",
      { type: "button", className: "round", "aria-label": "Play", onclick: () => this.#toggle() },
      icon("play"),
    );
    this.progress = make("progress", { max: 1, value: 0, hidden: true, "aria-label": "Progress" });
    this.pad = new Pad(GRID, (u, v) => this.#go([u, v]));
    this.explained = make("p", { className: "note" });
    element.append(
      make("h2", {}, "Walk from one picture to another"),
      make(
        "p",
        { className: "note" },
        "Every point on the way decodes to a picture. Move the slider: the large picture follows.",
      ),
      make(
        "div",
        { className: "row" },
        this.#choices("kind", KINDS),
        this.#choices("path", { slerp: "slerp", lerp: "lerp" }),
        this.explained,
      ),
      make("div", { className: "ends" }, ...NAMES.map((name) => this.cards[name].element)),
      make(
        "div",
        { className: "line" },
        make("div", { className: "scrub" }, this.play, this.slider),
        make("div", { className: "strip" }, ...this.frames.map(({ button }) => button)),
        make("p", { className: "note" }, "For comparison, a plain cross-fade from A to B, without a model:"),
        make(
          "div",
          { className: "strip faded", role: "img", "aria-label": "A cross-fade of pixels from A to B" },
          ...this.faded,
        ),
      ),
      this.pad.element,
      this.#exports(),
      this.progress,
    );
    onLeave(element, () => this.#stop());
    this.#explain();
  }

  /** The tab is shown, or the shared point is another one. */
  async update() {
    const { app } = this;
    if (this.#model === app.model) {
      const isNew = (/** @type {Name} */ name) => app.ends[name] && app.ends[name] !== this.#ends[name];
      for (const name of NAMES.filter(isNew)) this.#set(name, app.ends[name]);
      return;
    }
    const isFirst = this.#model === null;
    if (!isFirst) this.#t = [0, 0];
    this.#model = app.model;
    this.#ends = { a: null, b: null, c: null, d: null };
    const model = app.model;
    const request = ++this.#request;
    try {
      const ends = await Promise.all(NAMES.map((name, index) => this.#first(name, index, isFirst)));
      if (request !== this.#request || model !== app.model) return;
      for (const [index, name] of NAMES.entries()) this.#ends[name] ??= ends[index];
      this.#changed();
    } catch (error) {
      app.say(error.message);
      this.#model = null;
    }
  }

  /** @returns {Name[]} the ends of the way */
  get #used() {
    return this.kind === "line" ? NAMES.slice(0, 2) : NAMES;
  }

  /** Whether all of them are known. */
  get #isReady() {
    return this.#used.every((name) => this.#ends[name]);
  }

  /** Whether all pictures are there. */
  get isSettled() {
    return this.app.isSettled && this.#settled === this.#drawn && this.#drawn > 0;
  }

  /**
   * @param {Name} name
   * @param {number} index
   * @param {boolean} isFirst whether the link still counts
   * @returns {Promise<End>} where an end lies at first: as another tab or the link says, at the stage, or at a seed
   */
  async #first(name, index, isFirst) {
    const { app } = this;
    const told = /** @type {Record<string, any>} */ (app.ends)[name];
    if (told) return told;
    const kept = isFirst ? (app.kept(`i${name}`) ?? "") : "";
    const z = kept.startsWith("z") ? decode(kept.slice(1)) : null;
    if (z?.length === app.z.length) return { z: Float32Array.from(z), label: "from the link" };
    if (/^s\d{1,10}$/.test(kept) && Number(kept.slice(1)) <= MAX_SEED) return ofSeed(app, Number(kept.slice(1)));
    const { seed } = app.state.present;
    if (name === "a") return ofStage(app);
    return ofSeed(app, ((seed ?? 0) + index) % MAX_SEED);
  }

  /** @param {number} t */
  #frame(t) {
    const picture = canvas();
    const button = make(
      "button",
      { type: "button", className: "frame", "aria-label": `t = ${t.toFixed(2)}`, onclick: () => this.#go([t, 0]) },
      picture,
    );
    return { t, picture, button };
  }

  /**
   * @param {"kind" | "path"} what
   * @param {Record<string, string>} options
   */
  #choices(what, options) {
    const choice = ([value, text]) => {
      const input = make("input", { type: "radio", name: `interpolate-${what}`, value, checked: this[what] === value });
      input.onchange = () => {
        this[what] = value;
        this.#explain();
        this.#changed();
      };
      return make("label", { className: "choice" }, input, text);
    };
    const label = what === "kind" ? "Among which pictures" : "Path";
    return make(
      "div",
      { className: "choices", role: "radiogroup", "aria-label": label },
      ...Object.entries(options).map(choice),
    );
  }

  /** Say what the path is, and show what belongs to the kind. */
  #explain() {
    const texts = {
      slerp: [
        term("slerp"),
        " rotates from one end to the other and keeps the usual distance from the origin of the ",
        term("latent space"),
        ".",
      ],
      lerp: [
        term("lerp"),
        " goes straight, so it passes closer to the origin, where the ",
        term("decoder"),
        " draws blander pictures.",
      ],
    };
    this.explained.replaceChildren(...texts[this.path]);
    this.element.classList.toggle("corners", this.kind === "corners");
  }

  #exports() {
    const button = (/** @type {string} */ text, /** @type {() => Promise<void>} */ make_) => {
      const onclick = async () => {
        if (!this.#isReady) return;
        try {
          await make_();
        } catch (error) {
          this.app.say(error.message);
        } finally {
          this.progress.hidden = true;
        }
      };
      return make(
        "button",
        { type: "button", onclick, className: text === "Keep this picture" ? "primary" : "" },
        text,
      );
    };
    const moving = [button("Save GIF", () => this.#saveGif())];
    if (VIDEO) moving.push(button(`Save ${VIDEO.name}`, () => this.#saveVideo()));
    return make(
      "div",
      { className: "row exports" },
      button("Keep this picture", () => this.app.begin({ z: this.#at(...this.#t) })),
      make("span", { className: "moving row" }, ...moving),
      button("Save PNG of all", () => this.#savePng()),
    );
  }

  /**
   * @param {Name} name
   * @param {End} end
   */
  #set(name, end) {
    this.#ends[name] = end;
    if (name === "a" || name === "b") this.app.ends[name] = end;
    this.#changed();
  }

  /**
   * @param {number} u across
   * @param {number} v down
   * @returns {Float32Array}
   */
  #at(u, v) {
    const walk = PATHS[this.path];
    const { a, b, c, d } = this.#ends;
    if (this.kind === "line") return walk(a.z, b.z, u);
    return walk(walk(a.z, b.z, u), walk(c.z, d.z, u), v);
  }

  /** @param {number[]} t where to be from now on */
  #go(t) {
    this.#stop();
    this.#t = t;
    this.#show();
    this.#keep();
  }

  #show() {
    const [u, v] = this.#t;
    this.slider.value = String(u);
    this.slider.setAttribute("aria-valuetext", `${Math.round(100 * u)} % of the way from A to B`);
    this.pad.mark(u, v);
    for (const { t, button } of this.frames) button.classList.toggle("here", Math.abs(t - u) < 0.5 / (FRAMES - 1));
    if (this.#isReady && !this.element.hidden) this.app.show(this.#at(u, v));
  }

  /** The ends or the way are others: draw all of it. */
  async #changed() {
    if (!this.#isReady) return;
    this.#keep();
    const drawing = ++this.#drawn;
    this.#show();
    const isLine = this.kind === "line";
    const draw = async (/** @type {HTMLCanvasElement} */ target, /** @type {Float32Array} */ z) => {
      const picture = await this.app.decode(z);
      if (drawing === this.#drawn) paint(target, picture);
      return drawing === this.#drawn;
    };
    try {
      for (const name of this.#used) {
        const end = this.#ends[name];
        const picture = await this.app.decode(end.z);
        if (drawing !== this.#drawn) return;
        this.cards[name].show(end, picture);
      }
      if (isLine) {
        for (const { t, picture } of this.frames) if (!(await draw(picture, this.#at(t, 0)))) return;
        await this.#fade();
      } else {
        for (const { u, v, picture } of this.pad.cells) if (!(await draw(picture, this.#at(u, v)))) return;
      }
      this.#settled = drawing;
    } catch (error) {
      if (drawing === this.#drawn && this.#model === this.app.model) this.app.say(error.message);
    }
  }

  /** Draw the pixels of A fading into those of B: of the pictures themselves, if there are any. */
  async #fade() {
    const pictures = await Promise.all([this.cards.a.picture(), this.cards.b.picture()]);
    const size = this.app.state.present.point.size;
    for (const [index, target] of this.faded.entries()) {
      Object.assign(target, { width: size, height: size });
      target.classList.toggle("crisp", size < 64);
      const context = target.getContext("2d");
      context.drawImage(pictures[0], 0, 0, size, size);
      context.globalAlpha = index / (FRAMES - 1);
      context.drawImage(pictures[1], 0, 0, size, size);
    }
  }

  /** Put the ends and the way into the link. */
  #keep() {
    if (!this.#isReady) return;
    const { app } = this;
    app.keep("i", this.kind === "line" ? null : this.kind);
    app.keep("it", this.#t.some((share) => share > 0) ? this.#t.map((share) => share.toFixed(3)).join("_") : null);
    app.keep("ip", this.path === "slerp" ? null : this.path);
    for (const name of NAMES) {
      const { seed, z } = this.#ends[name] ?? {};
      app.keep(`i${name}`, this.#used.includes(name) ? (seed === undefined ? `z${encode(z)}` : `s${seed}`) : null);
    }
  }

  #toggle() {
    if (this.#playing) return this.#stop();
    this.play.replaceChildren(icon("pause"));
    this.play.setAttribute("aria-label", "Pause");
    const [from] = this.#t;
    let start = 0;
    const frame = (/** @type {number} */ now) => {
      start ||= now - from * PLAY_MS;
      const way = ((now - start) / PLAY_MS) % 2;
      this.#t = [way < 1 ? way : 2 - way, 0];
      this.#show();
      this.#playing = this.element.hidden ? 0 : requestAnimationFrame(frame);
      if (!this.#playing) this.#stop();
    };
    this.#playing = requestAnimationFrame(frame);
  }

  #stop() {
    cancelAnimationFrame(this.#playing);
    this.#playing = 0;
    this.play.replaceChildren(icon("play"));
    this.play.setAttribute("aria-label", "Play");
  }

  async #saveGif() {
    this.progress.hidden = false;
    this.progress.removeAttribute("value"); // the server doesn't say how far it is
    const { a, b } = this.#ends;
    const [file] = await this.app.call("interpolate_gif", [
      this.app.model,
      { a: [...a.z], b: [...b.z], path: this.path },
    ]);
    save(await download(file), "interpolation.gif");
  }

  async #saveVideo() {
    this.#stop();
    this.progress.hidden = false;
    this.progress.value = 0;
    const film = await record(
      (t) => this.app.decode(this.#at(t, 0)),
      (share) => {
        this.progress.value = share;
      },
    );
    save(film, `interpolation.${VIDEO.name.toLowerCase()}`);
  }

  async #savePng() {
    const isLine = this.kind === "line";
    const pictures = isLine ? this.frames : this.pad.cells;
    const columns = isLine ? FRAMES : GRID;
    const { width } = pictures[0].picture;
    const gap = 1;
    const side = (/** @type {number} */ count) => count * (width + gap) - gap;
    const sheet = make("canvas", { width: side(columns), height: side(pictures.length / columns) });
    const context = sheet.getContext("2d");
    for (const [index, { picture }] of pictures.entries())
      context.drawImage(picture, (index % columns) * (width + gap), Math.floor(index / columns) * (width + gap));
    save(await toPng(enlarged(sheet, isLine ? 128 : 512)), "interpolation.png");
  }
}

/** @type {Interpolate} what is on the page, for tests */
export let interpolate;

/**
 * @param {HTMLElement} element
 * @param {App} app
 * @returns {Interpolate}
 */
export function mount(element, app) {
  interpolate = new Interpolate(element, app);
  return interpolate;
}
