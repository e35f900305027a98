// SPDX-License-Identifier: Apache-2.0
// The list of targets: state, confidence and age of each, with buttons.

import { Chart } from "./charts.js";
import { STATES } from "./palette.js";

/** Calls `on.drop(id)` and `on.redraw(id)`. */
export class TargetList {
  #list;
  #numbers;
  #on;
  #cards = new Map();

  constructor(list, numbers, on) {
    this.#list = list;
    this.#numbers = numbers;
    this.#on = on;
  }

  /** Show `targets`; the update is `extra` seconds old, and `stale` or not. */
  update(targets, extra, stale, now) {
    const ids = targets.map((target) => target.id);
    for (const [id, card] of this.#cards) {
      if (ids.includes(id)) continue;
      const focused = card.item.contains(document.activeElement);
      card.item.remove();
      this.#cards.delete(id);
      if (focused) (this.#list.firstElementChild ?? document.getElementById("view")).focus();
    }
    for (const target of targets) this.#fill(this.#card(target.id), target, extra, stale, now);
  }

  /** Draw the charts up to `now`, seconds. */
  draw(now) {
    for (const card of this.#cards.values()) {
      card.confidenceChart.draw(now);
      card.ageChart.draw(now);
    }
  }

  #card(id) {
    if (!this.#cards.has(id)) {
      const card = makeCard(id, this.#numbers.of(id), this.#numbers.colour(id), this.#on);
      this.#cards.set(id, card);
      this.#list.append(card.item);
    }
    return this.#cards.get(id);
  }

  #fill(card, target, extra, stale, now) {
    const state = STATES[target.state];
    const found = target.box !== null && !stale;
    const age = target.age + extra;
    card.item.dataset.state = stale ? "STALE" : target.state;
    card.state.textContent = stale ? `no update for ${extra.toFixed(1)} s` : `${state.glyph} ${state.text}`;
    if (!stale && target.state === "LOST" && target.unseen > 0) {
      card.state.textContent += `, last seen ${target.unseen.toFixed(1)} s ago`;
    }
    card.confidence.textContent = found ? target.confidence.toFixed(2) : "–";
    card.age.textContent = age < 10 ? `${Math.round(age * 1000)} ms` : `${age.toFixed(0)} s`;
    card.confidenceChart.add(now, found ? target.confidence : null);
    card.ageChart.add(now, Math.min(age, 10));
  }
}

function makeCard(id, number, colour, on) {
  const item = element("li", "target");
  item.tabIndex = 0;
  item.style.setProperty("--colour", colour);
  item.setAttribute("aria-label", `Target ${id}; Delete drops it`);
  const head = element("div", "head");
  head.append(element("span", "number", String(number)), element("strong", "", id));
  const state = element("span", "state");
  const charts = element("div", "charts");
  const [confidence, confidenceChart] = chart(charts, "Confidence", colour, 1);
  const [age, ageChart] = chart(charts, "Age", colour, 0.2);
  const actions = element("div", "actions");
  const redraw = element("button", "", "Redraw");
  redraw.title = `Use the next box for ${id}`;
  redraw.onclick = () => on.redraw(id);
  const drop = element("button", "", "Drop");
  drop.onclick = () => on.drop(id);
  actions.append(redraw, drop);
  item.append(head, state, charts, actions);
  item.onkeydown = (event) => {
    if (event.key !== "Delete" && event.key !== "Backspace") return;
    event.preventDefault();
    on.drop(id);
  };
  return { item, state, confidence, age, confidenceChart, ageChart };
}

function chart(parent, title, colour, least) {
  const figure = element("div", "chart");
  const value = element("b");
  const label = element("span", "", `${title} `);
  label.append(value);
  const canvas = element("canvas");
  canvas.setAttribute("aria-hidden", "true");
  figure.append(label, canvas);
  parent.append(figure);
  return [value, new Chart(canvas, colour, least)];
}

/** Make an element; its content is text, never markup, since names come from the network. */
export function element(name, className = "", text = "") {
  const result = document.createElement(name);
  if (className) result.className = className;
  if (text) result.textContent = text;
  return result;
}
