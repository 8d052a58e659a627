/** The visitor's camera, open only while it is needed. */

import { button, make } from "./dom.js";

export class Webcam {
  /** @type {MediaStream | null} */
  #stream = null;
  #isAsking = false; // the visitor, whether it may be opened

  /**
   * @param {(file: Blob) => void} take a photograph
   * @param {(sentence: string) => void} refuse
   */
  constructor(take, refuse) {
    this.take = take;
    this.refuse = refuse;
    this.element = make("div", { className: "camera", hidden: true });
  }

  /** Open it, or close it if it is open. Where the visitor has left meanwhile, it stays closed. */
  async toggle() {
    if (this.#isAsking) return;
    if (!this.element.hidden) {
      this.close();
      return;
    }
    try {
      this.#isAsking = true;
      this.#stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch (error) {
      this.refuse(`The webcam could not be opened: ${error.message ?? error}.`);
      return;
    } finally {
      this.#isAsking = false;
    }
    if (this.element.parentElement.closest("[hidden]")) {
      this.close();
      return;
    }
    const video = make("video", { autoplay: true, muted: true, playsInline: true, srcObject: this.#stream });
    const shoot = button("Take the picture", () => this.#shoot(video), { className: "primary" });
    const close = button("Close", () => this.close());
    this.element.replaceChildren(video, make("div", { className: "bar" }, shoot, close));
    this.element.hidden = false;
  }

  close() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#stream = null;
    this.element.replaceChildren();
    this.element.hidden = true;
  }

  /** @param {HTMLVideoElement} video */
  #shoot(video) {
    if (video.videoWidth === 0) return; // it is still dark
    const frame = make("canvas", { width: video.videoWidth, height: video.videoHeight });
    frame.getContext("2d").drawImage(video, 0, 0);
    this.close();
    frame.toBlob((/** @type {Blob} */ file) => this.take(file), "image/jpeg", 0.95);
  }
}
