// The mappings: what is up, and the address to give to a friend.

import { mapping as route, query, read, request } from "./api.js";
import { ask, attribute, badge, copy, el, get, keyed, say, shape, show, toast } from "./dom.js";
import { bytes, duration, join, number, plural, rate, split, until } from "./format.js";
import { graph, Rates } from "./graph.js";

/** As many as are shown; the filter finds the others. */
const MOST = 60;
const MOST_ADDRESSES = 3;
const MOST_TARGETS = 6;
/** When the daemon's own memory of the rates is taken once more. */
const REFRESH_MS = 120_000;

/** The state of a mapping: its word, its shape, and whether a person should look. */
export function state(mapping) {
  const { listeners, targets } = mapping;
  const count = (of) => listeners.filter((listener) => listener.state === of).length;
  const up = count("listening");
  const down = targets.filter((target) => target.state === "down").length;
  if (mapping.paused) return { word: "Paused", kind: "paused" };
  if (!mapping.enabled) return { word: "Disabled", kind: "off" };
  if (up === 0 && count("failed") > 0) return { word: "Failed", kind: "bad" };
  if (up === 0 && count("waiting") > 0) return { word: "Waiting", kind: "bad" };
  if (up === 0) return { word: "Closed", kind: "off" };
  if (targets.length > 0 && down === targets.length) return { word: "Target down", kind: "bad" };
  if (up < listeners.length || down > 0) return { word: "Partly up", kind: "part" };
  return { word: "Up", kind: "up" };
}

const isLoopback = (host) => /^127\.|^::1$|^localhost$/.test(host);
const isWildcard = (host) => /^(0\.0\.0\.0|::|)$/.test(host);
const isPrivate = (host) =>
  /^(10\.|192\.168\.|172\.(1[6-9]|2\d|3[01])\.|169\.254\.|100\.(6[4-9]|[7-9]\d|1[01]\d|12[0-7])\.|f[cd]|fe80)/i.test(host);

/** Where the browser found this page: the machine's address in the reader's own network. */
const here = location.hostname.replace(/^\[|\]$/g, "");

/** The addresses of a mapping, the best for a friend first: `{text, scope, protocols}`. */
function addresses(mapping, status) {
  const found = new Map();
  const add = (text, scope, protocol) => {
    const known = found.get(text) ?? { text, scope, protocols: new Set() };
    known.protocols.add((protocol ?? "").toUpperCase());
    found.set(text, known);
  };
  for (const opening of mapping.router ?? []) {
    if (opening.external && opening.state === "open") add(opening.external, "from the internet", opening.protocol);
  }
  const inside = found.size > 0 ? [] : mapping.listeners;
  for (const listener of inside) {
    const parts = split(listener.listen);
    if (!parts) add(listener.listen, "", listener.protocol);
    else if (isLoopback(parts.host)) add(listener.listen, "on this machine only", listener.protocol);
    else if (!isWildcard(parts.host)) add(listener.listen, scope(parts.host), listener.protocol);
    else add(...own(parts.port, status), listener.protocol);
  }
  return ranges([...found.values()]);
}

/** Ports in a row become one address: `203.0.113.7:5000-5010`. */
function ranges(all) {
  const joined = [];
  for (const value of all) {
    const parts = split(value.text);
    const last = joined.at(-1);
    const protocols = [...value.protocols].join();
    if (parts && last && last.host === parts.host && last.to + 1 === Number(parts.port) && last.same === protocols + value.scope) {
      last.to += 1;
      last.text = join(parts.host, `${last.from}-${last.to}`);
    } else {
      const port = Number(parts?.port);
      joined.push({ ...value, host: parts?.host, from: port, to: port, same: protocols + value.scope });
    }
  }
  return joined;
}

const scope = (host) => (isPrivate(host) ? "in your network" : "a public address");

/** What to call a port that is open on every address. */
function own(port, status) {
  const known = status?.addresses?.[0];
  if (!isLoopback(here)) return [join(here, port), scope(here)];
  if (known) return [join(known, port), scope(known)];
  return [join(here, port), "on every address of this machine"];
}

/** A part of a card that shows one address and copies it. */
function address() {
  const text = el("code", { class: "address" });
  const label = el("span", {}, "Copy");
  const button = el("button", { type: "button", class: "small copy", on: { click: copied } }, label);
  const note = el("span", { class: "scope" });
  const node = el("li", {}, el("div", { class: "line" }, text, button), note);
  async function copied() {
    if (!(await copy(text.textContent))) return toast("The browser does not allow it. Select the address and copy it.");
    toast(`Copied ${text.textContent}`);
    say(label, "Copied");
    setTimeout(() => say(label, "Copy"), 2000);
  }
  node.update = (value) => {
    say(text, value.text);
    attribute(button, "aria-label", "Copy " + value.text);
    say(note, [[...value.protocols].filter(Boolean).join(" and "), value.scope].filter(Boolean).join(" · "));
  };
  return node;
}

