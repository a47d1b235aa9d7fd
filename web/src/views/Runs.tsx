import { useEffect, useRef, useState } from "react";
import { get, type FitCard, type LogLine, type RunCard } from "../api/client";
import { Curve, short } from "../charts/Curve";
import { seconds } from "../charts/Scatter";
import { Badge, Empty, Failure, Waiting } from "../parts/Notice";
import { useAsked } from "../state/asked";
import { change, usePlace } from "../state/place";
import { useHeld } from "../state/reader";

const SOON = 2000;
const LATER = 10000;

const STATES: Record<FitCard["state"], { said: string; tone: "good" | "plain" | "warn" }> = {
  learning: { said: "learning", tone: "good" },
  finished: { said: "finished", tone: "plain" },
  quiet: { said: "quiet", tone: "warn" },
};

/** Fits, finished and under way, with their curves; and what is served. */
export function Runs() {
  const { runs } = useHeld();
  const { query } = usePlace();
  const fits = useAsked("fits", (signal) => get("/v1/fits", undefined, signal));
  const cards = fits.data ?? [];
  const learning = cards.some((one) => one.state !== "finished");
  useRepeated(fits, learning ? SOON : LATER);
  const chosen = cards.find((one) => one.name === query.get("fit")) ?? cards.find((one) => one.epochs !== null) ?? cards[0];
  const named = query.get("seed");
  const seed = chosen?.seeds.find((one) => String(one) === named);
  return (
    <div className="stack">
      <h1>Runs</h1>
      {fits.problem && <Failure problem={fits.problem} again={fits.again} />}
      {!fits.data && fits.loading && <Waiting rows={5} />}
      {fits.data && !cards.length && (
        <Empty title="There are no fits beside the served runs.">
          <code>palate fit sasrec --data world</code> begins one; its curve then grows here.
        </Empty>
      )}
      {chosen && (
        <div className="with-side">
          <nav className="panel" aria-label="Fits">
            <ul className="fits">
              {cards.map((one) => (
                <li key={one.name}>
                  <button
                    type="button"
                    className="fit"
                    aria-pressed={one.name === chosen.name}
                    onClick={() => change({ fit: one.name, seed: undefined })}
                  >
                    <span>
                      <strong>{one.name}</strong>
                      <span className="block muted small">
                        {one.title} on {one.data}
                      </span>
                    </span>
                    <Badge tone={STATES[one.state].tone}>{STATES[one.state].said}</Badge>
                  </button>
                </li>
              ))}
            </ul>
          </nav>
          <Fit key={`${chosen.name}/${seed ?? ""}`} fit={chosen} seed={seed} setSeed={(one) => change({ fit: chosen.name, seed: one })} />
        </div>
      )}
      <section aria-labelledby="served" className="stack">
        <h2 id="served">Served here</h2>
        <div className="served">
          {runs.map((run) => (
            <ServedRun key={run.name} run={run} />
          ))}
        </div>
      </section>
    </div>
  );
}

/** Asks again so long after an answer came, while the page is looked at. */
function useRepeated({ again, loading }: { again: () => void; loading: boolean }, wait: number) {
  useEffect(() => {
    if (loading) return;
    const timer = window.setInterval(() => document.hidden || again(), wait);
    return () => window.clearInterval(timer);
  }, [again, loading, wait]);
}

/** The log of a fit from its beginning, read on while it is written. */
function useLog(fit: FitCard, seed: number | undefined) {
  const [lines, setLines] = useState<LogLine[]>([]);
  const next = useRef(0);
  const began = useRef<number | null>(null);
  const asking = useAsked(`${fit.name}/${seed ?? ""}`, async (signal) => {
    const query = { fit: fit.name, ...(seed === undefined ? {} : { seed }) };
    let found = await get("/v1/fits/log", { ...query, after: next.current }, signal);
    if (found.first > 0 && found.began !== began.current) found = await get("/v1/fits/log", { ...query, after: 0 }, signal);
    began.current = found.began;
    next.current = found.next;
    setLines((now) => (found.first === 0 ? found.lines : [...now, ...found.lines]));
    return found;
  });
  const more = asking.data !== undefined && asking.data.lines.length >= 2000;
  useRepeated(asking, more ? 200 : asking.data?.state === "finished" ? 60000 : SOON);
  return { lines, asking };
}

