import { useRef, useState, type ReactNode } from "react";
import { get, post, type Answer, type Found, type Recommended, type RunCard, type Schemas } from "../api/client";
import { Cover } from "../parts/Cover";
import { Filters } from "../parts/Filters";
import { Icon } from "../parts/Icon";
import { Badge, Empty, Failure, Waiting } from "../parts/Notice";
import { ReaderPanel, subtitle } from "../parts/ReaderPanel";
import { RunChoice, Words } from "../parts/RunChoice";
import { useAsked } from "../state/asked";
import { href, usePlace } from "../state/place";
import { asked, useFilters, useHeld, useRun } from "../state/reader";
import { Link } from "../parts/Link";

const K = 12;
const PAUSE = 250;

interface Said {
  answer: Answer;
  about: Map<string, Found>;
}

/** One answer with what the catalogue says of its items. */
async function recommendations(body: Schemas["Recommend"], signal: AbortSignal): Promise<Said> {
  const answer = await post("/v1/recommend", body, signal);
  const items = answer.recommended.map((one) => one.item);
  const found = items.length ? (await get("/v1/items", { run: body.run ?? null, item: items, limit: 100 }, signal)).items : [];
  return { answer, about: new Map(found.map((one) => [one.item, one])) };
}

export function Reader() {
  const { runs, reader } = useHeld();
  const run = useRun();
  const { query } = usePlace();
  const { bodies } = useFilters();
  const words = run.reads_words ? (query.get("words") ?? "") : "";
  const leaveOut = reader.leaveOut.map((met) => met.item);
  const body: Schemas["Recommend"] = {
    run: run.name,
    ...asked(reader),
    k: K,
    why: true,
    words,
    filters: bodies,
    leave_out: leaveOut,
  };
  const key = `${run.opened}/${JSON.stringify(body)}`;
  const said = useAsked(key, (signal) => recommendations(body, signal), PAUSE);
  const data = said.data;
  const moves = useMoves(data?.answer);
  const list = data?.answer.recommended ?? [];
  const noReason = data?.answer.methods?.because.match(/^none: (.*)/)?.[1];
  const readsTexts = data?.answer.methods?.text_parts === "leave-one-part-out";
  return (
    <div className="with-side">
      <ReaderPanel run={run} />
      <section className="main-side" aria-labelledby="answers" aria-busy={said.loading}>
        <div className="head">
          <div>
            <h1 id="answers">What {reader.user ?? "a new reader"} would get</h1>
            <p className="muted">
              {run.title}
              {data && `, having read ${data.answer.events} events`}
              {data && !data.answer.exact && ", by a search that may miss a better item"}{" "}
              {run.simulated && <Badge>simulated</Badge>}
            </p>
          </div>
        </div>
        <div className="controls">
          <RunChoice runs={runs} run={run} />
          <Words runs={runs} run={run} words={words} />
        </div>
        <Filters run={run} />
        {said.problem && <Failure problem={said.problem} again={said.again} />}
        {!data && said.loading && <Waiting rows={8} shape="cards" />}
        {data && !list.length && !said.problem && (
          <Empty title="Nothing passes these filters.">Take one away, or widen a range.</Empty>
        )}
        <ol className={`cards ${said.loading ? "stale" : ""}`}>
          {list.map((one) => (
            <Card key={one.item} run={run} one={one} about={data?.about.get(one.item)} moved={moves.get(one.item)}>
              <Why key={key} one={one} explain={readsTexts ? () => explained(body, one.item) : undefined} />
            </Card>
          ))}
        </ol>
        {list.length > 0 && noReason && <p className="hint">Why: {noReason}.</p>}
        {list.some((one) => one.because?.length) && (
          <p className="hint">
            Why: how much the score changes when one event is taken out of the history
            {readsTexts && ", or one “part” out of what is read of the title"}. Longer bars moved it more; a striped bar speaks
            against the title.
          </p>
        )}
      </section>
    </div>
  );
}

/** Item → places it rose since the answer before, or "new"; nothing at the first answer. */
function useMoves(answer: Answer | undefined): Map<string, number | "new"> {
  const before = useRef<Answer>(undefined);
  const now = useRef<Answer>(undefined);
  const moves = useRef(new Map<string, number | "new">());
  if (answer && answer !== now.current) {
    before.current = now.current;
    now.current = answer;
    moves.current = new Map();
    const ranks = new Map(before.current?.recommended.map((one) => [one.item, one.rank]));
    if (ranks.size)
      for (const one of answer.recommended) {
        const earlier = ranks.get(one.item);
        if (earlier === undefined) moves.current.set(one.item, "new");
        else if (earlier !== one.rank) moves.current.set(one.item, earlier - one.rank);
      }
  }
  return moves.current;
}

