/** Decodes in a thread of its own: the first message is the model's file, every other one a latent vector. */

import { Decoder, toRgba } from "./decoder.js";

/** @type {Decoder | undefined} */
let decoder;

self.onmessage = ({ data }) => {
  if (!decoder) {
    decoder = new Decoder(data);
    self.postMessage(null);
    return;
  }
  const pixels = toRgba(decoder.decode(data), decoder.config.channels);
  self.postMessage(pixels, { transfer: [pixels.buffer] });
};
