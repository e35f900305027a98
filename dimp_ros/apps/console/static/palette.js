// SPDX-License-Identifier: Apache-2.0
// Colours that are distinct for colour-blind users, and the glyphs and dashes that show the same without colour.

/** Okabe and Ito's palette, ordered by contrast to a dark background. */
export const COLOURS = ["#56b4e9", "#e69f00", "#cc79a7", "#f0e442", "#009e73", "#d55e00", "#0072b2"];

/** Text, glyph and line style of each state. A lost target has no box. */
export const STATES = {
  TRACKING: { text: "tracking", glyph: "●", dash: [] },
  UNCERTAIN: { text: "uncertain", glyph: "◐", dash: [9, 6] },
  LOST: { text: "lost", glyph: "○", dash: [2, 5] },
  UNINITIALIZED: { text: "not followed", glyph: "–", dash: [2, 5] },
};

/** Assigns each target a number from 1 and its colour, which it keeps until it is dropped. */
export class Numbers {
  #numbers = new Map();

  /** Free the numbers of targets that are not in `ids`, and assign numbers to new ones. */
  update(ids) {
    for (const id of this.#numbers.keys()) {
      if (!ids.includes(id)) this.#numbers.delete(id);
    }
    for (const id of ids) {
      if (this.#numbers.has(id)) continue;
      const taken = new Set(this.#numbers.values());
      let number = 1;
      while (taken.has(number)) number += 1;
      this.#numbers.set(id, number);
    }
  }

  of(id) {
    return this.#numbers.get(id) ?? 0;
  }

  colour(id) {
    return COLOURS[(Math.max(1, this.of(id)) - 1) % COLOURS.length];
  }
}
