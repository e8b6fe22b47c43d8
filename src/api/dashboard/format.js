// Values as people read them. Pure: no page, no network.

const SPACE = "\u00a0";
const units = ["B", "kB", "MB", "GB", "TB", "PB"];

/** A count of bytes with three digits: "1.24 MB". */
export function bytes(count) {
  let value = Number(count) || 0;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return value.toFixed(digits) + SPACE + units[unit];
}

export const rate = (perSecond) => bytes(perSecond) + "/s";

export const number = (count) => (Number(count) || 0).toLocaleString("en");

export const plural = (count, one, many = one + "s") => number(count) + SPACE + (count === 1 ? one : many);

const spans = [["d", 86_400], ["h", 3_600], ["min", 60], ["s", 1]];

/** A time span in its two largest units: "3 d 4 h". */
export function duration(ms) {
  let seconds = Math.max(0, Math.floor((Number(ms) || 0) / 1000));
  const first = spans.findIndex(([, size]) => seconds >= size);
  if (first < 0) return "0" + SPACE + "s";
  const parts = [];
  for (const [word, size] of spans.slice(first, first + 2)) {
    const count = Math.floor(seconds / size);
    seconds -= count * size;
    if (count > 0) parts.push(count + SPACE + word);
  }
  return parts.join(" ");
}

/** The time of day of an RFC 3339 text, where the reader is; with the day where it is not today. */
export function time(at) {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return String(at ?? "");
  const clock = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
  if (date.toDateString() === new Date().toDateString()) return clock;
  return date.toLocaleDateString([], { day: "numeric", month: "short" }) + " " + clock;
}

/** How long until then: "in 3 h 5 min". */
export function until(at) {
  const left = new Date(at).getTime() - Date.now();
  return Number.isNaN(left) ? String(at) : left > 0 ? "in " + duration(left) : "now";
}

let countries;
try {
  countries = new Intl.DisplayNames(["en"], { type: "region" });
} catch {
  countries = undefined;
}

/** The name of a country by its ISO code. */
export function country(code) {
  try {
    return countries?.of(code) ?? code;
  } catch {
    return code;
  }
}

/** An address with a port, in its parts; undefined for another text. */
export function split(address) {
  const found = /^(?:\[(.+)\]|([^:]*)):(\d+(?:-\d+)?)$/.exec(address ?? "");
  return found ? { host: found[1] ?? found[2], port: found[3] } : undefined;
}

/** The same put together. */
export const join = (host, port) => (host.includes(":") ? `[${host}]` : host) + ":" + port;
