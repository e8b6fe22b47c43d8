// Bans, the router, and the events.

import { query, request } from "./api.js";
import { attribute, badge, cell, dialog, el, get, keyed, problems, say, show, table, toast } from "./dom.js";
import { duration, number, plural, time, until } from "./format.js";

const MOST_BANS = 200;
const MOST_LEASES = 100;
const MOST_EVENTS = 300;

export function bans(act) {
  const { node, body } = table(
    [
      { title: "Client" },
      { title: "Reason" },
      { title: "Ends" },
      { title: "Unban", head: el("span", { class: "unseen" }, "Unban"), class: "last" },
    ],
    "bans-title",
  );
  get("bans-table").append(node);

  async function unban(client) {
    try {
      await request("DELETE", query("/v1/bans", { client }));
    } catch (error) {
      if (error.status !== 404) return toast(error.message);
    }
    await act.done(`${client} is not banned any more`);
  }

  function row({ ban: { client } }) {
    const reason = el("span");
    const by = el("span", { class: "note" });
    const ends = el("span");
    const button = el(
      "button",
      { type: "button", class: "small", "aria-label": "Unban " + client, on: { click: () => unban(client) } },
      "Unban",
    );
    const node = el(
      "tr",
      { role: "row", "data-client": client },
      cell("Client", el("code", {}, client), "client"),
      cell("Reason", el("span", { class: "both" }, reason, by), "long"),
      cell("Ends", ends, "keep"),
      cell("Unban", button, "last"),
    );
    node.update = ({ ban, admin }) => {
      say(reason, ban.reason || "no reason given");
      say(by, ban.manual ? "by an operator" : ban.count > 1 ? `by the guard, ${number(ban.count)} times` : "by the guard");
      say(ends, ban.until ? until(ban.until) : "never");
      show(button, admin);
    };
    return node;
  }

  const form = dialog("ban-dialog", {
    failed: (failure) => problems(get("b-problems"), failure),
    submit: async () => {
      const client = get("b-client").value.trim();
      const reason = get("b-reason").value.trim();
      await request("POST", "/v1/bans", { client, for: get("b-for").value, ...(reason ? { reason } : {}) });
      await act.done(`${client} is banned`);
    },
  });
  get("ban").addEventListener("click", () => {
    get("ban-dialog").querySelector("form").reset();
    form.open();
  });

  return {
    render(view) {
      const all = view.bans ?? [];
      keyed(body, all.slice(0, MOST_BANS).map((ban) => ({ ban, admin: view.admin })), ({ ban }) => ban.client, row);
      show(node, all.length > 0);
      show(get("ban"), view.admin);
      say(get("bans-count"), number(all.length));
      say(
        get("bans-more"),
        all.length === 0 ? "No client is banned." : all.length > MOST_BANS ? `and ${plural(all.length - MOST_BANS, "more ban")}.` : "",
      );
    },
  };
}

/** The clients that are let in by a knock. Without any, the section is not shown. */
export function grants(act) {
  const { node, body } = table(
    [
      { title: "Client" },
      { title: "Key" },
      { title: "Ends" },
      { title: "End", head: el("span", { class: "unseen" }, "End"), class: "last" },
    ],
    "grants-title",
  );
  get("grants-table").append(node);

  async function end(client) {
    try {
      await request("DELETE", query("/v1/grants", { client }));
    } catch (error) {
      if (error.status !== 404) return toast(error.message);
    }
    await act.done(`${client} has to knock again`);
  }

  function row({ grant: { client } }) {
    const key = el("span");
    const ends = el("span");
    const button = el(
      "button",
      { type: "button", class: "small", "aria-label": "End the grant of " + client, on: { click: () => end(client) } },
      "End",
    );
    const node = el(
      "tr",
      { role: "row", "data-grant": client },
      cell("Client", el("code", {}, client), "client"),
      cell("Key", key, "long"),
      cell("Ends", ends, "keep"),
      cell("End", button, "last"),
    );
    node.update = ({ grant, admin }) => {
      say(key, grant.key);
      say(ends, until(grant.until));
      show(button, admin);
    };
    return node;
  }

  return {
    render(view) {
      const all = view.status?.grants ?? [];
      keyed(body, all.slice(0, MOST_BANS).map((grant) => ({ grant, admin: view.admin })), ({ grant }) => grant.client, row);
      show(get("grants"), all.length > 0);
      say(get("grants-count"), number(all.length));
      say(get("grants-more"), all.length > MOST_BANS ? `and ${plural(all.length - MOST_BANS, "more client")}.` : "");
    },
  };
}

const routerStates = {
  off: { word: "Not asked for", kind: "off" },
  searching: { word: "Searching", kind: "part" },
  ready: { word: "Ready", kind: "up" },
  missing: { word: "Not found", kind: "bad" },
};

