// SPDX-License-Identifier: Apache-2.0
// Colours that people tell apart whatever colours they see, and what says the same without colour.

/** Okabe and Ito's palette, the ones that stand out from a dark ground first. */
export const COLOURS = ["#56b4e9", "#e69f00", "#cc79a7", "#f0e442", "#009e73", "#d55e00", "#0072b2"];

/** How each state is written, and how its box is drawn. A lost target has no box. */
export const STATES = {
  TRACKING: { word: "tracking", glyph: "●", dash: [] },
  UNCERTAIN: { word: "uncertain", glyph: "◐", dash: [9, 6] },
  LOST: { word: "lost", glyph: "○", dash: [2, 5] },
  UNINITIALIZED: { word: "not followed", glyph: "–", dash: [2, 5] },
};

/** Gives each target a number, from 1, that it keeps while it is there; its colour goes with it. */
export class Numbers {
  #given = new Map();

  /** Let go of the numbers of targets that are not among `ids`, and give numbers to those that have none. */
  update(ids) {
    for (const id of this.#given.keys()) {
      if (!ids.includes(id)) this.#given.delete(id);
    }
    for (const id of ids) {
      if (this.#given.has(id)) continue;
      const taken = new Set(this.#given.values());
      let number = 1;
      while (taken.has(number)) number += 1;
      this.#given.set(id, number);
    }
  }

  of(id) {
    return this.#given.get(id) ?? 0;
  }

  colour(id) {
    return COLOURS[(Math.max(1, this.of(id)) - 1) % COLOURS.length];
  }
}
