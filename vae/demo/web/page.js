/** The page: header, stage and tabs. Each tab is a module, imported when it is first opened. */

import { App } from "./app.js";
import { button, make } from "./dom.js";
import { morph } from "./morph.js";
import { Stage } from "./stage.js";

const TABS = ["explore", "generate", "reconstruct", "interpolate", "map", "learn"];

/** @typedef {{models: import("./app.js").ModelName[], notices: string[]}} Description what vae/demo/page.py tells */
/** @typedef {{update?: () => void}} Tab what `mount` of a tab's module returns */

/** @param {number} count */
const inOneSentence = (count) => `It squeezes a picture into ${count} numbers and redraws it. Change the numbers.`;

/**
 * @param {App} app
 * @param {string[]} notices
 */
function header(app, notices) {
  const card = ({ label, name }, /** @type {number} */ index) => {
    const input = make("input", { type: "radio", name: "model", value: name, "aria-label": label });
    const mark = () => {
      input.checked = app.state.present?.model === name;
    };
    input.onchange = () => app.choose(name);
    app.state.addEventListener("change", mark);
    app.addEventListener("refuse", mark);
    const image = make("img", { src: new URL(`faces/${index}`, import.meta.url).href, alt: "", width: 56, height: 56 });
    image.onerror = () => image.classList.add("missing");
    return make("label", { className: "card" }, input, image, make("span", {}, label));
  };
  const sentence = make("p", {}, inOneSentence(64));
  app.state.addEventListener("change", () => {
    sentence.textContent = inOneSentence(app.state.present.point.z.length);
  });
  const about = make("dialog", { className: "about", "aria-label": "About" });
  const open = () => {
    showAbout(about, app);
    about.showModal();
  };
  const told = notices.map((notice) => make("p", {}, notice.endsWith(".") ? notice : `${notice}.`));
  return make(
    "header",
    { className: "top" },
    make("div", { className: "name" }, make("h1", {}, "unvaelievable"), sentence),
    make("div", { className: "cards", role: "radiogroup", "aria-label": "Model" }, ...app.models.map(card)),
    button("About", open, { className: "quiet" }),
    about,
    ...(told.length > 0 ? [make("div", { className: "notices" }, ...told)] : []),
  );
}

/**
 * @param {HTMLDialogElement} dialog
 * @param {App} app
 */
async function showAbout(dialog, app) {
  const close = button("Close", () => dialog.close());
  dialog.replaceChildren(make("p", {}, "…"), close);
  try {
    const [{ title, figures, data, attribution }] = await app.call("about", [app.model]);
    const rows = figures.flatMap(([what, figure]) => [make("dt", {}, what), make("dd", {}, figure)]);
    // Gradio's own description of the API, which only its own button opens; style.css hides the footer around it.
    const api = button("Call these models from a program", () => {
      dialog.close();
      /** @type {HTMLElement | null} */ (document.querySelector("footer .show-api"))?.click();
    });
    dialog.replaceChildren(
      make("h2", {}, title),
      make("dl", {}, ...rows),
      ...[data && `Data: ${data}.`, attribution && `${attribution}.`]
        .filter(Boolean)
        .map((text) => make("p", {}, text)),
      make("p", {}, "Pictures you upload are shown to nobody else, and deleted an hour after their last use."),
      make("div", { className: "row" }, api, close),
    );
  } catch (error) {
    dialog.replaceChildren(make("p", {}, error.message), close);
  }
}

class Tabs {
  /** @type {Map<string, {tab: HTMLButtonElement, panel: HTMLElement, mounted: Promise<Tab> | null}>} */
  #all = new Map();
  #present = TABS[0];

  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.bar = make("div", { className: "tabs", role: "tablist", "aria-label": "What to do with the picture" });
    this.element = make("div", { className: "work" }, this.bar);
    for (const name of TABS) {
      const [id, panelId] = [`tab-${name}`, `panel-${name}`];
      const text = name[0].toUpperCase() + name.slice(1);
      const tab = button(text, () => this.open(name), { role: "tab", id, "aria-controls": panelId });
      const panel = make("div", { role: "tabpanel", id: panelId, className: `panel ${name}`, "aria-labelledby": id });
      this.bar.append(tab);
      this.element.append(panel);
      this.#all.set(name, { tab, panel, mounted: null });
    }
    this.bar.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.#move(event));
    app.open = (name) => this.open(name);
    app.addEventListener("change", () => this.#update());
  }

  /** @param {string} name */
  open(name) {
    const opened = this.#all.has(name) ? name : TABS[0];
    if (opened !== this.#present) this.app.show(null); // whatever the last one showed
    this.#present = opened;
    for (const [other, { tab, panel }] of this.#all) {
      const isOpen = other === opened;
      tab.setAttribute("aria-selected", String(isOpen));
      tab.tabIndex = isOpen ? 0 : -1;
      panel.hidden = !isOpen;
    }
    this.app.keep("tab", opened === TABS[0] ? null : opened);
    this.#all.get(opened).tab.scrollIntoView({ block: "nearest", inline: "nearest" });
    return this.#update();
  }

  async #update() {
    const name = this.#present;
    const entry = this.#all.get(name);
    if (!this.app.state.present) return; // the first point is on its way
    entry.mounted ??= import(`./${name}.js`).then(({ mount }) => mount(entry.panel, this.app) ?? {});
    try {
      const tab = await entry.mounted;
      if (name === this.#present) tab.update?.();
    } catch (error) {
      console.error(error);
      entry.mounted = null;
      this.app.say(`This tab can't be opened: ${error.message}`);
    }
  }

  /** @param {KeyboardEvent} event */
  #move(event) {
    const index = TABS.indexOf(this.#present);
    const to = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: TABS.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const name = TABS[(to + TABS.length) % TABS.length];
    this.open(name);
    this.#all.get(name).tab.focus();
  }
}

/** @type {App} what is on the page, for tests */
export let app;

/**
 * @param {HTMLElement} element
 * @param {Description} description
 */
export async function start(element, { models, notices }) {
  app = new App(models);
  const stage = new Stage(app);
  const tabs = new Tabs(app);
  const side = make("div", { className: "side" }, stage.element, stage.origin);
  element.replaceChildren(
    make("div", { className: "vae" }, header(app, notices), make("div", { className: "rooms" }, side, tabs.element)),
  );
  const isNew = location.hash.length < 2;
  if (isNew) stage.await(new URL("faces/0", import.meta.url).href);
  await app.start();
  await tabs.open(app.kept("tab") ?? TABS[0]);
  if (isNew) morph(app);
}
