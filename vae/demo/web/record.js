/** A film of a walk, recorded by the browser itself, and so in the format that it can write. */

import { canvas, enlarged, paint } from "./dom.js";

const SECONDS = 4; // there and back
const FRAME_MS = 40;
const BITS_PER_SECOND = 4_000_000;
const SIDE = 512; // pixels, at least

/** @type {{name: string, type: string} | undefined} what it can write, if anything */
export const VIDEO = [
  { name: "MP4", type: "video/mp4;codecs=avc1.42E01F" },
  { name: "MP4", type: "video/mp4" },
  { name: "WebM", type: "video/webm" },
].find(({ type }) => globalThis.MediaRecorder?.isTypeSupported(type));

/**
 * @param {(t: number) => Promise<ImageData | ImageBitmap>} draw the picture at t, from 0 to 1
 * @param {(share: number) => void} tell how much is done
 * @returns {Promise<Blob>}
 */
export async function record(draw, tell) {
  const count = Math.round((1000 * SECONDS) / FRAME_MS / 2);
  const frames = [];
  for (let index = 0; index <= count; index++) {
    const frame = canvas();
    paint(frame, await draw(index / count));
    frames.push(frame);
    tell((0.3 * index) / count);
  }
  const film = enlarged(frames[0], SIDE);
  const context = film.getContext("2d");
  context.imageSmoothingEnabled = frames[0].width >= 64;
  const recorder = new MediaRecorder(film.captureStream(), {
    mimeType: VIDEO.type,
    videoBitsPerSecond: BITS_PER_SECOND,
  });
  /** @type {Blob[]} */
  const parts = [];
  recorder.ondataavailable = ({ data }) => parts.push(data);
  const written = new Promise((give, refuse) => {
    recorder.onstop = () => give(new Blob(parts, { type: VIDEO.type }));
    recorder.onerror = () => refuse(new Error("The browser can't write this film."));
  });
  recorder.start();
  const sequence = [...frames, ...frames.slice(1, -1).reverse()];
  for (const [index, frame] of sequence.entries()) {
    context.drawImage(frame, 0, 0, film.width, film.height);
    tell(0.3 + (0.7 * index) / sequence.length);
    await new Promise((go) => setTimeout(go, FRAME_MS)); // a recorder keeps the time of the clock
  }
  recorder.stop();
  return written;
}
