/** The Reconstruct tab. */

import { make } from "./dom.js";

/**
 * @param {HTMLElement} element
 * @param {import("./app.js").App} _app
 */
export function mount(element, _app) {
  element.append(make("h2", {}, "Reconstruct"), make("p", {}, "This tab is still to come."));
}