/** A line that says why something does not work. */
function complaint() {
  const text = el("span");
  const node = el("li", {}, shape("bad"), text);
  node.update = (value) => say(text, value);
  return node;
}

/** What is wrong with a mapping, in sentences. */
function complaints(mapping) {
  const found = [];
  for (const listener of mapping.listeners) {
    if (listener.state !== "waiting" && listener.state !== "failed") continue;
    const holder = listener.holder && !listener.error?.includes(listener.holder) ? ` (held by ${listener.holder})` : "";
    found.push(`${listener.listen} is ${listener.state}: ${listener.error ?? "no reason known"}${holder}`);
  }
  for (const opening of mapping.router ?? []) {
    if (opening.state === "open" || opening.state === "searching") continue;
    found.push(`Router: ${opening.state}${opening.error ? ": " + opening.error : ""}`);
  }
  if (found.length > 3) found.splice(3, found.length, `and ${found.length - 3} more`);
  return found;
}

function target() {
  const mark = badge();
  const text = el("code");
  const note = el("span", { class: "note" });
  const node = el("li", {}, el("div", { class: "line" }, text, mark), note);
  node.update = (value) => {
    const down = value.state === "down";
    say(text, value.address);
    mark.update({ word: down ? "down" : "up", kind: down ? "bad" : "up" });
    const since = down && value.since ? `for ${duration(Date.now() - new Date(value.since))}` : "";
    say(note, down ? [since, value.last_error].filter(Boolean).join(" · ") : "");
    show(note, down && note.textContent !== "");
  };
  return node;
}

const facts = (mapping) => [
  ["Sessions since the start", number(mapping.sessions_total)],
  ["From clients", bytes(mapping.bytes_in)],
  ["To clients", bytes(mapping.bytes_out)],
  ["Refused", Object.entries(mapping.refused ?? {}).map(([reason, count]) => `${number(count)} ${reason}`).join(", ") || "none"],
  ["Ends by itself", mapping.until ? until(mapping.until) : undefined],
  ["Listens on", listens(mapping)],
  ["Declared in", mapping.place ?? mapping.origin],
];

function listens(mapping) {
  const all = mapping.listeners.map((listener) => `${listener.listen}/${listener.protocol ?? ""}`);
  return all.length > 6 ? `${all.slice(0, 6).join(", ")} and ${all.length - 6} more` : all.join(", ");
}

function fact([title]) {
  const value = el("dd");
  const node = el("div", {}, el("dt", {}, title), value);
  node.update = ([, text]) => say(value, text);
  return node;
}