function Moved({ by }: { by: number | "new" }) {
  if (by === "new") return <span className="moved moved-new">new</span>;
  return (
    <span className="moved">
      <span aria-hidden="true">{by > 0 ? "↑" : "↓"}</span>
      <span className="hidden">{by > 0 ? "up by " : "down by "}</span>
      {Math.abs(by)}
    </span>
  );
}

function Card(props: {
  run: RunCard;
  one: Recommended;
  about: Found | undefined;
  moved: number | "new" | undefined;
  children: ReactNode;
}) {
  const { run, one, about, moved, children } = props;
  const { add, hide } = useHeld();
  return (
    <li className="card">
      <Link to={href("catalogue", { run: run.name, item: one.item })} className="card-cover">
        <Cover run={run} item={one.item} title={one.title} />
        <span className="hidden">More about {one.title}</span>
      </Link>
      <div className="card-body">
        <p className="card-rank">
          {one.rank} {moved !== undefined && <Moved by={moved} />}
        </p>
        <h2 className="card-title">{one.title}</h2>
        <p className="muted small">{about && subtitle(about.about)}</p>
        {children}
        <div className="card-actions">
          <button type="button" className="button button-small" onClick={() => add({ item: one.item, title: one.title })}>
            <Icon name="plus" size={14} /> Add to history
          </button>
          <button
            type="button"
            className="icon-button"
            aria-label={`Not ${one.title}`}
            title="Not this"
            onClick={() => hide({ item: one.item, title: one.title })}
          >
            <Icon name="hide" size={16} />
          </button>
        </div>
      </div>
    </li>
  );
}

/** What of an item's text moved its score for this reader; asked for one item at a time, for it reads texts anew. */
async function explained(body: Schemas["Recommend"], item: string): Promise<Recommended["text_parts"]> {
  const { k, why, ...who } = body;
  const answer = await post("/v1/explain", { ...who, items: [item] });
  return answer.recommended[0]?.text_parts;
}

/** The words, events and, when asked for, parts of the item's text that moved a score most, each with its share of the
 * greatest. */
function Why({ one, explain }: { one: Recommended; explain: (() => Promise<Recommended["text_parts"]>) | undefined }) {
  const [asking, setAsking] = useState<"no" | "yes" | "done" | "failed">("no");
  const [parts, setParts] = useState<Recommended["text_parts"]>();
  const ask = async () => {
    setAsking("yes");
    try {
      setParts(await explain?.());
      setAsking("done");
    } catch {
      setAsking("failed");
    }
  };
  const reasons = [
    ...(typeof one.words_drop === "number" ? [{ title: "the words", drop: one.words_drop }] : []),
    ...(one.because ?? []),
    ...(parts ?? []).map((part) => ({ title: `“${part.text}”`, drop: part.drop })),
  ];
  const most = Math.max(...reasons.map((one) => Math.abs(one.drop)), 1e-9);
  return (
    <>
      {reasons.length > 0 && (
        <ul className="why" aria-label={`Why ${one.title}`}>
          {reasons.map((reason, place) => (
            <li key={place} title={`Without it the score would be ${reason.drop < 0 ? "higher" : "lower"} by ${number(reason.drop)}`}>
              <span className={`why-bar ${reason.drop < 0 ? "why-against" : ""}`}>
                <span style={{ width: `${(100 * Math.abs(reason.drop)) / most}%` }} />
              </span>
              <span className="why-title">{reason.title}</span>
              <span className="why-number">{signed(reason.drop)}</span>
            </li>
          ))}
        </ul>
      )}
      {explain && asking !== "done" && (
        <button type="button" className="link" disabled={asking === "yes"} onClick={ask}>
          {{ no: "And its text?", yes: "Reading its text …", failed: "Its text could not be read. Again?" }[asking]}
        </button>
      )}
    </>
  );
}

export const number = (value: number) => Math.abs(value).toLocaleString("en", { maximumSignificantDigits: 2 });
export const signed = (value: number) => `${value < 0 ? "−" : "+"}${number(value)}`;
