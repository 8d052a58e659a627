/** The Generate tab: new pictures from seeds. The server tells where a seed's picture lies, the browser draws it. */

import { button, canvas, choices, enlarged, make, paint, save, term, toPng } from "./dom.js";
import { MAX_SEED } from "./state.js";

/** @typedef {import("./app.js").App} App */
/** @typedef {{name: string, label: string, frechet: number | null}} Prior */
/** @typedef {{priors: Prior[], attributes: {name: string, values: string[]}[]}} Choices what the server offers */
/** @typedef {{seed: number, z: Float32Array, canvas: HTMLCanvasElement}} Drawn */

const COUNTS = [16, 32, 64];
const RANDOM_SEEDS = 1_000_000;
const TILE = 112; // pixels of a picture on the contact sheet, at least
const SETTLED_MS = 150; // after the last move of the temperature, pictures follow
const MAX_CHIPS = 12; // values of a single attribute; more get a list

/** What is set; it goes into the link. */
const DEFAULTS = { count: 32, seed: 0, temperature: 1, prior: "fitted", attribute: "", value: "" };

class Generate {
  #set = { ...DEFAULTS };
  /** @type {Choices | null} of the model below */
  #choices = null;
  #model = "";
  #asked = 0; // counts what was asked for
  #shown = 0; // the newest whose pictures are all there
  #timer = 0;
  #fill = () => {}; // lets the list of values be that of the attribute
  /** @type {Drawn[]} */
  #drawn = [];

