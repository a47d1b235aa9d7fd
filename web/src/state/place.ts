// The address bar is the state that can be shared: a view, and what is asked in it.
import { useSyncExternalStore } from "react";

export const VIEWS = ["reader", "compare", "leaderboard", "catalogue", "runs"] as const;
export type View = (typeof VIEWS)[number];

const listeners = new Set<() => void>();
const tell = () => listeners.forEach((one) => one());
window.addEventListener("popstate", tell);

function watch(one: () => void): () => void {
  listeners.add(one);
  return () => void listeners.delete(one);
}

const here = () => window.location.pathname + window.location.search;

export interface Place {
  view: View;
  query: URLSearchParams;
}

export function usePlace(): Place {
  const at = useSyncExternalStore(watch, here);
  const [path, search] = at.split("?");
  const named = (path ?? "/").slice(1) as View;
  return { view: VIEWS.includes(named) ? named : "reader", query: new URLSearchParams(search ?? "") };
}

export function go(to: string, replace = false): void {
  if (to === here()) return;
  if (replace) window.history.replaceState(null, "", to);
  else window.history.pushState(null, "", to);
  tell();
}

/** The present view with other parts of the query; undefined takes a part away. */
export function change(parts: Record<string, string | string[] | undefined>, replace = true): void {
  const query = new URLSearchParams(window.location.search);
  for (const [key, value] of Object.entries(parts)) {
    query.delete(key);
    for (const one of value === undefined ? [] : [value].flat()) if (one) query.append(key, one);
  }
  const said = query.toString();
  go(window.location.pathname + (said ? `?${said}` : ""), replace);
}

export function href(view: View, parts: Record<string, string | string[] | undefined> = {}): string {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(parts))
    for (const one of value === undefined ? [] : [value].flat()) if (one) query.append(key, one);
  const said = query.toString();
  return `/${view}` + (said ? `?${said}` : "");
}
