// The page's one loop: it asks the daemon each second while the page is visible, follows the events, and says when the
// daemon is gone. Each part draws what the loop hands to it, and owns its own section of the page.

import { Failed, read, request } from "./api.js";
import { announce, el, get, keyed, problem, say, shape, show, toast } from "./dom.js";
import { duration, plural, rate, time } from "./format.js";
import { addMapping, reload } from "./forms.js";
import { bans, events, grants, navigation, router } from "./lists.js";
import { mappings, remove, state, steer } from "./mappings.js";
import { outside } from "./outside.js";
import { end, sessions } from "./sessions.js";

const ROUND_MS = 1000;
/** Bans and leases change seldom: every third round, and at once after an event about them. */
const SELDOM = 3;
/** More mappings than this are a long list, and that is then seldom read, too. */
const MANY = 300;
/** Events that are worth a fresh look at everything. */
const TELLING = /^(session-started|session-ended|banned|unbanned|router|reload|mapping|listen|target)/;
/** How close to each other such looks may be. */
const HURRY_MS = 500;

const view = { status: undefined, mappings: [], sessions: [], more: false, bans: [], router: undefined, admin: true, at: 0 };
const link = { gone: false, since: 0, locked: false, role: undefined, started: undefined, round: 0, stream: undefined, last: 0 };

const done = async (text) => {
  toast(text);
  await look(true);
};

const parts = {
  mappings: mappings({
    steer: (mapping) => steer(mapping, done),
    remove: (mapping) => remove(mapping, done),
    test: outside(),
  }),
  sessions: sessions({ end: (session) => end(session, done), soon: () => soon() }),
  bans: bans({ done }),
  grants: grants({ done }),
  router: router(),
  events: events(),
};

/** Asks for everything that is due, and draws it. */
async function look(everything = false) {
  const seldom = everything || link.round % SELDOM === 0;
  const list = seldom || view.mappings.length <= MANY;
  link.round += 1;
  try {
    const [status, all, live, banned, outside, login] = await Promise.all([
      read("/v1/status"),
      list ? read("/v1/mappings") : undefined,
      read(parts.sessions.path(view.mappings)),
      seldom ? read("/v1/bans") : undefined,
      seldom ? read("/v1/router") : undefined,
      link.role ? undefined : read("/v1/login"),
    ]);
    Object.assign(view, { status, sessions: live.sessions ?? [], more: Boolean(live.next) });
    if (all) Object.assign(view, { mappings: all.mappings ?? [], at: performance.now() });
    if (banned) view.bans = banned.bans ?? [];
    if (outside) view.router = outside;
    if (login) link.role = login.role;
    view.admin = link.role === "admin";
    found();
    draw();
  } catch (error) {
    if (!(error instanceof Failed)) throw error;
    lost(error);
  }
}

function found() {
  if (link.started !== undefined && link.started !== view.status.started) {
    // Another daemon: its events count from 1, and it remembers other rates.
    parts.mappings.forget();
    link.stream?.close();
    link.last = 0;
  }
  link.started = view.status.started;
  if (link.gone) announce("portway answers again");
  link.gone = false;
  unlock();
  follow();
}

function lost(error) {
  if (error.status === 401) return lock();
  if (!link.gone) link.since = Date.now();
  link.gone = true;
  link.role = undefined;
  const known = link.started !== undefined;
  const first = error.status ? error.message : "portway does not answer.";
  const stale = known ? ` What you see below is from ${time(new Date(link.since))}.` : "";
  const text = `${first} This page tries again every second.${stale}`;
  say(get("headline"), "No answer from portway.");
  said = undefined;
  const node = get("gone");
  if (node.hidden) node.replaceChildren(el("div", { class: "wrap" }, shape("bad"), el("span", {}, text)));
  show(node, true);
  document.body.classList.add("stale");
  document.title = "portway: no answer";
}

/** Shows the login: the daemon wants a token. */
function lock() {
  show(get("gone"), false);
  if (link.locked) return;
  link.locked = true;
  link.role = undefined;
  link.stream?.close();
  link.stream = undefined;
  for (const id of ["content", "nav", "actions", "footer"]) show(get(id), false);
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  show(get("login"), true);
  get("token").focus();
}

function unlock() {
  link.locked = false;
  document.body.classList.remove("stale");
  show(get("gone"), false);
  show(get("login"), false);
  for (const id of ["content", "nav", "footer"]) show(get(id), true);
  show(get("actions"), view.admin);
}

