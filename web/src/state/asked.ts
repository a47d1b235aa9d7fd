import { useCallback, useEffect, useRef, useState, useSyncExternalStore } from "react";
import { Problem, token } from "../api/client";

export interface Asked<T> {
  data: T | undefined;
  /** The key that `data` answers: not the present one while its answer is waited for. */
  answers: string | undefined;
  problem: Problem | undefined;
  loading: boolean;
  again: () => void;
}

const NOTHING = { data: undefined, answers: undefined };

/**
 * What `ask` answers, asked anew whenever `key` or the token changes; an answer that is overtaken is dropped. The last
 * answer stays while the next one is waited for, but not once that has failed. `null` as key asks nothing. A server that
 * is busy is asked again when it says so.
 */
export function useAsked<T>(key: string | null, ask: (signal: AbortSignal) => Promise<T>, wait = 0): Asked<T> {
  const [held, setHeld] = useState<{ data: T | undefined; answers: string | undefined }>(NOTHING);
  const [failed, setFailed] = useState<{ problem: Problem; key: string }>();
  const [loading, setLoading] = useState(key !== null);
  const [round, setRound] = useState(0);
  const own = useSyncExternalStore(token.watch, token.get);
  const latest = useRef(ask);
  latest.current = ask;
  useEffect(() => {
    if (key === null) {
      setHeld(NOTHING);
      setFailed(undefined);
      setLoading(false);
      return;
    }
    const control = new AbortController();
    let retry = 0;
    setLoading(true);
    const begin = window.setTimeout(() => {
      latest
        .current(control.signal)
        .then((found) => {
          if (control.signal.aborted) return;
          setHeld({ data: found, answers: key });
          setFailed(undefined);
          setLoading(false);
        })
        .catch((failure: unknown) => {
          if (control.signal.aborted) return;
          const said = failure instanceof Problem ? failure : new Problem(0, "bug", String(failure));
          setFailed({ problem: said, key });
          setLoading(false);
          if (said.status === 429) retry = window.setTimeout(() => setRound((n) => n + 1), 1000 * (said.retryAfter || 1));
        });
    }, wait);
    return () => {
      control.abort();
      window.clearTimeout(begin);
      window.clearTimeout(retry);
    };
  }, [key, round, wait, own]);
  const again = useCallback(() => setRound((n) => n + 1), []);
  const answered = failed?.key === key && held.answers !== key ? NOTHING : held;
  return { ...answered, problem: failed?.problem, loading, again };
}

/** A value that follows `value` once it has not changed for so many milliseconds. */
export function useSettled<T>(value: T, wait: number): T {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = window.setTimeout(() => setSettled(value), wait);
    return () => window.clearTimeout(timer);
  }, [value, wait]);
  return settled;
}
