// SPDX-License-Identifier: Apache-2.0
// Geometry of the box being drawn: [x, y, width, height] in image pixels.

export const LEAST = 4;

/** The box between two corners, clipped to an image of `size` [width, height]. */
export function between(first, second, size) {
  const [x0, x1] = [first[0], second[0]].map((x) => clamp(x, 0, size[0])).sort((a, b) => a - b);
  const [y0, y1] = [first[1], second[1]].map((y) => clamp(y, 0, size[1])).sort((a, b) => a - b);
  return [x0, y0, x1 - x0, y1 - y0];
}

/** The initial box for the keyboard: an eighth of the image's sides, in its middle. */
export function middle(size) {
  const [w, h] = [Math.round(size[0] / 8), Math.round(size[1] / 8)];
  return [Math.round((size[0] - w) / 2), Math.round((size[1] - h) / 2), w, h];
}

/** The box moved by (dx, dy), within the image. */
export function moved([x, y, w, h], dx, dy, size) {
  return [clamp(x + dx, 0, size[0] - w), clamp(y + dy, 0, size[1] - h), w, h];
}

/** The box enlarged by (dw, dh) about its middle, within the image. */
export function sized([x, y, w, h], dw, dh, size) {
  const [width, height] = [clamp(w + dw, LEAST, size[0]), clamp(h + dh, LEAST, size[1])];
  const [left, top] = [x + (w - width) / 2, y + (h - height) / 2];
  return [clamp(left, 0, size[0] - width), clamp(top, 0, size[1] - height), width, height];
}

/** Whether a box is large enough. */
export function isBox(box) {
  return box !== null && box[2] >= LEAST && box[3] >= LEAST;
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}
