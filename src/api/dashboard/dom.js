// What every part of the page builds with. Text from outside is set as text and never as markup.

const SVG = "http://www.w3.org/2000/svg";

export const get = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") {
      for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    } else if (value !== undefined && value !== false) {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  node.append(...children.filter((child) => child !== undefined && child !== null));
  return node;
}

/** An element with attributes (`on` has the handlers) and children; a text is a text node. */
export const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

export const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

/** Sets the text if it changed: selections, and what a screen reader has, survive. */
export function say(node, text) {
  const wanted = String(text ?? "");
  if (node.textContent !== wanted) node.textContent = wanted;
}

export function attribute(node, name, value) {
  if (value === undefined || value === null || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

export function show(node, visible) {
  if (node.hidden === visible) node.hidden = !visible;
}

/**
 * Makes the children of `parent` those of `items`, in their order, each known by its key. What stays is kept, with its
 * focus. `make(item)` gives an element with a method `update(item)`.
 */
export function keyed(parent, items, key, make) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let child = old.get(name);
    if (child) {
      old.delete(name);
    } else {
      child = make(item);
      child.dataset.key = name;
    }
    child.update?.(item);
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
  }
  for (const child of old.values()) {
    if (child.contains(document.activeElement)) rescue(child);
    child.remove();
  }
}

/** The focus must not fall to the top of the page when the row that had it ends. */
function rescue(child) {
  const next = child.nextElementSibling ?? child.previousElementSibling;
  const target = next?.querySelector("button, a, input, summary") ?? child.closest("section")?.querySelector("h2");
  if (!target) return;
  if (target.matches("h2")) target.tabIndex = -1;
  target.focus({ preventScroll: true });
}

/** A table with heads. The roles stay when a narrow screen shows each row as a block. */
export function table(columns, name) {
  const heads = columns.map((column) =>
    el("th", { scope: "col", role: "columnheader", class: column.class }, column.head ?? column.title),
  );
  const body = el("tbody", { role: "rowgroup" });
  const node = el(
    "table",
    { role: "table", "aria-labelledby": name },
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...heads)),
    body,
  );
  return { node, body, heads };
}

export const cell = (title, content, kind) => el("td", { role: "cell", "data-title": title, class: kind }, content);

let toastTimer;

/** A short message to everyone: at the edge of the window, and read out. */
export function toast(text) {
  const node = get("toast");
  say(node, text);
  node.classList.add("shown");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => {
    node.classList.remove("shown");
    say(node, "");
  }, 5000);
}

/** A change that the page shows by itself, for screen readers. */
export function announce(text) {
  say(get("announce"), text);
}

/** Shows the problems of a failure: what is wrong, what helps, and where. */
export function problems(node, failure) {
  node.replaceChildren();
  if (!failure) return;
  const list = failure.problems ?? [];
  if (list.length === 0) return void node.append(el("p", {}, failure.message));
  node.append(el("p", {}, failure.message), el("ul", {}, ...list.map(problem)));
  node.scrollIntoView({ block: "nearest" });
}

/** One problem, or one warning. */
export function problem(value) {
  // What the page itself sent has no place that a person can look at.
  const isFile = value.file && value.file !== "body" && value.file !== "query";
  const place = isFile ? [value.file, value.line, value.column].filter((part) => part !== undefined) : [];
  return el(
    "li",
    { "data-code": value.code },
    el("span", { class: "what" }, value.message),
    value.help ? el("span", { class: "help" }, value.help) : undefined,
    place.length ? el("span", { class: "place" }, place.join(":")) : undefined,
  );
}

/** A dialog: `open()` shows it, `submit` runs once at a time, and its failure stays in the dialog. */
export function dialog(id, { submit, failed }) {
  const node = get(id);
  const form = node.querySelector("form");
  const button = form.querySelector("button[type=submit]");
  for (const close of node.querySelectorAll("[data-close]")) close.addEventListener("click", () => node.close());
  node.addEventListener("click", (event) => {
    if (event.target === node) node.close();
  });
  // What had the focus before may be gone by now.
  node.addEventListener("close", () => {
    if (document.activeElement === document.body) get("main").focus({ preventScroll: true });
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (button.hidden || button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true");
    failed(undefined);
    try {
      if ((await submit()) !== false) node.close();
    } catch (error) {
      failed(error);
    } finally {
      button.removeAttribute("aria-disabled");
    }
  });
  return {
    open() {
      failed(undefined);
      node.showModal();
    },
  };
}

let question;
const asker = { dialog: undefined };

/** Asks before `action` is done. */
export function ask(title, text, yes, action) {
  asker.dialog ??= dialog("ask", {
    submit: () => question(),
    failed: (failure) => problems(get("ask-error"), failure),
  });
  question = action;
  say(get("ask-title"), title);
  say(get("ask-text"), text);
  say(get("ask-yes"), yes);
  asker.dialog.open();
}

/** Copies a text. Browsers keep the clipboard from pages without TLS, so there is an older way, too. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = el("textarea", { class: "unseen", "aria-hidden": "true", tabindex: "-1" });
    const had = document.activeElement;
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    had?.focus();
    return done;
  }
}

const shapes = {
  up: [["circle", { cx: 8, cy: 8, r: 5.5, fill: "currentColor" }]],
  bad: [["path", { d: "M8 1.8 15 14H1z", fill: "currentColor" }]],
  part: [
    ["circle", { cx: 8, cy: 8, r: 5, fill: "none", stroke: "currentColor", "stroke-width": 1.8 }],
    ["path", { d: "M8 3a5 5 0 0 1 0 10z", fill: "currentColor" }],
  ],
  paused: [["path", { d: "M4 2.5h2.8v11H4zM9.2 2.5H12v11H9.2z", fill: "currentColor" }]],
  off: [["circle", { cx: 8, cy: 8, r: 4.8, fill: "none", stroke: "currentColor", "stroke-width": 1.8 }]],
};

/** A state as a shape: it is told apart without its colour. */
export function shape(kind) {
  const parts = (shapes[kind] ?? shapes.off).map(([tag, attributes]) => svg(tag, attributes));
  return svg("svg", { viewBox: "0 0 16 16", class: "shape " + kind, "aria-hidden": "true", focusable: "false" }, ...parts);
}

/** A word with its shape, which changes only with the state. */
export function badge() {
  const word = el("span");
  const node = el("span", { class: "badge" }, word);
  let kind;
  node.update = (state) => {
    say(word, state.word);
    if (kind === state.kind) return;
    kind = state.kind;
    node.dataset.kind = kind;
    node.querySelector("svg")?.remove();
    node.prepend(shape(kind));
  };
  return node;
}