/** The mappings of the page. `act` has what the page does after a change. */
export function mappings(act) {
  const list = get("mappings-list");
  const filter = get("mappings-filter");
  const memory = new Map();
  let seen;

  function card({ mapping: { name } }) {
    const mark = badge();
    const where = el("ul", { class: "addresses", role: "list" });
    const why = el("ul", { class: "complaints", role: "list" });
    const curve = graph(name);
    const out = el("strong");
    const into = el("strong");
    const sessions = el("strong");
    const sessionsWord = el("span");
    const leads = el("ul", { class: "targets", role: "list", "aria-label": "Targets" });
    const more = el("dl", { class: "facts" });
    const details = el("details", {}, el("summary", {}, "Details"), more);
    const pause = el("button", { type: "button", class: "small", on: { click: () => act.steer(node.mapping) } });
    const test = el("button", { type: "button", class: "small", on: { click: () => act.test(node.mapping) } }, "Test");
    const remove = el("button", { type: "button", class: "small", on: { click: () => act.remove(node.mapping) } }, "Remove");
    const buttons = el("div", { class: "steer" }, pause, remove, test);
    const node = el(
      "li",
      { class: "card", "data-mapping": name },
      el("div", { class: "title" }, el("h3", {}, name), mark),
      where,
      why,
      curve,
      el(
        "ul",
        { class: "rates", role: "list" },
        el("li", {}, out, el("span", { class: "rate out" }, "out")),
        el("li", {}, into, el("span", { class: "rate in" }, "in")),
        el("li", {}, sessions, sessionsWord),
      ),
      leads,
      el("div", { class: "foot" }, details, buttons),
    );
    node.update = ({ mapping, now, status, admin }) => {
      node.mapping = mapping;
      const what = state(mapping);
      mark.update(what);
      node.dataset.state = what.kind;
      const found = addresses(mapping, status);
      const shown = found.slice(0, MOST_ADDRESSES);
      if (found.length > shown.length) shown.at(-1).scope += ` · and ${found.length - shown.length} more`;
      keyed(where, shown, (value) => value.text, address);
      keyed(why, complaints(mapping), (value) => value, complaint);
      show(why, why.childElementCount > 0);
      say(out, rate(now.out));
      say(into, rate(now.into));
      say(sessions, number(mapping.sessions));
      say(sessionsWord, mapping.sessions === 1 ? "session" : "sessions");
      curve.draw(now.rates);
      keyed(leads, mapping.targets.slice(0, MOST_TARGETS), (value) => value.address, target);
      if (details.open) keyed(more, facts(mapping).filter(([, text]) => text), ([title]) => title, fact);
      say(pause, mapping.paused ? "Resume" : "Pause");
      attribute(pause, "aria-label", `${mapping.paused ? "Resume" : "Pause"} ${name}`);
      attribute(remove, "aria-label", "Remove " + name);
      attribute(test, "aria-label", `Test ${name} from outside`);
      attribute(test, "title", "Have another portway try it from outside");
      show(test, admin && mapping.enabled && !mapping.paused);
      show(pause, admin && mapping.enabled);
      show(remove, admin && mapping.origin === "managed");
    };
    details.addEventListener("toggle", () => seen && render(seen));
    return node;
  }

  /** What moves now: by the daemon's own measure, or by the counters of this page. */
  function measure(mapping, at) {
    let now = memory.get(mapping.name);
    if (!now) {
      now = { rates: new Rates(), at, into: mapping.rate_in ?? 0, out: mapping.rate_out ?? 0, asked: -Infinity };
      memory.set(mapping.name, now);
    } else if (at > now.at) {
      const seconds = (at - now.at) / 1000;
      now.into = mapping.rate_in ?? Math.max(0, mapping.bytes_in - now.bytesIn) / seconds;
      now.out = mapping.rate_out ?? Math.max(0, mapping.bytes_out - now.bytesOut) / seconds;
      now.part = (now.part ?? 0) + seconds;
      const whole = Math.floor(now.part + 0.25);
      now.part -= whole;
      if (whole > 0) now.rates.add(whole, now.into, now.out);
      now.at = at;
    }
    now.bytesIn = mapping.bytes_in;
    now.bytesOut = mapping.bytes_out;
    return now;
  }

  /** Fetches the memory of the mappings that are shown, one at a time: the daemon has better things to do. */
  let fetching = false;
  async function remember() {
    if (fetching) return;
    fetching = true;
    try {
      for (const node of list.children) {
        const now = node.mapping && memory.get(node.mapping.name);
        if (!now || performance.now() - now.asked < REFRESH_MS) continue;
        now.asked = performance.now();
        const history = await read(query("/v1/history", { mapping: node.mapping.name, minutes: 15 }));
        if (Array.isArray(history.points)) now.rates.load(history);
      }
    } catch {
      // The next round shows what is the matter.
    } finally {
      fetching = false;
    }
  }

  function render(view) {
    seen = view;
    const at = view.at;
    const names = new Set(view.mappings.map((mapping) => mapping.name));
    for (const name of memory.keys()) if (!names.has(name)) memory.delete(name);
    const wanted = filter.value.trim().toLowerCase();
    const fits = (mapping) =>
      !wanted ||
      [mapping.name, ...mapping.listeners.map((l) => l.listen), ...mapping.targets.map((t) => t.address)].some((text) =>
        text.toLowerCase().includes(wanted),
      );
    const all = view.mappings.map((mapping) => ({ mapping, now: measure(mapping, at), status: view.status, admin: view.admin }));
    const found = all.filter(({ mapping }) => fits(mapping));
    keyed(list, found.slice(0, MOST), ({ mapping }) => mapping.name, card);
    show(filter, view.mappings.length > 6 || wanted !== "");
    say(get("mappings-more"), note(found.length, view.mappings.length));
    remember();
  }

  function note(found, all) {
    if (all === 0) return "There is no mapping yet. “Add mapping” opens a port.";
    if (found === 0) return "No mapping fits the filter.";
    return found > MOST ? `and ${plural(found - MOST, "more mapping")}. The filter finds them.` : "";
  }

  filter.addEventListener("input", () => seen && render(seen));
  return {
    render,
    /** Forgets the rates: the daemon is another one, or the page was away. */
    forget: () => memory.clear(),
    /** The sum of what moves. */
    total: () => [...memory.values()].reduce((sum, now) => ({ into: sum.into + now.into, out: sum.out + now.out }), { into: 0, out: 0 }),
  };
}

/** Pauses a mapping, after a question, or resumes it. */
export function steer(mapping, done) {
  const { name } = mapping;
  const ports = mapping.listeners.length === 1 ? "Its port closes" : "Its ports close";
  const live = mapping.sessions ? ` ${plural(mapping.sessions, "session")} ${mapping.sessions === 1 ? "ends" : "end"}.` : "";
  const post = async (what) => {
    await request("POST", `${route(name)}/${what}`);
    await done(what === "pause" ? `${name} is paused` : `${name} is open again`);
  };
  if (mapping.paused) return post("resume").catch((error) => toast(error.message));
  ask(`Pause ${name}?`, `${ports} until you resume it.${live}`, "Pause", () => post("pause"));
}

/** Removes a mapping, after a question. */
export function remove({ name, sessions }, done) {
  const live = sessions ? ` ${plural(sessions, "session")} ${sessions === 1 ? "ends" : "end"}.` : "";
  ask(`Remove ${name}?`, `It is taken out of the managed file, and its ports close.${live}`, "Remove", async () => {
    await request("DELETE", route(name));
    await done(`${name} is removed`);
  });
}
