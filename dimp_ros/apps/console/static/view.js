// SPDX-License-Identifier: Apache-2.0
// The video with the targets' boxes and the box being drawn.

import { STATES } from "./palette.js";

const FONT = "600 14px system-ui, sans-serif";
const SMALL_FONT = "600 12px system-ui, sans-serif";
const HALO = "rgba(0, 0, 0, 0.75)";

export class View {
  #canvas;
  #context;
  #numbers;
  #header = null;
  #bitmap = null;
  #labels = [];
  #boxes = [];

  constructor(canvas, numbers) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d");
    this.#numbers = numbers;
    this.draft = null;
    this.dimmed = false;
    this.staleAfter = 1;
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  /** The header of the image on the screen, null before the first. */
  get header() {
    return this.#header;
  }

  /** Width and height of the original image, pixels. */
  get size() {
    return this.#header ? [this.#header.width, this.#header.height] : null;
  }

  /** Show an image. */
  show(header, bitmap) {
    this.#bitmap?.close();
    if (!this.#header || this.#header.width !== header.width || this.#header.height !== header.height) {
      this.#canvas.parentElement.style.setProperty("--aspect", String(header.width / header.height));
    }
    this.#header = header;
    this.#bitmap = bitmap;
    this.draw();
  }

  /** Image coordinates of a position in the window. */
  toImage(clientX, clientY) {
    const frame = this.#canvas.getBoundingClientRect();
    const { scale, left, top } = this.#placement();
    return [(clientX - frame.left - left) / scale, (clientY - frame.top - top) / scale];
  }

  /** Window pixels per image pixel. */
  get scale() {
    return this.#placement().scale;
  }

  #placement() {
    const [width, height] = this.size ?? [16, 9];
    const scale = Math.min(this.#canvas.clientWidth / width, this.#canvas.clientHeight / height) || 1;
    const left = (this.#canvas.clientWidth - width * scale) / 2;
    return { scale, left, top: (this.#canvas.clientHeight - height * scale) / 2, width, height };
  }

  /** Redraw everything. */
  draw() {
    const [canvas, context, ratio] = [this.#canvas, this.#context, window.devicePixelRatio || 1];
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    if (!this.#bitmap) return;
    const place = this.#placement();
    context.drawImage(this.#bitmap, place.left, place.top, place.width * place.scale, place.height * place.scale);
    if (this.dimmed) this.#dim(width, height);
    this.#labels = [];
    this.#boxes = [];
    if (!this.dimmed) this.#drawTargets(place);
    if (this.draft) this.#drawDraft(place);
  }

  /** Make the image grey and dark; canvas filters are slow without a GPU. */
  #dim(width, height) {
    const context = this.#context;
    context.fillStyle = "#000";
    context.globalCompositeOperation = "saturation";
    context.fillRect(0, 0, width, height);
    context.globalCompositeOperation = "source-over";
    context.fillStyle = "rgba(0, 0, 0, 0.45)";
    context.fillRect(0, 0, width, height);
  }

  /** Draw the boxes of this image, or those of an earlier one thin and dotted with their age. */
  #drawTargets(place) {
    const update = this.#header.targets ?? this.#header.earlier;
    if (!update) return;
    const own = update === this.#header.targets;
    const behind = own ? 0 : seconds(this.#header.stamp) - seconds(update.stamp);
    if (!own && (behind < 0 || behind > this.staleAfter)) return;
    const inSight = update.list.filter((target) => target.box);
    this.#boxes = inSight.map((target) => target.box);
    for (const target of inSight) {
      const state = STATES[target.state];
      const colour = this.#numbers.colour(target.id);
      this.#stroke(place, target.box, colour, own ? state.dash : [2, 4], own ? 3 : 1.5);
      const parts = [`${this.#numbers.of(target.id)} ${target.id}`, target.confidence.toFixed(2)];
      if (target.state !== "TRACKING") parts.push(state.text);
      if (!own) parts.push(`${behind.toFixed(1)} s earlier`);
      this.#label(place, target.box, parts.join(" · "), colour);
    }
  }

  #drawDraft(place) {
    this.#stroke(place, this.draft, "#ffffff", [6, 4], 2);
    const [, , w, h] = this.draft;
    this.#label(place, this.draft, `${Math.round(w)} × ${Math.round(h)}`, "#ffffff");
  }

  #stroke(place, imageBox, colour, dash, thickness) {
    const context = this.#context;
    const box = onCanvas(place, imageBox);
    context.setLineDash([]);
    context.lineWidth = thickness + 3;
    context.strokeStyle = HALO;
    context.strokeRect(...box);
    context.setLineDash(dash);
    context.lineWidth = thickness;
    context.strokeStyle = colour;
    context.strokeRect(...box);
    context.setLineDash([]);
  }

  /** Write above, below or inside a box, where no other label and preferably no other box is. */
  #label(place, box, text, colour) {
    const context = this.#context;
    const small = this.#canvas.clientWidth < 480;
    context.font = small ? SMALL_FONT : FONT;
    const [width, height] = [Math.min(context.measureText(text).width + 14, this.#canvas.clientWidth), small ? 18 : 22];
    const [x, y, , h] = onCanvas(place, box);
    const left = Math.max(0, Math.min(x - 3, this.#canvas.clientWidth - width));
    const tops = [y - height - 4, y + h + 4, y + h - height - 3, y + 3].map((top) =>
      Math.max(0, Math.min(top, this.#canvas.clientHeight - height)),
    );
    const others = this.#boxes.filter((other) => other !== box).map((other) => onCanvas(place, other));
    const isFree = (top, taken) => taken.every((other) => !overlap([left, top, width, height], other));
    let top = tops.find((one) => isFree(one, [...this.#labels, ...others])) ?? tops[0];
    for (let tries = 0; tries < 12 && !isFree(top, this.#labels); tries += 1) top += height;
    this.#labels.push([left, top, width, height]);
    context.fillStyle = HALO;
    context.fillRect(left, top, width, height);
    context.fillStyle = colour;
    context.fillRect(left, top, 4, height);
    context.textBaseline = "middle";
    context.fillText(text, left + 9, top + height / 2 + 1, width - 12);
  }
}

/** A box of the image in CSS pixels of the canvas. */
function onCanvas({ scale, left, top }, [x, y, w, h]) {
  return [left + x * scale, top + y * scale, w * scale, h * scale];
}

function overlap([x, y, w, h], [x1, y1, w1, h1]) {
  return x < x1 + w1 && x1 < x + w && y < y1 + h1 && y1 < y + h;
}

function seconds([whole, nanoseconds]) {
  return whole + nanoseconds / 1e9;
}
