// The live sessions, and their end.

import { query, request } from "./api.js";
import { ask, attribute, cell, el, get, keyed, say, show, table } from "./dom.js";
import { bytes, country, duration, number, plural } from "./format.js";

/** As many as are shown. */
export const MOST = 200;
/** As many as the filter looks at where the daemon cannot filter for it. */
const SEARCHED = 1000;

const columns = [
  { title: "Client", by: (session) => session.client },
  { title: "Mapping", by: (session) => session.mapping },
  { title: "Target", by: (session) => session.target ?? "" },
  { title: "For", by: (session) => session.age_ms, class: "number" },
  { title: "In", by: (session) => session.bytes_in, class: "number" },
  { title: "Out", by: (session) => session.bytes_out, class: "number" },
  { title: "End", head: el("span", { class: "unseen" }, "End"), class: "last" },
];

const isAddress = (text) => /^[0-9.]+(\/\d+)?$|^[0-9a-f:]*:[0-9a-f:.]*(\/\d+)?$/i.test(text) && /\d\.\d+\.\d+\.\d|:.*:/.test(text);

export function sessions(act) {
  const filter = get("sessions-filter");
  const order = { column: undefined, falling: true };
  let seen;

  for (const column of columns.filter((column) => column.by)) {
    column.head = el("button", { type: "button", class: "sort", on: { click: () => sort(column) } }, column.title);
  }
  const { node, body, heads } = table(columns, "sessions-title");
  get("sessions-table").append(node);

  function sort(column) {
    if (order.column === column) order.falling = !order.falling;
    else Object.assign(order, { column, falling: column.class === "number" });
    columns.forEach((each, i) =>
      attribute(heads[i], "aria-sort", each === column ? (order.falling ? "descending" : "ascending") : undefined),
    );
    if (seen) render(seen);
  }

  function row({ session }) {
    const client = el("code");
    const from = el("span", { class: "note" });
    const mapping = el("span");
    const target = el("code");
    const [age, into, out] = [el("span"), el("span"), el("span")];
    const end = el("button", { type: "button", class: "small", on: { click: () => act.end(node.session) } }, "End");
    const node = el(
      "tr",
      { role: "row", "data-session": session.id },
      cell("Client", el("span", { class: "both" }, client, from), "client"),
      cell("Mapping", mapping),
      cell("Target", target, "long"),
      cell("For", age, "number"),
      cell("In", into, "number"),
      cell("Out", out, "number"),
      cell("End", end, "last"),
    );
    node.update = ({ session, admin }) => {
      node.session = session;
      say(client, session.client);
      say(from, session.country ? country(session.country) : "");
      say(mapping, session.protocol === "udp" ? `${session.mapping} (UDP)` : session.mapping);
      say(target, session.target ?? "connecting");
      say(age, duration(session.age_ms));
      say(into, bytes(session.bytes_in));
      say(out, bytes(session.bytes_out));
      attribute(end, "aria-label", `End the session of ${session.client}`);
      show(end, admin);
    };
    return node;
  }

  function render(view) {
    seen = view;
    const wanted = filter.value.trim().toLowerCase();
    const fits = (session) =>
      !wanted ||
      isAddress(wanted) ||
      [session.client, session.mapping, session.target ?? "", session.country ?? "", String(session.id)].some((text) =>
        text.toLowerCase().includes(wanted),
      );
    const found = view.sessions.filter(fits);
    if (order.column) {
      const { by } = order.column;
      const compare = (a, b) => (typeof by(a) === "number" ? by(a) - by(b) : by(a).localeCompare(by(b)));
      found.sort((a, b) => (order.falling ? compare(b, a) : compare(a, b)));
    }
    const shown = found.slice(0, MOST).map((session) => ({ session, admin: view.admin }));
    keyed(body, shown, ({ session }) => session.id, row);
    show(node, shown.length > 0);
    const all = (view.status?.sessions ?? 0) + (view.status?.flows ?? 0);
    say(get("sessions-count"), number(Math.max(all, view.sessions.length)));
    say(get("sessions-more"), note(wanted, found.length, Math.max(all, view.sessions.length), view.more));
  }

  function note(wanted, found, all, more) {
    if (wanted) {
      const where = more ? ` among the first ${number(SEARCHED)}` : "";
      if (found === 0) return `No session fits the filter${where}.`;
      return found > MOST || more ? `${plural(Math.min(found, MOST), "session")} shown${where}, and there are more.` : "";
    }
    if (found === 0) return "No client is connected.";
    return all > MOST ? `and ${plural(all - Math.min(found, MOST), "more session")}. The filter finds them.` : "";
  }

  filter.addEventListener("input", () => {
    if (seen) render(seen);
    act.soon();
  });

  return {
    render,
    /** The list to ask for. The daemon filters by client and by mapping, the page by the rest. */
    path(mappings) {
      const wanted = filter.value.trim();
      if (isAddress(wanted)) return query("/v1/sessions", { client: wanted, limit: MOST });
      if (mappings?.some(({ name }) => name === wanted)) return query("/v1/sessions", { mapping: wanted, limit: MOST });
      return query("/v1/sessions", { limit: wanted ? SEARCHED : MOST });
    },
  };
}

/** Ends a session, after a question. */
export function end({ id, client, mapping }, done) {
  ask("End this session?", `${client} is cut off from ${mapping}. It may connect again at once.`, "End session", async () => {
    try {
      await request("DELETE", `/v1/sessions/${id}`);
    } catch (error) {
      // It ended by itself meanwhile.
      if (error.status !== 404) throw error;
    }
    await done(`The session of ${client} has ended`);
  });
}
