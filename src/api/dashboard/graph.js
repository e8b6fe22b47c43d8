// The rates of the last 15 minutes: kept here for each mapping, and drawn as a graph.

import { attribute, el, say, svg } from "./dom.js";
import { rate } from "./format.js";

/** A point is a second. */
const POINTS = 900;
/** The seconds that are drawn as one step. */
const STEP = 6;
const STEPS = POINTS / STEP;
const HEIGHT = 72;
/** The least height of the scale, in bytes a second: noise is not a mountain. */
const LEAST = 2_000;

/** The rates of one mapping, the oldest first. */
export class Rates {
  constructor() {
    this.points = [];
    /** The number of the last point. Steps begin at its multiples, so that a step does not change once it is past. */
    this.last = 0;
  }

  /** Takes what the daemon remembers. */
  load(history) {
    const factor = Math.max(1, Math.round((history.interval_ms || 1000) / 1000));
    const points = history.points.flatMap((point) => Array(factor).fill([point.bytes_in, point.bytes_out]));
    this.points = points.slice(-POINTS);
  }

  /** Adds what moved in the last `seconds`. */
  add(seconds, bytesIn, bytesOut) {
    for (let second = 0; second < Math.min(seconds, POINTS); second += 1) this.points.push([bytesIn, bytesOut]);
    this.last += seconds;
    if (this.points.length > POINTS) this.points.splice(0, this.points.length - POINTS);
  }

  /** Means by step, as `[x, in, out]` with x from 0 to STEPS, and the most of them. */
  steps() {
    const first = this.last - this.points.length + 1;
    const steps = [];
    let most = 0;
    for (let at = 0; at < this.points.length; ) {
      const number = first + at;
      const end = Math.min(this.points.length, at + STEP - (((number % STEP) + STEP) % STEP));
      let [into, out] = [0, 0];
      for (let i = at; i < end; i += 1) {
        into += this.points[i][0];
        out += this.points[i][1];
      }
      into /= end - at;
      out /= end - at;
      most = Math.max(most, into, out);
      steps.push([STEPS - (this.points.length - end) / STEP, into, out]);
      at = end;
    }
    return { steps, most };
  }
}

/** A round number that is not less. */
function scale(most) {
  const least = Math.max(most, LEAST);
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((digit) => digit * power).find((value) => value >= least) ?? least;
}

const line = (points) => points.map(([x, y], i) => (i ? "L" : "M") + x.toFixed(2) + " " + y.toFixed(1)).join("");

/** The graph as an element with a method `draw(rates)`. */
export function graph(name) {
  const area = svg("path", { class: "area" });
  const out = svg("path", { class: "out" });
  const into = svg("path", { class: "in" });
  const base = svg("path", { class: "base", d: `M0 ${HEIGHT - 0.5}H${STEPS}` });
  const picture = svg(
    "svg",
    { viewBox: `0 0 ${STEPS} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", focusable: "false" },
    base,
    area,
    out,
    into,
  );
  const top = el("span", { class: "top", "aria-hidden": "true" });
  const quiet = el("span", { class: "quiet", "aria-hidden": "true" }, "no traffic in the last 15 minutes");
  const ago = el("span", { class: "ago", "aria-hidden": "true" }, "15 min ago");
  const node = el("figure", { class: "graph" }, picture, top, ago, quiet);
  node.draw = (rates) => {
    const { steps, most } = rates.steps();
    const height = scale(most);
    const y = (value) => HEIGHT - 1 - (value / height) * (HEIGHT - 6);
    const start = steps.length ? [[Math.max(0, STEPS - rates.points.length / STEP), steps[0][1], steps[0][2]]] : [];
    const all = [...start, ...steps];
    const outs = line(all.map(([x, , value]) => [x, y(value)]));
    attribute(out, "d", outs);
    attribute(into, "d", line(all.map(([x, value]) => [x, y(value)])));
    attribute(area, "d", all.length ? `${outs}V${HEIGHT}H${all[0][0].toFixed(2)}Z` : "");
    const text = most >= 1 ? "most " + rate(most) : "";
    attribute(node, "data-quiet", most < 1);
    say(top, text);
    attribute(picture, "aria-label", `Traffic of ${name}, last 15 minutes: ${text || "none"}`);
  };
  return node;
}
