// SPDX-License-Identifier: Apache-2.0
// The console: shows the robot's messages, and sends the operator's boxes and commands.

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
  image(header, bitmap, arrived) {
    if (drawing.isFrozen) {
      bitmap.close();
      return;
    }
    if (view.size && view.size.join() !== [header.width, header.height].join()) drawing.cancel(); // its pixels are others
    header.earlier = situation.targets;
    situation.addImage(header, arrived / 1000);
    if (header.targets) updateTargets(header.targets, arrived / 1000);
    view.show(header, bitmap);
  },
  status(fields) {
    situation.setStatus(fields);
    if (fields.targets) updateTargets(fields.targets, seconds());
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

/** Show an update of the targets, unless a newer one is shown already. */
function updateTargets(update, at) {
  if (!situation.setTargets(update, at)) return;
  numbers.update(update.list.map((target) => target.id));
  showTargets();
}

function showTargets() {
  const [list, extra] = [situation.targets?.list ?? [], situation.targetsAge(seconds())];
  targets.update(list, extra, extra > situation.staleAfter || !situation.isConnected, seconds());
}

/** Update all texts on the page. */
function refresh() {
  const now = seconds();
  situation.frozenText = drawing.isFrozen ? "The image is frozen while you draw." : "";
  situation.show(now, connection.silence);
  if (situation.targets) showTargets();
  const count = situation.targets?.list.length ?? 0;
  byId("drop-all").disabled = count === 0;
  byId("no-targets").textContent = situation.noTargets(count);
  const paused = situation.tracker?.enabled === false;
  byId("enable").textContent = paused ? "Resume tracking" : "Pause tracking";
  byId("enable").classList.toggle("main", paused);
}

async function request(label, type, fields) {
  const item = element("li", "waiting", `… ${label}`);
  byId("answers").prepend(item);
  while (byId("answers").children.length > ANSWERS) byId("answers").lastElementChild.remove();
  const answer = await connection.ask(type, fields);
  item.className = answer.success ? "done" : "refused";
  item.textContent = `${answer.success ? "✓" : "✕"} ${label}: ${answer.message}`;
  return answer.success;
}

/** Start a target from `box` in the image on the screen. */
async function follow(box) {
  const name = byId("name").value.trim();
  const stamp = view.header.stamp;
  byId("name").value = "";
  const done = await request(`follow ${name || "a target"}`, "init", { stamp, box: box.map(round), id: name, ...shown() });
  if (!done && !byId("name").value) byId("name").value = name;
}

function drop(id) {
  request(`drop ${id}`, "drop", { id, ...shown() });
}

/** What the operator knows: a request that waits in the link must not undo what others stop meanwhile. */
function shown() {
  const { drop_number = 0, pause_number = 0 } = situation.tracker ?? {};
  return { drop_number, pause_number };
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
byId("drop-all").onclick = () => request("drop all", "drop", { id: "", ...shown() });
byId("enable").onclick = () => {
  const enabled = situation.tracker?.enabled === false;
  request(enabled ? "resume tracking" : "pause tracking", "enable", { enabled, ...shown() });
};
byId("login").onclose = () => {
  const token = byId("token").value;
  byId("token").value = "";
  if (token) sessionStorage.setItem("token", token);
  connection.open(token);
};

// The token may be in the address after #, which browsers do not send; it is removed from the address bar.
const addressToken = new URLSearchParams(location.hash.slice(1)).get("token");
if (addressToken) {
  sessionStorage.setItem("token", addressToken);
  history.replaceState(null, "", location.pathname);
}
connection.open(sessionStorage.getItem("token") ?? "");
setInterval(refresh, 200);
setInterval(() => targets.draw(seconds()), 250);
