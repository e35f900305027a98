// SPDX-License-Identifier: Apache-2.0
// The state of link, video and tracker as texts; what is not known is shown as unknown.

const SILENT = 2; // seconds without a message; the robot sends two a second
const byId = (id) => document.getElementById(id);

export class Situation {
  #view;
  #status = null;
  #down = "connecting";
  #retryAt = 0;
  #image = null;
  #targetsAt = 0;
  #trackerName = "";

  constructor(view) {
    this.#view = view;
    this.staleAfter = 1;
    this.frozenText = "";
    this.targets = null;
  }

  get isConnected() {
    return this.#down === "";
  }

  get tracker() {
    return this.#status?.tracker;
  }

  connected(hello) {
    this.#down = "";
    this.#status = this.#image = this.targets = null;
    this.staleAfter = hello.stale_after;
    this.#trackerName = hello.tracker;
  }

  disconnected(text, wait) {
    this.#down = text;
    this.#retryAt = performance.now() / 1000 + wait;
  }

  setStatus(fields) {
    this.#status = fields;
  }

  /** Record when the image on the screen arrived at the robot, by this machine's clock. */
  addImage(header, at) {
    this.#image = { header, at: at - header.age - this.#delay };
  }

  /** Store an update of the targets; return false if a newer one is stored already. */
  setTargets(update, at) {
    if (this.targets && update.number < this.targets.number) return false;
    this.targets = update;
    this.#targetsAt = at - update.age - this.#delay;
    return true;
  }

  /** Age of the last update of the targets, seconds. */
  targetsAge(now) {
    return this.targets ? Math.max(0, now - this.#targetsAt) : 0;
  }

  /** Estimated delay from the robot to here: half of the round trip, seconds. */
  get #delay() {
    return (this.#status?.link.round_trip ?? 0) / 2;
  }

  /** The text for an empty list of targets. */
  noTargets(count) {
    if (count) return "";
    if (!this.isConnected || !this.#status) return "Unknown.";
    if (!this.#status.tracker.present) return "Unknown: the tracker is not available.";
    return this.targets ? "None. Tap one in the video, or drag a box around it." : "No message from the tracker yet.";
  }

  /** Show chips, banner and notice; `silence`: seconds since the last message from the robot. */
  show(now, silence) {
    const [link, video, tracker, notice, banner] = this.#texts(now, silence);
    chip("chip-link", link);
    chip("chip-video", video);
    chip("chip-tracker", tracker);
    byId("notice").hidden = !notice;
    set(byId("notice").firstElementChild, notice?.[0] ?? "");
    set(byId("notice").lastElementChild, notice?.[1] ?? "");
    const text = notice ? "" : banner;
    byId("banner").hidden = !text;
    set(byId("banner"), text);
    const dimmed = Boolean(notice) || video[0] === "bad";
    if (dimmed !== this.#view.dimmed) {
      this.#view.dimmed = dimmed;
      this.#view.draw();
    }
  }

  /** Chips as [level, text], the notice over the video as [title, text] or null, and the banner. */
  #texts(now, silence) {
    const unknown = ["off", "unknown"];
    if (!this.isConnected) {
      const wait = Math.max(0, Math.ceil(this.#retryAt - now));
      const again = wait ? `. Trying again in ${wait} s.` : "";
      return [["bad", "not connected"], unknown, unknown, ["Not connected to the robot", sentence(this.#down + again)], ""];
    }
    if (silence > SILENT) {
      const text = `No message for ${silence.toFixed(0)} s; the screen is that old.`;
      return [["bad", `silent for ${silence.toFixed(0)} s`], unknown, unknown, ["The robot is silent", text], ""];
    }
    const status = this.#status;
    if (!status) return [["off", "connecting"], unknown, unknown, null, ""];
    const { rate, round_trip: trip } = status.link;
    const link = ["good", `${rate.toFixed(0)} images/s, ${Math.round(trip * 1000)} ms`];
    const [video, notice, stale] = this.#video(now, status.video);
    const unheard = status.video.state === "live" ? this.targetsAge(now) : 0; // it reports once per image
    const tracker = trackerText(status.tracker, unheard > this.staleAfter ? unheard : 0);
    const trouble = status.tracker.present ? "" : `Tracker not available: no node ${this.#trackerName}.`;
    return [link, video, tracker, notice, stale || trouble];
  }

  #video(now, video) {
    const reason = sentence(video.reason);
    if (video.state === "none") return [["bad", "no video"], ["No video", reason || "No image received yet."], ""];
    if (video.state === "bad") return [["bad", "cannot be shown"], ["Video cannot be shown", reason], ""];
    if (!this.#image) return [["off", "waiting"], null, ""];
    if (this.frozenText) return [["fair", "frozen"], null, this.frozenText];
    const age = now - this.#image.at;
    if (video.state === "stale" || age > this.staleAfter) {
      const why = video.state === "stale" ? reason : "The camera works; the link is too slow.";
      return [["bad", `stale (${age.toFixed(1)} s)`], null, `Stale: this image is ${age.toFixed(1)} s old. ${why}`];
    }
    if (video.reason) return [["fair", "live, see below"], null, reason];
    return [["good", `live, ${Math.round(age * 1000)} ms`], null, ""];
  }
}

function trackerText({ present, enabled, trouble }, unheard) {
  if (!present) return ["bad", "not available"];
  if (unheard) return ["bad", `silent for ${unheard.toFixed(0)} s`];
  if (enabled === false) return ["fair", "paused"];
  if (trouble) return ["fair", trouble];
  return ["good", enabled ? "working" : "available"];
}

const GLYPHS = { good: "✓", fair: "▲", bad: "✕", off: "…" };

function chip(id, [level, text]) {
  byId(id).dataset.level = level;
  set(byId(id).lastElementChild, `${GLYPHS[level]} ${text}`);
  byId(id).title = text;
}

/** Set a text only if it differs: screen readers read every change aloud. */
function set(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

function sentence(text) {
  if (!text) return "";
  const begun = text[0].toUpperCase() + text.slice(1);
  return /[.?!]$/.test(begun) ? begun : `${begun}.`;
}