  /**
   * @param {HTMLElement} element
   * @param {App} app
   */
  constructor(element, app) {
    this.app = app;
    this.element = element;
    this.#set = { ...DEFAULTS, ...readSet(app.kept("new")) };
    this.priors = make("div", { className: "priors", role: "radiogroup", "aria-label": "Drawn from" });
    this.classes = make("div", { className: "classes" });
    this.message = make("p", { className: "message", role: "alert" });
    this.gallery = make("div", { className: "gallery", role: "group", "aria-label": "New pictures" });
    const empty = () => make("div", { className: "tile" }, canvas());
    this.gallery.append(...Array.from({ length: this.#set.count }, empty));
    this.bar = this.#bar();
    this.foot = this.#foot();
    element.append(
      make("h2", {}, "New pictures"),
      make(
        "p",
        { className: "note" },
        "The decoder turns random numbers into pictures that nobody ever took or drew. The numbers come from a ",
        term("prior"),
        ".",
      ),
      this.message,
    );
  }

  /** The tab is shown, or the shared point is another one. */
  async update() {
    const { model } = this.app;
    if (model === this.#model) return;
    const isFirst = this.#model === "";
    this.#model = model;
    this.#clear();
    try {
      const [choices] = await this.app.call("generate_choices", [model]);
      if (model !== this.#model) return;
      this.#choices = choices;
      if (!isFirst) this.#set = { ...this.#set, prior: DEFAULTS.prior, attribute: "", value: "" };
      this.#layOut();
      await this.#draw();
    } catch (error) {
      if (model !== this.#model) return;
      this.#model = "";
      this.message.textContent = error.message;
    }
  }

  /** Whether all pictures are there that were asked for. */
  get isSettled() {
    return this.#shown === this.#asked && this.#asked > 0;
  }

  #bar() {
    this.seed = make("input", { type: "number", min: "0", max: String(MAX_SEED), step: "1" });
    this.seed.onchange = () => this.#typeSeed();
    this.temperature = make("input", { type: "range", min: "0", max: "2", step: "0.05", "aria-label": "Temperature" });
    this.degrees = make("output");
    this.temperature.oninput = () => this.#change({ temperature: Number(this.temperature.value) }, SETTLED_MS);
    this.count = make("select", {}, ...COUNTS.map((count) => make("option", { value: String(count) }, String(count))));
    this.count.onchange = () => this.#change({ count: Number(this.count.value) });
    const others = () => this.#change({ seed: Math.floor(Math.random() * RANDOM_SEEDS) });
    return make(
      "div",
      { className: "bar" },
      button("Other seeds", others, { className: "primary" }),
      make("label", { className: "seed" }, term("seed", "First seed"), this.seed),
      make("label", { className: "seed" }, "Pictures", this.count),
      make(
        "label",
        { className: "slider" },
        make("span", {}, term("temperature", "Temperature")),
        this.degrees,
        this.temperature,
      ),
    );
  }

  #foot() {
    const words = [
      ["stage", "the large picture"],
      ["a", "A"],
      ["b", "B"],
    ];
    this.targets = choices("A click sends a picture to", words, "stage", () => {});
    return make(
      "div",
      { className: "bar" },
      make("span", { className: "note" }, "A click sends a picture to"),
      this.targets,
      button("Contact sheet", () => this.#saveSheet()),
    );
  }

  /** Lay out what this model can draw from. */
  #layOut() {
    const { priors, attributes } = this.#choices;
    if (!priors.some(({ name }) => name === this.#set.prior)) this.#set.prior = priors[0].name;
    if (!attributes.some(({ name, values }) => name === this.#set.attribute && values.includes(this.#set.value)))
      this.#set = { ...this.#set, attribute: "", value: "" };
    const least = Math.min(...priors.map(({ frechet }) => frechet ?? Number.POSITIVE_INFINITY));
    const card = (/** @type {Prior} */ { name, label, frechet }) => {
      const input = make("input", { type: "radio", name: "generate-prior", value: name, "aria-label": label });
      input.onchange = () => this.#change({ prior: name, attribute: "", value: "" });
      const measured =
        frechet === null
          ? [make("span", { className: "note nearer" }, "not measured")]
          : [
              make("strong", {}, frechet < 1 ? frechet.toFixed(2) : frechet.toFixed(1)),
              make(
                "span",
                { className: "note nearer" },
                priors.length > 1 && frechet === least ? "closest to real pictures" : "",
              ),
            ];
      return make("label", { className: "prior" }, input, make("span", {}, label), ...measured);
    };
    this.priors.replaceChildren(
      ...priors.map(card),
      make(
        "p",
        { className: "note" },
        term("Fréchet distance"),
        " to real pictures: lower is better. Tutorials draw from ",
        term("N(0, I)"),
        ".",
      ),
    );
    this.classes.replaceChildren(...this.#classes(attributes));
    // Below the choices, whose height is known only now: nothing jumps.
    if (!this.gallery.isConnected)
      this.element.append(this.priors, this.classes, this.bar, this.message, this.gallery, this.foot);
    this.#describe();
  }

  /** @param {Choices["attributes"]} attributes */
  #classes(attributes) {
    this.#fill = () => {};
    if (attributes.length === 0) return [];
    const choose = (/** @type {string} */ attribute, /** @type {string} */ value) =>
      this.#change({ attribute, value, prior: this.#choices.priors[0].name });
    const [{ name, values }] = attributes;
    if (attributes.length === 1 && values.length <= MAX_CHIPS) {
      const words = [["", "any"], ...values.map((value) => [value, value])];
      const group = choices(`Only of this ${name}`, words, this.#set.value, (value) => choose(value && name, value));
      return [make("span", { className: "note" }, `Which ${name}`), group];
    }
    const option = (/** @type {string} */ value, text = value) => make("option", { value }, text);
    const which = make(
      "select",
      { "aria-label": "Attribute" },
      option("", "anything"),
      ...attributes.map((each) => option(each.name)),
    );
    const what = make("select", { "aria-label": "Value" });
    this.#fill = () => {
      const chosen = attributes.find((each) => each.name === which.value);
      what.replaceChildren(...(chosen?.values ?? []).map((value) => option(value)));
      what.hidden = !chosen;
    };
    which.value = this.#set.attribute;
    this.#fill();
    if (this.#set.value) what.value = this.#set.value;
    which.onchange = () => {
      this.#fill();
      choose(which.value, what.value ?? "");
    };
    what.onchange = () => choose(which.value, what.value);
    return [make("span", { className: "note" }, "With"), which, what];
  }

  /** Let the controls stand as is set, and keep it in the link. */
  #describe() {
    const { seed, temperature, count, prior, attribute, value } = this.#set;
    this.seed.value = String(seed);
    this.temperature.value = String(temperature);
    this.degrees.textContent = temperature.toFixed(2);
    this.count.value = String(count);
    for (const input of this.priors.querySelectorAll("input")) input.checked = !attribute && input.value === prior;
    for (const input of this.classes.querySelectorAll("input")) input.checked = input.value === value;
    if (!attribute) {
      for (const list of this.classes.querySelectorAll("select")) list.value = "";
      this.#fill();
    }
    const isPlain = Object.entries(DEFAULTS).every(([name, standard]) => this.#set[name] === standard);
    this.app.keep("new", isPlain ? null : JSON.stringify(this.#set));
  }

  /**
   * @param {Partial<typeof DEFAULTS>} change all else stays as it is
   * @param {number} wait milliseconds
   */
  #change(change, wait = 0) {
    this.#set = { ...this.#set, ...change };
    this.#describe();
    this.#clear();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#draw(), wait);
  }

  #typeSeed() {
    const seed = Number(this.seed.value);
    if (this.seed.value !== "" && this.seed.checkValidity()) this.#change({ seed });
    else {
      this.message.textContent = `A seed is a whole number up to ${MAX_SEED}.`;
      this.seed.value = String(this.#set.seed);
    }
  }

  /** Leave nothing that is no longer what is set. */
  #clear() {
    this.#asked++;
    this.#drawn = [];
    this.message.textContent = "";
    this.gallery.classList.add("waiting");
    this.gallery.setAttribute("aria-busy", "true");
    for (const shown of this.gallery.querySelectorAll("canvas"))
      shown.getContext("2d").clearRect(0, 0, shown.width, shown.height);
  }

  async #draw() {
    const asked = this.#asked;
    const { count, seed, temperature, prior, attribute, value } = this.#set;
    try {
      const where = attribute ? { [attribute]: value } : null;
      const [points] = await this.app.call("seed_points", [this.#model, count, seed, temperature, prior, where]);
      if (asked !== this.#asked) return;
      this.#drawn = points.seeds.map((/** @type {number} */ each, /** @type {number} */ index) => ({
        seed: each,
        z: Float32Array.from(points.z[index]),
        canvas: canvas(),
      }));
      this.gallery.replaceChildren(...this.#drawn.map((drawn) => this.#tile(drawn)));
      for (const drawn of this.#drawn) {
        const picture = await this.app.decode(drawn.z);
        if (asked !== this.#asked) return;
        paint(drawn.canvas, picture);
      }
      this.#shown = asked;
    } catch (error) {
      if (asked !== this.#asked) return;
      this.gallery.replaceChildren();
      this.#drawn = [];
      this.message.textContent = error.message;
    }
    this.gallery.classList.remove("waiting");
    this.gallery.setAttribute("aria-busy", "false");
  }

  /** @param {Drawn} drawn */
  #tile(drawn) {
    const { attribute, value } = this.#set;
    const said = `${attribute ? `${attribute} ${value}, ` : ""}seed ${drawn.seed}`;
    const onclick = () => this.#use(drawn);
    return make(
      "button",
      { type: "button", className: "tile", title: said, "aria-label": said, onclick },
      drawn.canvas,
    );
  }

  /** @param {Drawn} drawn was clicked */
  #use({ seed, z }) {
    const target = this.targets.querySelector("input:checked").value;
    if (target === "stage") {
      const { temperature, prior, attribute } = this.#set;
      // Then the seed alone says it, and the link is short.
      const isPlain = temperature === 1 && prior === this.#choices.priors[0].name && !attribute;
      this.app.begin(isPlain ? { seed } : { z });
      return;
    }
    this.app.ends[target] = { z, label: `seed ${seed}` };
    this.app.say(`Seed ${seed} is now ${target.toUpperCase()} of Interpolate.`);
  }

  async #saveSheet() {
    if (!this.isSettled || this.#drawn.length === 0) return;
    save(await toPng(this.#sheet()), `${this.app.label}, seeds from ${this.#set.seed}.png`);
  }

  /** @returns {HTMLCanvasElement} all pictures with their seeds, and how they were drawn */
  #sheet() {
    const { temperature, prior, attribute, value, count } = this.#set;
    const tiles = this.#drawn.map(({ canvas: source }) => enlarged(source, TILE));
    const side = tiles[0].width;
    const columns = count > 32 ? 8 : Math.min(8, Math.ceil(Math.sqrt(count * 2)));
    const [gap, caption, head] = [8, 18, 34];
    const rows = Math.ceil(tiles.length / columns);
    const sheet = make("canvas", {
      width: gap + columns * (side + gap),
      height: head + rows * (side + caption + gap),
    });
    const context = sheet.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, sheet.width, sheet.height);
    context.fillStyle = "#1c1b22";
    context.font = "600 15px system-ui, sans-serif";
    const from = attribute
      ? `${attribute} ${value}`
      : `prior ${this.#choices.priors.find(({ name }) => name === prior)?.label ?? prior}`;
    context.fillText(`${this.app.label} · ${from} · temperature ${temperature}`, gap, 22);
    context.font = "12px system-ui, sans-serif";
    for (const [index, tile] of tiles.entries()) {
      const [x, y] = [
        gap + (index % columns) * (side + gap),
        head + Math.floor(index / columns) * (side + caption + gap),
      ];
      context.drawImage(tile, x, y);
      context.fillText(`seed ${this.#drawn[index].seed}`, x, y + side + 13);
    }
    return sheet;
  }
}

/**
 * @param {string | undefined} text as anybody may have written it
 * @returns {Partial<typeof DEFAULTS>} what of it makes sense
 */
function readSet(text) {
  try {
    const given = JSON.parse(text ?? "{}");
    const fits = {
      count: (/** @type {any} */ count) => COUNTS.includes(count),
      seed: (/** @type {any} */ seed) => Number.isInteger(seed) && seed >= 0 && seed <= MAX_SEED,
      temperature: (/** @type {any} */ degrees) => typeof degrees === "number" && degrees >= 0 && degrees <= 2,
    };
    const isFit = (/** @type {[string, any]} */ [name, value]) =>
      name in DEFAULTS && (fits[name] ?? ((/** @type {any} */ word) => typeof word === "string"))(value);
    return Object.fromEntries(Object.entries(given).filter(isFit));
  } catch {
    return {};
  }
}

/** @type {Generate} what is on the page, for tests */
export let generate;

/**
 * @param {HTMLElement} element
 * @param {App} app
 * @returns {Generate}
 */
export function mount(element, app) {
  generate = new Generate(element, app);
  return generate;
}
