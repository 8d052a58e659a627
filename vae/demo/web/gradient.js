/** A small diagram: which way the gradient takes, with the reparameterization trick and without. */

import { make } from "./dom.js";

const WIDTH = 560;
const HEIGHT = 150;
const BACK = 14; // pixels below an arrow forward, where the one back runs

/** @param {string} name @param {Record<string, string | number>} attributes @param {string} text */
function svg(name, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  element.textContent = text;
  return element;
}

/** @param {number} x @param {number} y @param {string} text @param {string} className @param {number} width */
function box(x, y, text, className, width = 64) {
  const group = svg("g", { class: className });
  group.append(
    svg("rect", { x: x - width / 2, y: y - 16, width, height: 32, rx: 8 }),
    svg("text", { x, y: y + 5, "text-anchor": "middle" }, text),
  );
  return group;
}

/**
 * @param {[number, number]} from
 * @param {[number, number]} to
 * @param {string} className
 */
function arrow([x0, y0], [x1, y1], className) {
  const length = Math.hypot(x1 - x0, y1 - y0);
  const [ux, uy] = [(x1 - x0) / length, (y1 - y0) / length];
  const wing = (/** @type {number} */ side) => `L${x1 - 7 * ux + side * 4 * uy},${y1 - 7 * uy - side * 4 * ux}`;
  return svg("path", {
    class: className,
    d: `M${x0},${y0} L${x1},${y1} M${x1},${y1} ${wing(1)} M${x1},${y1} ${wing(-1)}`,
  });
}

/**
 * @param {boolean} withTrick
 * @returns {SVGElement[]}
 */
function parts(withTrick) {
  const [encoder, mid, z, decoder] = [45, 185, 335, 470];
  const [up, down, base] = [32, 78, 55];
  const shapes = [
    arrow([encoder + 37, base - 6], [mid - 24, up], "forward"),
    arrow([encoder + 37, base + 6], [mid - 24, down], "forward"),
    arrow([mid + 24, up], [z - 44, base - 6], "forward"),
    arrow([mid + 24, down], [z - 44, base + 4], "forward"),
    arrow([z + 44, base], [decoder - 40, base], "forward"),
    arrow([decoder - 40, base + BACK], [z + 46, base + BACK], "back"),
    box(encoder, base, "encoder", "net", 72),
    box(mid, up, "μ", "mu", 46),
    box(mid, down, "σ", "sigma", 46),
    box(z, base, withTrick ? "μ + σ·ε" : "draw z", withTrick ? "z" : "chance", 84),
    box(decoder, base, "decoder", "net", 80),
    svg("text", { x: decoder + 48, y: base + 5, class: "plain" }, "loss"),
  ];
  if (!withTrick)
    return [
      ...shapes,
      svg("text", { x: z, y: base + 46, class: "stop", "text-anchor": "middle" }, "✕ sampling has no derivative"),
    ];
  return [
    ...shapes,
    arrow([z - 44, base + BACK + 5], [mid + 26, down + 13], "back"),
    arrow([z - 44, base - 17], [mid + 26, up - 12], "back"),
    arrow([mid - 26, down + 11], [encoder + 32, base + 21], "back"),
    arrow([mid - 26, up - 11], [encoder + 32, base - 20], "back"),
    box(z, 126, "ε ~ N(0, I)", "chance", 104),
    arrow([z, 109], [z, base + 18], "forward"),
  ];
}

const WORDS = {
  true: "The gradient (dashed) flows back through + and · to μ and σ, and on to the encoder. All randomness is in ε, which has nothing to train.",
  false: "If z were drawn at random inside the network, the gradient would end there: the encoder would learn nothing.",
};

/** @returns {Node[]} the diagram, and what switches it */
export function gradient() {
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "gradient", role: "img" });
  const words = make("p", { className: "note" });
  const show = (/** @type {boolean} */ withTrick) => {
    picture.replaceChildren(...parts(withTrick));
    picture.setAttribute("aria-label", WORDS[String(withTrick)]);
    words.textContent = WORDS[String(withTrick)];
  };
  const choice = (/** @type {string} */ text, /** @type {boolean} */ withTrick) => {
    const input = make("input", { type: "radio", name: "trick", checked: withTrick, onchange: () => show(withTrick) });
    return make("label", { className: "choice" }, input, text);
  };
  show(true);
  const choices = make(
    "div",
    { className: "choices", role: "radiogroup", "aria-label": "How z is drawn" },
    choice("with the trick", true),
    choice("without", false),
  );
  return [choices, picture, words];
}