function Fit({ fit, seed, setSeed }: { fit: FitCard; seed: number | undefined; setSeed: (seed: string) => void }) {
  const { lines, asking } = useLog(fit, seed);
  const losses = lines.filter((line) => line.loss != null && line.epoch != null).map((line) => ({ x: line.epoch!, y: line.loss! }));
  const looks = lines.filter((line) => line.valid != null && line.epoch != null).map((line) => ({ x: line.epoch!, y: line.valid! }));
  const best = looks.reduce<(typeof looks)[number] | undefined>((top, one) => (top && top.y >= one.y ? top : one), undefined);
  const epoch = losses[losses.length - 1]?.x;
  const spent = [...lines].reverse().find((line) => line.seconds != null)?.seconds;
  const end = [...lines].reverse().find((line) => line.stopped);
  return (
    <section className="main-side stack" aria-labelledby="fit" aria-live="off">
      <div className="head">
        <div>
          <h2 id="fit">
            {fit.name} <Badge tone={STATES[fit.state].tone}>{STATES[fit.state].said}</Badge>
          </h2>
          <p className="muted">
            {fit.title} on {fit.data}
            {epoch !== undefined && `, epoch ${epoch} of at most ${fit.epochs ?? "?"}`}
            {spent != null && `, ${seconds(spent)}`}
            {end?.stopped && `; ended: ${end.stopped}`}
          </p>
        </div>
        {fit.seeds.length > 1 && (
          <label className="inline-label">
            <span className="label">Seed</span>
            <select className="field" value={seed ?? fit.seeds[fit.seeds.length - 1]} onChange={(event) => setSeed(event.target.value)}>
              {fit.seeds.map((one) => (
                <option key={one}>{one}</option>
              ))}
            </select>
          </label>
        )}
      </div>
      {asking.problem && <Failure problem={asking.problem} again={asking.again} />}
      {!asking.data && asking.loading && <Waiting rows={3} />}
      {epoch !== undefined && fit.epochs !== null && fit.state !== "finished" && (
        <progress className="progress" max={fit.epochs} value={epoch} aria-label={`epoch ${epoch} of at most ${fit.epochs}`} />
      )}
      {asking.data && !lines.length && (
        <Empty title={fit.epochs === null ? "This system learns in one go and writes no curve." : "Nothing is written yet."} />
      )}
      <div className="curves">
        <Curve points={losses} name="Training loss" tone="loss" />
        <Curve points={looks} name="NDCG@10 on validation" mark={best} tone="valid" />
      </div>
      {lines.length > 0 && (
        <details className="panel">
          <summary>
            <h3>Log, {lines.length} lines</h3>
          </summary>
          <div className="log" tabIndex={0} role="group" aria-label="Log, newest first">
            {[...lines]
              .reverse()
              .slice(0, 400)
              .map((line, i) => (
                <p key={lines.length - i}>
                  <span className="muted">{new Date(1000 * line.at).toLocaleTimeString("en-GB")}</span> step {line.step}
                  {line.epoch != null && ` · epoch ${line.epoch}`}
                  {line.loss != null && ` · loss ${short(line.loss)}`}
                  {line.valid != null && ` · validation ${short(line.valid)}`}
                  {line.stopped && ` · ended: ${line.stopped}`}
                </p>
              ))}
          </div>
        </details>
      )}
    </section>
  );
}

function ServedRun({ run }: { run: RunCard }) {
  const can = [
    run.reads_words && "reads words",
    run.takes_new_items && "takes new items",
    run.spaces.includes("code") && "names its items",
  ].filter(Boolean);
  return (
    <article className="panel" aria-label={run.name}>
      <h3>{run.name}</h3>
      <p className="muted small">
        {run.title}, {run.family}
        {run.pretrained !== "no" && `, pretrained ${run.pretrained}`}
      </p>
      {run.problem && <p className="hint">Not replaced: {run.problem}</p>}
      <dl className="facts">
        <div>
          <dt>data</dt>
          <dd>
            {run.data}, {run.users.toLocaleString("en")} people, {run.items.toLocaleString("en")} items
          </dd>
        </div>
        <div>
          <dt>fit</dt>
          <dd>
            {run.cost.fit_seconds === undefined ? "–" : seconds(run.cost.fit_seconds)}, {run.seeds.length} seed
            {run.seeds.length > 1 && "s"}
          </dd>
        </div>
        {can.length > 0 && (
          <div>
            <dt>can</dt>
            <dd>{can.join(", ")}</dd>
          </div>
        )}
      </dl>
    </article>
  );
}
