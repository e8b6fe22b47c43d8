// The proof from outside: another portway tries the ports of a mapping.

import { mapping as route, request } from "./api.js";
import { badge, dialog, el, get, problems, say, show } from "./dom.js";

/** The other portway may take seven seconds for each protocol, and may be slow itself. */
const PATIENCE = 40_000;

const kinds = {
  ok: { word: "Reached", kind: "up" },
  fail: { word: "Not reached", kind: "bad" },
  unknown: { word: "Unknown", kind: "off" },
};

/** A try: its verdict, what shows that, and what helps. */
function proof({ proof: { verdict, evidence, cure } }) {
  const mark = badge();
  mark.update(kinds[verdict] ?? kinds.unknown);
  return el("li", {}, mark, el("p", {}, evidence), cure ? el("p", { class: "help" }, cure) : undefined);
}

/** Has a mapping tried, and shows what came of it in a dialog. */
export function outside() {
  const body = get("outside-body");
  const again = get("outside-again");
  let name;
  let turn = 0;
  const tried = async () => {
    const own = ++turn;
    show(again, false);
    body.replaceChildren(el("p", {}, "Another portway tries the ports of this mapping …"));
    try {
      const { from, proofs } = await request("POST", `${route(name)}/probe`, undefined, PATIENCE);
      if (own !== turn) return;
      body.replaceChildren(
        el("p", {}, "Tried by ", el("code", {}, from), "."),
        el("ul", { class: "proofs", role: "list" }, ...proofs.map(proof)),
      );
    } catch (error) {
      if (own !== turn) return;
      const list = el("div", { class: "problems" });
      problems(list, error);
      body.replaceChildren(list);
    }
    show(again, true);
  };
  const box = dialog("outside-dialog", {
    failed: () => {},
    submit: async () => {
      await tried();
      return false;
    },
  });
  return (mapping) => {
    name = mapping.name;
    say(get("outside-title"), `${name} from outside`);
    box.open();
    tried();
  };
}
