// The routes of the API as this page uses them.

/** Why a request failed: `status` is 0 where there was no answer. */
export class Failed extends Error {
  constructor(status, body) {
    super(body?.error || (status ? `portway answered with ${status}` : "portway does not answer"));
    this.status = status;
    this.problems = Array.isArray(body?.problems) ? body.problems : [];
  }
}

const PATIENCE = 10_000;

/** Asks, and gives the value of the answer. */
export async function request(method, path, body, patience = PATIENCE) {
  let response;
  let value;
  try {
    response = await fetch(path, {
      method,
      cache: "no-store",
      credentials: "same-origin",
      headers: body === undefined ? {} : { "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(patience),
    });
    const text = await response.text();
    try {
      value = text ? JSON.parse(text) : {};
    } catch {
      value = { error: text.slice(0, 500) };
    }
  } catch {
    throw new Failed(0);
  }
  if (!response.ok) throw new Failed(response.status, value);
  return value;
}

export const read = (path) => request("GET", path);

/** A path with a query; what is empty is left out. */
export function query(path, values) {
  const set = Object.entries(values).filter(([, value]) => value !== undefined && value !== "");
  return set.length ? path + "?" + new URLSearchParams(set) : path;
}

export const mapping = (name) => "/v1/mappings/" + encodeURIComponent(name);
