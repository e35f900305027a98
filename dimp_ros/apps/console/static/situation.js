// SPDX-License-Identifier: Apache-2.0
// How things are, in words: never better than they are known to be.

const SILENT = 2; // seconds without a message; the robot sends two a second
const byId = (id) => document.getElementById(id);

export class Situation {
  #view;
  #status = null;
  #down = "connecting";
  #retryAt = 0;
  #picture = null;
  #targetsAt = 0;
  #trackerName = "";

  constructor(view) {
    this.#view = view;
    this.staleAfter = 1;
    this.hold = "";
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
    this.#status = this.#picture = this.targets = null;
    this.staleAfter = hello.stale_after;
    this.#trackerName = hello.tracker;
  }

  disconnected(text, wait) {
    this.#down = text;
    this.#retryAt = performance.now() / 1000 + wait;
  }

  statusCame(fields) {
    this.#status = fields;
  }

  /** Note when the picture on the screen was taken, by this machine's clock. */
  pictureCame(header, at) {
    this.#picture = { header, at: at - header.age - this.#way };
  }

  /** Note what was told of the targets, and return whether it is news. */
  targetsCame(news, at) {
    if (this.targets && news.number < this.targets.number) return false;
    this.targets = news;
    this.#targetsAt = at - news.age - this.#way;
    return true;
  }

  /** Seconds since what is known of the targets was said. */
  targetsAge(now) {
    return this.targets ? Math.max(0, now - this.#targetsAt) : 0;
  }

  /** Seconds that a message takes from the robot to here, about. */
  get #way() {
    return (this.#status?.link.round_trip ?? 0) / 2;
  }

  /** What to say where there is no target in the list. */
  noTargets(count) {
    if (count) return "";
    if (!this.isConnected || !this.#status) return "Not known.";
    if (!this.#status.tracker.present) return "Not known: the tracker is not there.";
    return this.targets ? "None. Drag a box round one in the video." : "Nothing was heard of the tracker yet.";
  }

  /** Put chips, banner and notice on the screen; the robot was last heard `silence` seconds ago. */
  show(now, silence) {
    const [link, video, tracker, notice, banner] = this.#words(now, silence);
    chip("chip-link", link);
    chip("chip-video", video);
    chip("chip-tracker", tracker);
    byId("notice").hidden = !notice;
    set(byId("notice").firstElementChild, notice?.[0] ?? "");
    set(byId("notice").lastElementChild, notice?.[1] ?? "");
    const said = notice ? "" : banner;
    byId("banner").hidden = !said;
    set(byId("banner"), said);
    const dimmed = Boolean(notice) || video[0] === "bad";
    if (dimmed !== this.#view.dimmed) {
      this.#view.dimmed = dimmed;
      this.#view.draw();
    }
  }

  /** Chips as [level, words], the notice over the video as [title, text] or null, and the banner. */
  #words(now, silence) {
    const unknown = ["off", "not known"];
    if (!this.isConnected) {
      const wait = Math.max(0, Math.ceil(this.#retryAt - now));
      const again = wait ? `. Trying again in ${wait} s.` : "";
      return [["bad", "not connected"], unknown, unknown, ["Not connected to the robot", sentence(this.#down + again)], ""];
    }
    if (silence > SILENT) {
      const text = `Nothing was heard for ${silence.toFixed(0)} s; what is on the screen is that old.`;
      return [["bad", `silent for ${silence.toFixed(0)} s`], unknown, unknown, ["The robot is silent", text], ""];
    }
    const status = this.#status;
    if (!status) return [["off", "connecting"], unknown, unknown, null, ""];
    const { rate, round_trip: trip } = status.link;
    const link = ["good", `${rate.toFixed(0)} pictures/s, ${Math.round(trip * 1000)} ms`];
    const [video, notice, stale] = this.#video(now, status.video);
    const tracker = trackerWords(status.tracker);
    const trouble = status.tracker.present ? "" : `Tracker not there: nobody answers as ${this.#trackerName}.`;
    return [link, video, tracker, notice, stale || trouble];
  }

  #video(now, video) {
    const reason = sentence(video.reason);
    if (video.state === "none") return [["bad", "no video"], ["No video", reason || "No image has come yet."], ""];
    if (video.state === "bad") return [["bad", "cannot be shown"], ["Video cannot be shown", reason], ""];
    if (!this.#picture) return [["off", "waiting"], null, ""];
    if (this.hold) return [["fair", "held"], null, this.hold];
    const age = now - this.#picture.at;
    if (video.state === "stale" || age > this.staleAfter) {
      const why = video.state === "stale" ? reason : "The camera is well: the link is too slow.";
      return [["bad", `stale (${age.toFixed(1)} s)`], null, `Stale: this picture is ${age.toFixed(1)} s old. ${why}`];
    }
    if (video.reason) return [["fair", "live, see below"], null, reason];
    return [["good", `live, ${Math.round(age * 1000)} ms`], null, ""];
  }
}

function trackerWords({ present, enabled, trouble }) {
  if (!present) return ["bad", "not there"];
  if (enabled === false) return ["fair", "paused"];
  if (trouble) return ["fair", trouble];
  return ["good", enabled ? "working" : "there"];
}

const GLYPHS = { good: "✓", fair: "▲", bad: "✕", off: "…" };

function chip(id, [level, words]) {
  byId(id).dataset.level = level;
  set(byId(id).lastElementChild, `${GLYPHS[level]} ${words}`);
  byId(id).title = words;
}

/** Change a text only if it has: a screen reader would say it again. */
function set(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

function sentence(text) {
  if (!text) return "";
  const begun = text[0].toUpperCase() + text.slice(1);
  return /[.?!]$/.test(begun) ? begun : `${begun}.`;
}
