// SPDX-License-Identifier: Apache-2.0
// The console: what the robot says goes onto the screen, what the operator draws goes to the robot.

import { Connection } from "./connection.js";
import { Drawing } from "./drawing.js";
import { Numbers } from "./palette.js";
import { Situation } from "./situation.js";
import { TargetList, element } from "./targets.js";
import { View } from "./view.js";

const ANSWERS = 6;
const byId = (id) => document.getElementById(id);
const seconds = () => performance.now() / 1000;

const numbers = new Numbers();
const view = new View(byId("view"), numbers);
const situation = new Situation(view);
const targets = new TargetList(byId("targets"), numbers, { drop, redraw });
const drawing = new Drawing(byId("view"), view, {
  begin: () => (byId("follow").disabled = byId("cancel").disabled = false),
  end: () => (byId("follow").disabled = byId("cancel").disabled = true),
  follow,
});
const connection = new Connection({
  hello(fields) {
    situation.connected(fields);
    view.staleAfter = fields.stale_after;
    drawing.freezeSeconds = fields.freeze_seconds;
    refresh();
  },
  picture(header, bitmap, arrived) {
    if (drawing.isFrozen) {
      bitmap.close();
      return;
    }
    header.earlier = situation.targets;
    situation.pictureCame(header, arrived / 1000);
    if (header.targets) learn(header.targets, arrived / 1000);
    view.show(header, bitmap);
  },
  status(fields) {
    situation.statusCame(fields, seconds());
    if (fields.targets) learn(fields.targets, seconds());
    refresh();
  },
  down(text, wait) {
    situation.disconnected(text, wait);
    refresh();
  },
  login(text) {
    situation.disconnected("the token is needed", 0);
    byId("login-text").textContent = text;
    if (!byId("login").open) byId("login").showModal();
    refresh();
  },
});

/** Take what was told of the targets, unless more is known already. */
function learn(news, at) {
  if (!situation.targetsCame(news, at)) return;
  numbers.update(news.list.map((target) => target.id));
  showTargets();
}

function showTargets() {
  const [list, extra] = [situation.targets?.list ?? [], situation.targetsAge(seconds())];
  targets.update(list, extra, extra > situation.staleAfter || !situation.isConnected, seconds());
}

/** Bring all words on the screen up to date. */
function refresh() {
  const now = seconds();
  situation.hold = drawing.isFrozen ? "The picture is held while you draw." : "";
  situation.show(now, connection.silence);
  if (situation.targets) showTargets();
  const count = situation.targets?.list.length ?? 0;
  byId("drop-all").disabled = count === 0;
  byId("no-targets").textContent = situation.noTargets(count);
  const resting = situation.tracker?.enabled === false;
  byId("enable").textContent = resting ? "Resume tracking" : "Pause tracking";
  byId("enable").classList.toggle("main", resting);
}

async function request(what, type, fields) {
  const item = element("li", "waiting", `… ${what}`);
  byId("answers").prepend(item);
  while (byId("answers").children.length > ANSWERS) byId("answers").lastElementChild.remove();
  const answer = await connection.ask(type, fields);
  item.className = answer.success ? "done" : "refused";
  item.textContent = `${answer.success ? "✓" : "✕"} ${what}: ${answer.message}`;
  return answer.success;
}

/** Follow what is in `box` in the picture that is on the screen. */
async function follow(box) {
  const name = byId("name").value.trim();
  const stamp = view.picture.stamp;
  byId("name").value = "";
  const done = await request(`follow ${name || "a target"}`, "init", { stamp, box: box.map(round), id: name });
  if (!done && !byId("name").value) byId("name").value = name;
}

function drop(id) {
  request(`drop ${id}`, "drop", { id });
}

function redraw(id) {
  byId("name").value = id;
  byId("view").focus();
}

function round(value) {
  return Math.round(value * 100) / 100;
}

byId("follow").onclick = () => drawing.send();
byId("cancel").onclick = () => drawing.cancel();
byId("drop-all").onclick = () => request("drop all", "drop", { id: "" });
byId("enable").onclick = () => {
  const enabled = situation.tracker?.enabled === false;
  request(enabled ? "resume tracking" : "pause tracking", "enable", { enabled });
};
byId("login").onclose = () => {
  const token = byId("token").value;
  byId("token").value = "";
  if (token) sessionStorage.setItem("token", token);
  connection.open(token);
};

// The token may come in the address, after #, which is not sent anywhere; it does not stay there to be seen.
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  sessionStorage.setItem("token", given);
  history.replaceState(null, "", location.pathname);
}
connection.open(sessionStorage.getItem("token") ?? "");
setInterval(refresh, 200);
setInterval(() => targets.draw(seconds()), 250);
