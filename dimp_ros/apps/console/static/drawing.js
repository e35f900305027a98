// SPDX-License-Identifier: Apache-2.0
// Drawing a box with a mouse, a finger, a pen or the keyboard.

import { between, isBox, middle, moved, sized } from "./draft.js";

const STEP = 8;
const LEAST_DRAG = 6; // pixels of the window; less in both directions is a tap
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * Calls `on.begin()`, `on.end()`, and `on.follow(box)` with a box in the image that is shown at that moment. A tap gives
 * a box of no size: the tracker finds the object at that point.
 *
 * While a pointer draws, the image is frozen, so that the box belongs to it; at most for `freezeSeconds`, because the
 * tracker stores past images for some seconds only.
 */
export class Drawing {
  #canvas;
  #view;
  #on;
  #corner = null;
  #from = null;
  #frozenUntil = 0;

  constructor(canvas, view, on) {
    this.#canvas = canvas;
    this.#view = view;
    this.#on = on;
    this.freezeSeconds = 1;
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    canvas.addEventListener("pointercancel", () => this.cancel());
    canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Whether the image must not change. */
  get isFrozen() {
    return this.#corner !== null && performance.now() < this.#frozenUntil;
  }

  /** Start a target from the box. */
  send() {
    const box = this.#view.draft;
    this.#corner = null;
    if (isBox(box)) this.#on.follow(box);
    this.cancel();
  }

  /** Start a target from the object at a point, unless it is beside the image. */
  #tap([x, y]) {
    const [width, height] = this.#view.size;
    if (x >= 0 && x <= width && y >= 0 && y <= height) this.#on.follow([x, y, 0, 0]);
    this.cancel();
  }

  /** Discard the box. */
  cancel() {
    this.#corner = null;
    this.#draw(null);
    this.#on.end();
  }

  #draw(box) {
    this.#view.draft = box;
    this.#view.draw();
  }

  #down(event) {
    if (!this.#view.header || event.button !== 0 || !event.isPrimary) return;
    this.#canvas.setPointerCapture(event.pointerId);
    this.#corner = this.#view.toImage(event.clientX, event.clientY);
    this.#from = [event.clientX, event.clientY];
    this.#frozenUntil = performance.now() + this.freezeSeconds * 1000;
    this.#draw(null);
    this.#on.begin();
  }

  #move(event) {
    if (this.#corner === null || !event.isPrimary) return;
    this.#draw(between(this.#corner, this.#view.toImage(event.clientX, event.clientY), this.#view.size));
  }

  #up(event) {
    if (this.#corner === null || !event.isPrimary) return;
    const isLong = [event.clientX - this.#from[0], event.clientY - this.#from[1]].map((d) => Math.abs(d) >= LEAST_DRAG);
    if (isLong.every(Boolean)) this.send();
    else if (isLong.some(Boolean)) this.cancel();
    else this.#tap(this.#corner);
  }

  #key(event) {
    if (!this.#view.header || event.ctrlKey || event.metaKey) return;
    const [size, arrow] = [this.#view.size, ARROWS[event.key]];
    if (arrow) {
      const step = event.altKey ? 1 : Math.max(1, Math.round((STEP * size[0]) / 640));
      const [dx, dy] = arrow.map((direction) => direction * step);
      if (this.#view.draft === null) {
        this.#draw(middle(size));
        this.#on.begin();
      } else if (event.shiftKey) this.#draw(sized(this.#view.draft, dx, -dy, size));
      else this.#draw(moved(this.#view.draft, dx, dy, size));
    } else if (event.key === "Enter" && this.#view.draft !== null) this.send();
    else if (event.key === "Escape") this.cancel();
    else return;
    event.preventDefault();
  }
}
