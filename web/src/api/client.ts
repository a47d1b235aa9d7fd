// Every request goes to the server that gave this page, with types from its own OpenAPI document.
import type { components, paths } from "./schema";

export type Schemas = components["schemas"];
export type Answer = Schemas["Answer"];
export type Recommended = Schemas["Recommended"];
export type RunCard = Schemas["RunCard"];
export type Facet = Schemas["Facet"];
export type Found = Schemas["Found"];
export type FitCard = Schemas["FitCard"];
export type LogLine = Schemas["LogLine"];
export type Table = Schemas["Table"];
export type Measured = Schemas["Measured"];
export type Span = Schemas["Span"];
export type FilterBody = Schemas["FilterBody"];

type Json<T> = T extends { responses: { 200: { content: { "application/json": infer Body } } } } ? Body : never;
type Query<T> = T extends { parameters: { query?: infer Asked } } ? Asked : undefined;
type Sent<T> = T extends { requestBody: { content: { "application/json": infer Body } } } ? Body : undefined;
type With<Method extends string> = {
  [P in keyof paths]: paths[P] extends Record<Method, object> ? P : never;
}[keyof paths];

/** What the server says went wrong: one sentence, and a word for programs. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    said: string,
    readonly retryAfter = 0,
  ) {
    super(said);
  }
}

const TOKEN = "palate-token";
const listeners = new Set<() => void>();

let refused: Problem | undefined;
const refusals = new Set<() => void>();

function refuse(problem: Problem | undefined): void {
  refused = problem;
  refusals.forEach((tell) => tell());
}

/** The last request that the token, or its absence, did not allow. */
export const denial = {
  get: () => refused,
  clear: () => refuse(undefined),
  watch: (tell: () => void) => {
    refusals.add(tell);
    return () => void refusals.delete(tell);
  },
};

export const token = {
  get: () => sessionStorage.getItem(TOKEN) ?? "",
  set: (value: string) => {
    if (value) sessionStorage.setItem(TOKEN, value);
    else sessionStorage.removeItem(TOKEN);
    refuse(undefined);
    listeners.forEach((tell) => tell());
  },
  watch: (tell: () => void) => {
    listeners.add(tell);
    return () => void listeners.delete(tell);
  },
};

function headers(): Record<string, string> {
  const own = token.get();
  return own ? { Authorization: `Bearer ${own}` } : {};
}

async function answered(sent: Promise<Response>): Promise<Response> {
  let response: Response;
  try {
    response = await sent;
  } catch (failure) {
    if (failure instanceof DOMException && failure.name === "AbortError") throw failure;
    throw new Problem(0, "gone", "The server does not answer. Is it still running?");
  }
  if (response.ok) return response;
  const said = (await response.json().catch(() => ({}))) as { error?: string; code?: string };
  const later = Number(response.headers.get("Retry-After") ?? 0);
  const problem = new Problem(response.status, said.code ?? "http", said.error ?? `The server said ${response.status}.`, later);
  if (problem.code === "denied") refuse(problem);
  throw problem;
}

export function address(path: string, query: object = {}): string {
  const parts = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) {
    if (value === undefined || value === null || value === "") continue;
    for (const one of Array.isArray(value) ? value : [value]) parts.append(key, String(one));
  }
  const said = parts.toString();
  return said ? `${path}?${said}` : path;
}

export async function get<P extends With<"get">>(
  path: P,
  query?: Query<paths[P]["get"]>,
  signal?: AbortSignal,
): Promise<Json<paths[P]["get"]>> {
  const response = await answered(fetch(address(path, query ?? {}), { headers: headers(), signal: signal ?? null }));
  return (await response.json()) as Json<paths[P]["get"]>;
}

export async function post<P extends With<"post">>(
  path: P,
  body: Sent<paths[P]["post"]>,
  signal?: AbortSignal,
): Promise<Json<paths[P]["post"]>> {
  const sent = fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers() },
    body: JSON.stringify(body),
    signal: signal ?? null,
  });
  return (await (await answered(sent)).json()) as Json<paths[P]["post"]>;
}

/** A picture as an address of this page; needed where pictures need a token, which an <img> cannot send. */
export async function picture(path: string, signal: AbortSignal): Promise<string> {
  const response = await answered(fetch(path, { headers: headers(), signal }));
  return URL.createObjectURL(await response.blob());
}