get("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = get("token");
  say(get("login-error"), "");
  try {
    link.role = (await request("POST", "/v1/login", { token: field.value.trim() })).role;
    field.value = "";
    await look(true);
    get("main").focus();
  } catch (error) {
    say(get("login-error"), error.status === 401 ? "This token is not one of them." : error.message);
    field.select();
  }
});

/**
 * Follows the events, from the oldest that the daemon knows. The browser connects again by itself, and says which event
 * it had last. What comes twice is left out.
 */
function follow() {
  if (link.stream && link.stream.readyState !== EventSource.CLOSED) return;
  const stream = new EventSource("/v1/events?after=" + link.last);
  link.stream = stream;
  stream.addEventListener("message", ({ data }) => {
    let event;
    try {
      event = JSON.parse(data);
    } catch {
      return;
    }
    if (event.id <= link.last) return;
    link.last = event.id;
    parts.events.add(event);
    if (TELLING.test(event.kind)) soon();
  });
  stream.addEventListener("lost", ({ data }) => {
    parts.events.add({ kind: "lost", at: new Date().toISOString(), message: `${data} events came too fast for this page` });
  });
}

function draw() {
  overview();
  for (const part of Object.values(parts)) part.render(view);
}

/** The sentence that answers "is it up". */
function headline() {
  const all = view.mappings.map(state);
  const wrong = all.filter(({ kind }) => kind === "bad" || kind === "part").length;
  const up = all.filter(({ kind }) => kind === "up").length;
  if (all.length === 0) return "Nothing is forwarded yet.";
  if (wrong === 0 && up === 0) return "Nothing is forwarded now.";
  if (wrong === 0) return "Everything is up.";
  if (all.length === 1) return "The mapping needs a look.";
  return wrong === 1 ? `One of ${all.length} mappings needs a look.` : `${wrong} of ${all.length} mappings need a look.`;
}

let said;

function overview() {
  const { status } = view;
  const text = headline();
  say(get("headline"), text);
  if (said !== undefined && said !== text) announce(text);
  said = text;
  document.title = text === "Everything is up." ? "portway" : `portway: ${text.replace(/\.$/, "")}`;
  const moves = parts.mappings.total();
  const facts = [
    plural(status.sessions ?? 0, "session"),
    ...(status.flows ? [plural(status.flows, "UDP flow")] : []),
    `${rate(moves.out)} out`,
    `${rate(moves.into)} in`,
    `running for ${duration(status.uptime_ms)}`,
  ];
  say(get("summary"), facts.join(" · "));
  trouble(status);
  const about = [`portway ${status.version}`, status.commit?.slice(0, 10), `process ${status.pid}`];
  if (status.descriptors?.limit) about.push(`${status.descriptors.open} of ${status.descriptors.limit} descriptors`);
  if (!view.admin) about.push("read only");
  say(get("footer"), about.filter(Boolean).join(" · "));
}

/** The warnings of the configuration, and a reload that was refused: folded, for they can be long. */
function trouble(status) {
  const refused = status.last_reload?.outcome === "refused" ? status.last_reload : undefined;
  const folds = [];
  if (refused) {
    const title = `The reload at ${time(refused.at)} was refused`;
    folds.push({ key: "refused" + refused.at, kind: "refused", title, list: refused.problems ?? [] });
  }
  const warnings = status.warnings ?? [];
  if (warnings.length) {
    const title = `The configuration has ${plural(warnings.length, "warning")}`;
    folds.push({ key: JSON.stringify(warnings), title, list: warnings });
  }
  keyed(get("trouble"), folds, ({ key }) => key, ({ kind, title, list }) =>
    el("details", { class: kind }, el("summary", {}, title), el("ul", { class: "problems" }, ...list.slice(0, 50).map(problem))),
  );
}

let timer;
let running = false;
let began = 0;

/** One round, and the next a second later. A hidden page asks nothing. */
async function round() {
  clearTimeout(timer);
  if (running || document.hidden) return;
  running = true;
  began = performance.now();
  if (!link.locked) await look();
  running = false;
  timer = setTimeout(round, Math.max(200, ROUND_MS - (performance.now() - began)));
}

let hurried = false;

/** A round before its time, but not at once after another one. */
function soon() {
  if (hurried || document.hidden) return;
  hurried = true;
  const wait = running ? HURRY_MS : Math.max(20, HURRY_MS - (performance.now() - began));
  setTimeout(() => {
    hurried = false;
    link.round = 0;
    round();
  }, wait);
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return clearTimeout(timer);
  parts.mappings.forget();
  round();
});

addMapping(done);
reload(done);
navigation();
round();
