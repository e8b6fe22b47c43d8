// Adding a mapping, with the TOML that portway writes, and the reload with its dry run.

import { request } from "./api.js";
import { dialog, el, get, problem, problems, say, show } from "./dom.js";
import { plural } from "./format.js";

const text = (id) => get(id).value.trim();

/** A value as TOML has it. JSON's texts are TOML's basic strings. */
function toml(value) {
  if (Array.isArray(value)) return `[${value.map(toml).join(", ")}]`;
  return JSON.stringify(value).replaceAll("\u007f", "\\u007f");
}

/** The table of the mapping: the keys of a file. */
function table() {
  const host = text("m-host");
  const listen = text("m-listen");
  const bracketed = host.includes(":") && !host.startsWith("[") ? `[${host}]` : host;
  const port = text("m-port") || listen.replace(/^.*:/, "");
  const protocol = get("m-protocol").value;
  const spec = [listen, bracketed, port].filter(Boolean).join(":");
  const hours = Number(get("m-for").value);
  const allow = text("m-allow").split(/[\s,]+/).filter(Boolean);
  return {
    ...(text("m-name") ? { name: text("m-name") } : {}),
    publish: protocol === "tcp" ? spec : `${spec}/${protocol}`,
    ...(allow.length ? { allow } : {}),
    ...(get("m-router").checked ? { router: true } : {}),
    ...(hours > 0 ? { until: new Date(Date.now() + hours * 3_600_000).toISOString().replace(/\.\d+/, "") } : {}),
  };
}

function preview() {
  const lines = Object.entries(table()).map(([key, value]) => `${key} = ${toml(value)}`);
  say(get("m-toml"), ["[[mapping]]", ...lines].join("\n"));
}

export function addMapping(done) {
  const form = get("mapping-dialog").querySelector("form");
  const box = dialog("mapping-dialog", {
    failed: (failure) => problems(get("m-problems"), failure),
    submit: async () => {
      const { name } = await request("POST", "/v1/mappings", table());
      await done(`${name} is added`);
    },
  });
  form.addEventListener("input", preview);
  get("add").addEventListener("click", () => {
    form.reset();
    preview();
    box.open();
  });
}

const parts = [
  ["opened", "Opens"],
  ["closed", "Closes"],
  ["changed", "Changes in place"],
  ["replaced", "Opens in the place of others"],
];
const MOST = 50;

/** What a reload would do, as a list. */
function picture(plan) {
  const shown = [];
  for (const [key, title] of parts) {
    const all = plan[key] ?? [];
    if (all.length === 0) continue;
    const items = all.slice(0, MOST).map((one) => el("li", {}, el("code", {}, one)));
    if (all.length > MOST) items.push(el("li", {}, `and ${all.length - MOST} more`));
    shown.push(el("h3", {}, title), el("ul", { class: "plan" }, ...items));
  }
  if (shown.length === 0) shown.push(el("p", {}, "Nothing changes: what runs is what the files say."));
  const cut = plan.sessions_cut_count ?? 0;
  if (cut > 0) shown.push(el("p", { class: "cut" }, `${plural(cut, "session")} would be cut when the grace is over.`));
  const warnings = plan.warnings ?? [];
  if (warnings.length > 0) {
    shown.push(el("h3", {}, "Warnings"), el("ul", { class: "problems" }, ...warnings.slice(0, MOST).map(problem)));
  }
  return shown;
}

export function reload(done) {
  const body = get("reload-body");
  const apply = get("reload-apply");
  const failed = (failure) => {
    if (!failure) return;
    const list = el("div", { class: "problems" });
    problems(list, failure);
    body.replaceChildren(list);
    show(apply, false);
  };
  const box = dialog("reload-dialog", {
    failed,
    submit: async () => {
      const did = await request("POST", "/v1/reload");
      const count = parts.reduce((sum, [key]) => sum + (did[key]?.length ?? 0), 0);
      await done(`The configuration is reloaded: ${plural(count, "listener")} changed`);
    },
  });
  get("reload").addEventListener("click", async () => {
    show(apply, false);
    body.replaceChildren(el("p", {}, "Reading the configuration …"));
    box.open();
    try {
      const plan = await request("POST", "/v1/reload?dry_run=true");
      body.replaceChildren(...picture(plan));
      show(apply, true);
    } catch (error) {
      failed(error);
    }
  });
}
