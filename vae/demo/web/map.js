/** The Map tab: where pictures lie in the latent space, flattened to two dimensions. Pointing draws, a path plays. */

import { button, canvas, isStill, make, onLeave, paint, term } from "./dom.js";
import { Points } from "./points.js";
import { colourOf, Scatter } from "./scatter.js";

/** @typedef {import("./app.js").App} App */

const MARGIN = 0.04; // of the map's width, around the points
const PLAY_MS = [2000, 9000]; // a path takes at least and at most
const PLAY_MS_PER_WIDTH = 5000; // and so long if it is as long as the map is wide
const SMOOTHING = 12; // points of a path, over which the latent vectors are averaged
const FRAMES = 240; // points that a path is sampled at

class LatentMap {
  /** @type {Map<string, Promise<Points>>} by model */
  #charts = new Map();
  /** @type {Points | null} what is shown */
  #points = null;
  #model = "";
  #attribute = 0;
  /** @type {number | null} */
  #chosen = null;
  /** @type {[number, number][]} */
  #path = [];
  #playing = 0; // counts plays: only the newest goes on
  #filling = 0; // counts fillings with thumbnails: only the newest goes on
  #tipped = -1; // the point whose picture is asked for

  /** @param {HTMLElement} element @param {App} app */
  constructor(element, app) {
    this.app = app;
    this.scatter = new Scatter("Map of the latent space. Arrow keys move over it, Enter takes the picture there.", {
      hover: (x, y) => this.#hover(x, y),
      leave: () => this.#leave(),
      pick: (x, y) => this.#pick(x, y),
      path: (path) => this.#follow(path),
    });
    this.intro = make("p", { className: "intro" });
    this.select = make("select", {
      className: "select",
      "aria-label": "Colour by",
      onchange: () => this.#colour(Number(this.select.value)),
    });
    this.picker = make("label", { className: "by" }, "Colour by ", this.select);
    this.legend = make("div", { className: "legend", role: "group" });
    this.thumbs = make("input", { type: "checkbox", checked: true, onchange: () => this.#fill() });
    this.replay = button("Play the path", () => this.#play(), { hidden: true });
    this.tipPicture = canvas();
    this.tipText = make("figcaption", { className: "says" });
    this.tip = make("figure", { className: "tip" }, this.tipPicture, this.tipText);
    this.root = make(
      "section",
      {},
      make("h2", {}, "Where pictures live"),
      this.intro,
      make(
        "div",
        { className: "field" },
        this.scatter.element,
        make(
          "div",
          { className: "aside" },
          this.tip,
          this.picker,
          this.legend,
          make("label", { className: "by" }, this.thumbs, "Pictures on the map"),
          this.replay,
        ),
      ),
    );
    element.replaceChildren(this.root);
    onLeave(element, () => {
      this.#stop();
      this.#leave();
    });
  }

  /** The shared point is another one. */
  async update() {
    if (!this.app.state.present) return;
    const { model } = this.app;
    if (model !== this.#model) {
      this.#stop();
      this.#model = model;
      this.intro.textContent = "Loading the map…";
      try {
        const points = await this.#load(model);
        if (model === this.#model) this.#open(points);
      } catch (error) {
        if (model !== this.#model) return;
        this.#model = ""; // to be asked for again
        this.intro.textContent = error.message;
      }
    }
    if (this.#points) this.#mark();
  }

  /** @param {string} model */
  #load(model) {
    if (!this.#charts.has(model)) {
      const loading = this.app.call("map_points", [model]).then(([chart]) => new Points(chart));
      this.#charts.set(model, loading);
      loading.catch(() => this.#charts.delete(model));
    }
    return this.#charts.get(model);
  }

  /** @param {Points} points */
  #open(points) {
    this.#points = points;
    this.#path = [];
    this.replay.hidden = true;
    this.#fillTip(null);
    const origin = points.hasPictures
      ? `Each dot is one of ${points.count.toLocaleString("en")} test pictures, which the model never trained on.`
      : `This model has no map of test pictures. Each dot is one of ${points.count.toLocaleString("en")} new points, drawn from its prior.`;
    this.intro.replaceChildren(
      origin,
      points.hasPictures ? " Neighbours in the " : " They are laid out along the two main axes of the ",
      term("latent space"),
      points.hasPictures
        ? " are neighbours on the map. Point at a place to see its picture, click to keep it, draw a path to play it."
        : ". Point at a place to see its picture, click to keep it, draw a path to play it.",
    );
    this.select.replaceChildren(
      ...points.attributes.map(([name], index) => make("option", { value: String(index) }, name)),
    );
    this.picker.hidden = points.attributes.length < 2;
    this.#colour(0);
  }

  /** @param {number} attribute */
  #colour(attribute) {
    const points = this.#points;
    this.#attribute = attribute;
    this.#chosen = null;
    const [name, values] = points.attributes[attribute] ?? ["", []];
    this.scatter.choose(null);
    this.scatter.show({ places: points.places, label: (index) => this.#label(index), view: viewOf(points.places) });
    this.legend.setAttribute("aria-label", `Show one ${name} alone`);
    this.legend.replaceChildren(
      ...values.map((text, value) => {
        const dot = make("span", { className: "dot", "aria-hidden": "true" });
        dot.style.background = colourOf(this.root, value);
        const chip = button("", () => this.#choose(value), { className: "pill", "aria-pressed": "false" });
        chip.append(dot, text);
        return chip;
      }),
    );
    this.#fill();
    this.#mark();
  }

  /** @param {number} index */
  #label(index) {
    return this.#points.attributes.length > 0 ? this.#points.label(index, this.#attribute) : 0;
  }

  /** @param {number} value to show alone; again, to show all */
  #choose(value) {
    this.#chosen = this.#chosen === value ? null : value;
    for (const [index, chip] of [...this.legend.children].entries()) {
      chip.setAttribute("aria-pressed", String(index === this.#chosen));
    }
    this.scatter.choose(this.#chosen);
  }

  /** Put pictures where there is room. */
  async #fill() {
    const filling = ++this.#filling;
    this.scatter.clearThumbs();
    if (!this.thumbs.checked || this.app.isByServer) return;
    const points = this.#points;
    for (const index of this.scatter.roomy()) {
      try {
        const picture = await this.app.decode(points.latent(index));
        if (filling !== this.#filling || points !== this.#points) return;
        this.scatter.addThumb(index, picture);
      } catch {
        return; // the page says why
      }
    }
  }

  #mark() {
    if (this.app.z.length !== this.#points.dimension) return; // of another model, whose map is on its way
    const [x, y] = this.#points.placeOf(this.app.z);
    this.scatter.mark([{ mark: { x, y }, text: "you are here" }]);
  }

  /** @param {number} x @param {number} y */
  #hover(x, y) {
    if (!this.#points) return;
    this.#stop();
    this.app.show(this.#points.latentAt(x, y));
    this.#tip(this.#points.nearest(x, y));
  }

  /** @param {number} index of the point to show beside the map */
  async #tip(index) {
    if (index === this.#tipped) return;
    this.#tipped = index;
    const points = this.#points;
    const [, values] = points.attributes[this.#attribute] ?? ["", []];
    const text = values[this.#label(index)] ?? "";
    try {
      const picture = await this.app.decode(points.latent(index));
      if (index !== this.#tipped || points !== this.#points) return;
      paint(this.tipPicture, picture);
      this.#fillTip(picture, points.hasPictures ? `nearest test picture${text && `: ${text}`}` : text);
    } catch {
      this.#fillTip(null); // the page says why
    }
  }

  /** @param {ImageData | ImageBitmap | null} picture @param {string} text */
  #fillTip(picture, text = "Point at the map.") {
    if (picture) paint(this.tipPicture, picture);
    this.tipPicture.style.visibility = picture ? "visible" : "hidden";
    this.tipText.textContent = text;
  }

  #leave() {
    this.#fillTip(null);
    this.#tipped = -1;
    if (this.#points && !this.#isPlaying) this.app.show(null);
  }

  /** @param {number} x @param {number} y */
  #pick(x, y) {
    if (!this.#points) return;
    this.#stop();
    this.app.begin({ z: this.#points.latentAt(x, y) });
  }

  #isPlaying = false;

  #stop() {
    this.#playing++;
    this.#isPlaying = false;
  }

  /** @param {[number, number][]} path that was drawn */
  #follow(path) {
    this.#path = evenly(path, FRAMES);
    this.replay.hidden = false;
    if (isStill()) this.scatter.trace(this.#path);
    else this.#play();
  }

  /** Morph along the path, and keep the picture at its end. */
  #play() {
    const points = this.#points;
    const playing = ++this.#playing;
    const latents = smooth(this.#path.map(([x, y]) => points.latentAt(x, y)));
    const { left, right } = viewOf(points.places);
    const share = lengthOf(this.#path) / (right - left);
    const duration = Math.min(PLAY_MS[1], Math.max(PLAY_MS[0], PLAY_MS_PER_WIDTH * share));
    const start = performance.now();
    this.#isPlaying = true;
    this.#fillTip(null);
    const frame = (/** @type {number} */ now) => {
      if (playing !== this.#playing || points !== this.#points) return;
      const at = Math.min(FRAMES - 1, Math.max(0, Math.floor(((now - start) / duration) * FRAMES)));
      this.scatter.trace(this.#path, this.#path[at]);
      if (at < FRAMES - 1) {
        this.app.show(latents[at]);
        requestAnimationFrame(frame);
      } else {
        this.#isPlaying = false;
        this.app.begin({ z: latents[at] });
      }
    };
    requestAnimationFrame(frame);
  }
}

/** @param {Float32Array} places @returns {import("./scatter.js").View} a square that holds all of them */
function viewOf(places) {
  const xs = places.filter((_, index) => index % 2 === 0);
  const ys = places.filter((_, index) => index % 2 === 1);
  const range = (/** @type {Float32Array} */ values) =>
    values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
  const [[left, right], [bottom, top]] = [range(xs), range(ys)];
  const half = Math.max(right - left, top - bottom) * (0.5 + MARGIN);
  const [x, y] = [(left + right) / 2, (bottom + top) / 2];
  return { left: x - half, right: x + half, bottom: y - half, top: y + half };
}

/** @param {[number, number][]} path */
function lengthOf(path) {
  return path.slice(1).reduce((sum, [x, y], index) => sum + Math.hypot(x - path[index][0], y - path[index][1]), 0);
}

/**
 * @param {[number, number][]} path
 * @param {number} count
 * @returns {[number, number][]} so many places on it, equally far from one to the next
 */
function evenly(path, count) {
  const step = lengthOf(path) / (count - 1);
  /** @type {[number, number][]} */
  const places = [path[0]];
  let passed = 0; // of the way, before the present piece
  for (let index = 1; index < path.length; index++) {
    const [[x0, y0], [x1, y1]] = [path[index - 1], path[index]];
    const piece = Math.hypot(x1 - x0, y1 - y0);
    for (; piece > 0 && places.length * step <= passed + piece && places.length < count; ) {
      const share = (places.length * step - passed) / piece;
      places.push([x0 + share * (x1 - x0), y0 + share * (y1 - y0)]);
    }
    passed += piece;
  }
  while (places.length < count) places.push(path[path.length - 1]);
  return places;
}

/**
 * @param {Float32Array[]} latents
 * @returns {Float32Array[]} each the mean of those around it, but for the ends
 */
function smooth(latents) {
  return latents.map((own, index) => {
    const reach = Math.min(SMOOTHING, index, latents.length - 1 - index);
    const around = latents.slice(index - reach, index + reach + 1);
    return own.map((_, k) => around.reduce((sum, z) => sum + z[k], 0) / around.length);
  });
}

/**
 * @param {HTMLElement} element
 * @param {App} app
 */
export function mount(element, app) {
  const map = new LatentMap(element, app);
  map.update();
  return { update: () => map.update() };
}