const leaseKinds = { open: "up", searching: "part", conflict: "bad", denied: "bad", failed: "bad" };

function lease() {
  const mark = badge();
  const name = el("span");
  const where = el("code");
  const note = el("span", { class: "note" });
  const node = el("li", {}, el("div", { class: "line" }, name, mark), where, note);
  node.update = (opening) => {
    mark.update({ word: opening.state, kind: leaseKinds[opening.state] ?? "off" });
    say(name, `${opening.mapping}${opening.protocol ? ` (${opening.protocol.toUpperCase()})` : ""}`);
    say(where, `${opening.external ?? `port ${opening.external_port}`} → ${opening.listen}`);
    const facts = [
      opening.error,
      opening.state === "open" && opening.lease_ms ? `lease of ${duration(opening.lease_ms)}` : undefined,
      opening.retry_ms !== undefined && opening.state !== "open" ? `next try in ${duration(opening.retry_ms)}` : undefined,
      opening.unverified ? "the router does not show it" : undefined,
    ];
    say(note, facts.filter(Boolean).join(" · "));
  };
  return node;
}

export function router() {
  const mark = badge();
  const facts = el("dl", { class: "facts" });
  const leases = el("ul", { class: "leases", role: "list", "aria-label": "Ports on the router" });
  const more = el("p", { class: "more" });
  get("router-body").append(mark, facts, leases, more);

  function fact([title]) {
    const value = el("dd");
    const node = el("div", {}, el("dt", {}, title), value);
    node.update = ([, text]) => say(value, text);
    return node;
  }

  return {
    render({ router }) {
      if (!router) return;
      mark.update(routerStates[router.state] ?? { word: router.state || "Unknown", kind: "off" });
      const known = [
        ["Problem", router.error],
        ["Outside", router.verdict],
        ["External address", router.external],
        ["Router", [router.model, router.gateway].filter(Boolean).join(" at ")],
        ["Asked by", { upnp: "UPnP", pcp: "PCP", natpmp: "NAT-PMP" }[router.protocol] ?? router.protocol],
      ].filter(([, text]) => text);
      keyed(facts, known, ([title]) => title, fact);
      const all = router.leases ?? [];
      keyed(leases, all.slice(0, MOST_LEASES), (one) => `${one.mapping} ${one.listen} ${one.protocol}`, lease);
      say(
        more,
        router.state === "off"
          ? "No mapping asks for a port on the router."
          : all.length > MOST_LEASES
            ? `and ${plural(all.length - MOST_LEASES, "more port")}.`
            : "",
      );
    },
  };
}

const bad = /failed|waiting|refused|down|lost/;

/** The events, the newest first. */
export function events() {
  const list = get("events-list");
  const filter = get("events-filter");
  const all = [];
  let number = 0;

  function row(event) {
    const word = el("span", { class: "kind" + (bad.test(event.kind) ? " bad" : "") }, event.kind.replaceAll("-", " "));
    const about = [event.mapping, event.client].filter((text) => text && !event.message.includes(text));
    return el(
      "li",
      { "data-kind": event.kind },
      el("time", { datetime: event.at }, time(event.at)),
      word,
      el("span", { class: "message" }, [event.message, ...about].filter(Boolean).join(" · ")),
    );
  }

  const fits = (event) => {
    const wanted = filter.value.trim().toLowerCase();
    return !wanted || [event.kind, event.mapping, event.client, event.reason, event.message].join(" ").toLowerCase().includes(wanted);
  };

  function render() {
    keyed(list, all.filter(fits), (event) => event.key, row);
    say(get("events-more"), all.length === 0 ? "Nothing has happened yet." : "");
    show(get("events-box"), all.length > 0);
  }

  filter.addEventListener("input", render);
  let planned = false;
  return {
    render,
    /** Takes one. Many at once are drawn together. */
    add(event) {
      number += 1;
      all.unshift({ ...event, kind: String(event.kind ?? ""), message: String(event.message ?? ""), key: number });
      if (all.length > MOST_EVENTS) all.length = MOST_EVENTS;
      if (planned) return;
      planned = true;
      setTimeout(() => {
        planned = false;
        render();
      }, 100);
    },
  };
}

/** Marks the section that is in view in the navigation. */
export function navigation() {
  const links = [...document.querySelectorAll("#nav a")];
  const inView = new Set();
  const watch = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) inView[isIntersecting ? "add" : "delete"](target.id);
      const current = links.find((link) => inView.has(link.hash.slice(1)));
      for (const link of links) attribute(link, "aria-current", link === current ? "true" : undefined);
    },
    { rootMargin: "-80px 0px -40% 0px" },
  );
  for (const link of links) watch.observe(get(link.hash.slice(1)));
}
