// Who is asked about. The same reader stands in Reader, Compare and Catalogue.
import { createContext, useCallback, useContext, useMemo, useState, type ReactNode } from "react";
import { get, type FilterBody, type RunCard, type Schemas } from "../api/client";
import { change, usePlace } from "./place";

export interface Met {
  item: string;
  title: string;
}

export interface Reader {
  /** A user of the data, asked by id while the history is theirs. */
  user: string | undefined;
  about: Schemas["UserPage"]["about"];
  history: Met[];
  /** Whether the history is no longer the user's own. */
  edited: boolean;
  leaveOut: Met[];
}

const NOBODY: Reader = { user: undefined, about: {}, history: [], edited: false, leaveOut: [] };

interface Held {
  runs: RunCard[];
  reloadRuns: () => void;
  reader: Reader;
  /** Items of the history that the user's own does not hold, oldest first. */
  added: Met[];
  /** Take a user of the data with their history. */
  pick: (user: string, run: string) => Promise<void>;
  newcomer: () => void;
  add: (met: Met) => void;
  remove: (item: string) => void;
  hide: (met: Met) => void;
  show: (item: string) => void;
  /** The user's own history again. */
  restore: () => void;
}

const Context = createContext<Held | null>(null);

export function useHeld(): Held {
  const held = useContext(Context);
  if (!held) throw new Error("no reader is held here");
  return held;
}

export function Holding(props: { runs: RunCard[]; reloadRuns: () => void; children: ReactNode }) {
  const [reader, setReader] = useState<Reader>(NOBODY);
  const [own, setOwn] = useState<Met[]>([]);
  const pick = useCallback(async (user: string, run: string) => {
    const page = await get("/v1/users/one", { user, run });
    const history = page.events.map(({ item, title }) => ({ item, title }));
    setOwn(history);
    setReader({ user, about: page.about, history, edited: false, leaveOut: [] });
    change({ user });
  }, []);
  const held = useMemo<Held>(
    () => ({
      runs: props.runs,
      reloadRuns: props.reloadRuns,
      reader,
      added: reader.history.filter((met) => !own.some((one) => one.item === met.item)),
      pick,
      newcomer: () => {
        setReader(NOBODY);
        change({ user: undefined });
      },
      add: (met) =>
        setReader((now) => ({ ...now, edited: true, history: [...now.history.filter((one) => one.item !== met.item), met] })),
      remove: (item) =>
        setReader((now) => ({ ...now, edited: true, history: now.history.filter((one) => one.item !== item) })),
      hide: (met) => setReader((now) => ({ ...now, leaveOut: [...now.leaveOut, met] })),
      show: (item) => setReader((now) => ({ ...now, leaveOut: now.leaveOut.filter((one) => one.item !== item) })),
      restore: () => setReader((now) => ({ ...now, history: own, edited: false })),
    }),
    [props.runs, props.reloadRuns, reader, pick, own],
  );
  return <Context.Provider value={held}>{props.children}</Context.Provider>;
}

/** Who is asked, as the API wants it. */
export function asked(reader: Reader): { user: string } | { history: string[] } {
  if (reader.user !== undefined && !reader.edited) return { user: reader.user };
  return { history: reader.history.slice(-1000).map((met) => met.item) };
}

/** `category=mystery,fantasy` and `year=1900..1950` in the address, as the API wants them. */
export function filterOf(text: string): FilterBody | null {
  const at = text.indexOf("=");
  const column = text.slice(0, at);
  const value = text.slice(at + 1);
  if (at < 1 || !value) return null;
  if (!value.includes("..")) return { column, any_of: value.split(",") };
  const [low, high] = value.split("..");
  const least = low ? Number(low) : null;
  const most = high ? Number(high) : null;
  return Number.isNaN(least) || Number.isNaN(most) || (least === null && most === null) ? null : { column, least, most };
}

export function useFilters(): { texts: string[]; bodies: FilterBody[] } {
  const { query } = usePlace();
  const texts = query.getAll("f");
  return { texts, bodies: texts.map(filterOf).filter((one) => one !== null) };
}

/** The run that is asked: the one in the address, else the first. */
export function useRun(): RunCard {
  const { runs } = useHeld();
  const { query } = usePlace();
  const named = query.get("run");
  const found = runs.find((run) => run.name === named) ?? runs[0];
  if (!found) throw new Error("no run is served");
  return found;
}
