import { useState } from "react";
import { post, Problem, type Answer, type RunCard, type Schemas } from "../api/client";
import { Cover } from "../parts/Cover";
import { Filters } from "../parts/Filters";
import { Link } from "../parts/Link";
import { Badge, Empty, Failure, Waiting } from "../parts/Notice";
import { ReaderPanel } from "../parts/ReaderPanel";
import { useAsked } from "../state/asked";
import { change, href, usePlace } from "../state/place";
import { asked, useFilters, useHeld } from "../state/reader";

const K = 10;
const AT_FIRST = 3;
const MOST = 6;
const PAUSE = 250;

type Body = Omit<Schemas["Recommend"], "run" | "words" | "why">;

interface Column {
  run: RunCard;
  /** There are words, which this run does not read. */
  deaf: boolean;
  answer: Answer | undefined;
  problem: Problem | undefined;
}

/** Two or more runs side by side for the same reader. */
export function Compare() {
  const { runs, reader } = useHeld();
  const { query } = usePlace();
  const named = query.getAll("with").filter((name) => runs.some((run) => run.name === name)).slice(0, MOST);
  const chosen = named.length ? named : runs.slice(0, AT_FIRST).map((run) => run.name);
  const columns = runs.filter((run) => chosen.includes(run.name));
  const main = columns[0] ?? runs[0]!;
  const { bodies } = useFilters();
  const words = query.get("words") ?? "";
  const body = { ...asked(reader), k: K, filters: bodies, leave_out: reader.leaveOut.map((met) => met.item) };
  const key = JSON.stringify([columns.map((run) => [run.name, run.opened]), body, words]);
  const ask = (signal: AbortSignal) => Promise.all(columns.map((run) => column(run, body, words, signal)));
  const said = useAsked(columns.length ? key : null, ask, PAUSE);
  const data = said.data;
  const toggle = (name: string) => {
    const next = chosen.includes(name) ? chosen.filter((one) => one !== name) : [...chosen, name];
    if (next.length && next.length <= MOST) change({ with: next });
  };
  if (runs.length < 2)
    return (
      <section className="stack">
        <h1>Side by side</h1>
        <Empty title="One run is served; a comparison needs two.">
          Start the server with more: <code>palate serve RUN RUN</code>
        </Empty>
      </section>
    );
  return (
    <div className="with-side">
      <ReaderPanel run={main} />
      <section className="main-side" aria-labelledby="compare" aria-busy={said.loading}>
        <h1 id="compare">Side by side for {reader.user ?? "a new reader"}</h1>
        <fieldset className="chips plain">
          <legend className="label">Runs, up to {MOST}</legend>
          {runs.map((run) => (
            <label key={run.name} className={`chip chip-button ${chosen.includes(run.name) ? "chip-on" : ""}`}>
              <input type="checkbox" className="hidden" checked={chosen.includes(run.name)} onChange={() => toggle(run.name)} />
              {run.name === run.system ? run.title : run.name}
            </label>
          ))}
        </fieldset>
        <Filters run={main} />
        {said.problem && <Failure problem={said.problem} again={said.again} />}
        {!data && said.loading && <Waiting rows={6} />}
        {data && <Lists columns={data} stale={said.loading} />}
      </section>
    </div>
  );
}

/** One list; a run that refuses says why in its column, and the others stand. A server that is busy is asked again. */
async function column(run: RunCard, body: Body, words: string, signal: AbortSignal): Promise<Column> {
  const asked: Schemas["Recommend"] = { run: run.name, ...body, words: run.reads_words ? words : "", why: false };
  const deaf = words !== "" && !run.reads_words;
  try {
    return { run, deaf, answer: await post("/v1/recommend", asked, signal), problem: undefined };
  } catch (failure) {
    if (!(failure instanceof Problem) || [0, 401, 403, 429].includes(failure.status)) throw failure;
    return { run, deaf, answer: undefined, problem: failure };
  }
}

function Lists({ columns, stale }: { columns: Column[]; stale: boolean }) {
  const [lit, setLit] = useState<string>();
  const answers = columns.flatMap((one) => (one.answer ? [one.answer] : []));
  const count = new Map<string, number>();
  for (const answer of answers) for (const one of answer.recommended) count.set(one.item, (count.get(one.item) ?? 0) + 1);
  const n = answers.length;
  const all = [...count.values()].filter((times) => times === n).length;
  const lone = [...count.values()].filter((times) => times === 1).length;
  return (
    <>
      {n > 1 && (
        <p className="finding" role="status">
          {all === 0 ? "No title stands in every list" : `${all} of ${K} titles stand in ${n === 2 ? "both" : `all ${n}`} lists`};{" "}
          {lone} {lone === 1 ? "stands" : "stand"} in one list only.
        </p>
      )}
      <div className={`columns ${stale ? "stale" : ""}`} tabIndex={0} role="group" aria-label="Lists, side by side">
        {columns.map(({ run, answer, problem, deaf }) => {
          return (
            <article key={run.name} className="column" aria-label={run.title}>
              <h2 className="column-head">
                {run.name === run.system ? run.title : run.name}
                {run.pretrained !== "no" && <Badge>pretrained {run.pretrained}</Badge>}
              </h2>
              {deaf && <p className="hint">Reads no words: asked without them.</p>}
              {problem && <Failure problem={problem} />}
              {answer && !answer.recommended.length && <p className="hint">Nothing to recommend.</p>}
              <ol>
                {answer?.recommended.map((one) => {
                  const times = count.get(one.item) ?? 1;
                  const kind = n === 1 ? "" : times === n ? "in-all" : times === 1 ? "alone" : "in-some";
                  return (
                    <li
                      key={one.item}
                      className={`line ${kind} ${lit === one.item ? "lit" : ""}`}
                      onMouseEnter={() => setLit(one.item)}
                      onMouseLeave={() => setLit(undefined)}
                    >
                      <span className="line-rank">{one.rank}</span>
                      <Cover run={run} item={one.item} title={one.title} size="small" />
                      <span className="line-title">
                        <Link to={href("catalogue", { run: run.name, item: one.item })}>{one.title}</Link>
                        {kind && <span className="line-kind">{kindOf(kind, answers, run.name, one.item)}</span>}
                      </span>
                    </li>
                  );
                })}
              </ol>
            </article>
          );
        })}
      </div>
    </>
  );
}

/** Who else has the item, and where. */
function kindOf(kind: string, answers: Answer[], own: string, item: string): string {
  if (kind === "alone") return "only here";
  const others = answers.flatMap((answer) => {
    const rank = answer.run === own ? undefined : answer.recommended.find((one) => one.item === item)?.rank;
    return rank === undefined ? [] : [`${answer.run} #${rank}`];
  });
  return `${kind === "in-all" ? "in all; " : "also "}${others.join(", ")}`;
}
