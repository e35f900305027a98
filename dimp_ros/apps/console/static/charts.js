// SPDX-License-Identifier: Apache-2.0
// Line chart of a value over the last 30 seconds.

const SPAN = 30;

export class Chart {
  #canvas;
  #points = [];
  #colour;
  #least;

  /** Draw on `canvas`; the scale goes from 0 to at least `least`. */
  constructor(canvas, colour, least) {
    this.#canvas = canvas;
    this.#colour = colour;
    this.#least = least;
  }

  /** Add a value, null for none, at a time in seconds. */
  add(at, value) {
    this.#points.push([at, value]);
    while (this.#points.length > 600 || this.#points[0][0] < at - SPAN) this.#points.shift();
  }

  /** Draw the values up to a time in seconds. */
  draw(now) {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [this.#canvas.clientWidth, this.#canvas.clientHeight];
    if (!width) return;
    this.#canvas.width = Math.round(width * ratio);
    this.#canvas.height = Math.round(height * ratio);
    const context = this.#canvas.getContext("2d");
    context.scale(ratio, ratio);
    const top = Math.max(this.#least, ...this.#points.map(([, value]) => value ?? 0));
    context.strokeStyle = "rgba(255, 255, 255, 0.18)";
    context.lineWidth = 1;
    for (const share of [0, 0.5, 1]) {
      const y = 1.5 + (height - 3) * share;
      context.beginPath();
      context.moveTo(0, y);
      context.lineTo(width, y);
      context.stroke();
    }
    context.strokeStyle = this.#colour;
    context.lineWidth = 2;
    context.lineJoin = "round";
    context.beginPath();
    let drawing = false;
    for (const [at, value] of this.#points) {
      if (value === null) {
        drawing = false;
        continue;
      }
      const [x, y] = [width * (1 - (now - at) / SPAN), 1.5 + (height - 3) * (1 - value / top)];
      if (drawing) context.lineTo(x, y);
      else context.moveTo(x, y);
      drawing = true;
    }
    context.stroke();
  }
}
