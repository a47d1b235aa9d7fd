import { useRef, useState } from "react";
import { get, Problem, post, type Found, type RunCard } from "../api/client";
import { change } from "../state/place";
import { useHeld } from "../state/reader";
import { Combobox } from "./Combobox";
import { Cover } from "./Cover";
import { Icon } from "./Icon";
import { Badge, Failure } from "./Notice";

/** Events shown at first; fewer where the answers stand below and not beside. */
const SHOWN = window.matchMedia("(max-width: 60rem)").matches ? 3 : 8;

/** Who is asked about: a user of the data, or a history that is built here. */
export function ReaderPanel({ run }: { run: RunCard }) {
  const { reader, pick, newcomer, add, restore } = useHeld();
  const [problem, setProblem] = useState<Problem>();
  const take = (user: string) =>
    pick(user, run.name).then(
      () => setProblem(undefined),
      (failure: Problem) => setProblem(failure),
    );
  const preference = reader.about.preference;
  return (
    <section className="panel" aria-labelledby="who">
      <div className="panel-head">
        <h2 id="who">{reader.user ?? "A new reader"}</h2>
        {reader.user !== undefined && (
          <button type="button" className="link" onClick={newcomer}>
            Start empty
          </button>
        )}
      </div>
      {typeof preference === "string" && (
        <blockquote className="said">
          {preference}
          {run.reads_words && (
            <button type="button" className="link" onClick={() => change({ words: preference })}>
              Ask with these words
            </button>
          )}
        </blockquote>
      )}
      <Combobox
        label="Reader of the data"
        placeholder={`Search ${run.users.toLocaleString("en")} readers`}
        place={`users/${run.name}`}
        search={async (q, signal) => (await get("/v1/users", { run: run.name, q, limit: 12 }, signal)).users}
        keyOf={(one) => one.user}
        show={(one) => (
          <span className="option-row">
            <span>{one.user}</span>
            <span className="muted small">{one.events} events</span>
          </span>
        )}
        choose={(one) => void take(one.user)}
      />
      {problem && <Failure problem={problem} />}
      <Combobox
        label="Add to the history"
        placeholder="Search a title"
        place={`items/${run.name}`}
        search={async (q, signal) => (await get("/v1/items", { run: run.name, q, limit: 12 }, signal)).items}
        keyOf={(one: Found) => one.item}
        show={(one) => (
          <span className="option-row">
            <Cover run={run} item={one.item} title={one.title} size="small" />
            <span>
              {one.title}
              <br />
              <span className="muted small">{subtitle(one.about)}</span>
            </span>
          </span>
        )}
        choose={(one) => add({ item: one.item, title: one.title })}
      />
      <History run={run} />
      {reader.edited && reader.user !== undefined && (
        <p className="hint">
          <Badge tone="warn">edited</Badge> Asked by this history, no longer as {reader.user}.{" "}
          <button type="button" className="link" onClick={restore}>
            Undo
          </button>
        </p>
      )}
    </section>
  );
}

function History({ run }: { run: RunCard }) {
  const { reader, added, remove, show, pick } = useHeld();
  const [all, setAll] = useState(false);
  const [told, setTold] = useState<string>();
  const [busy, setBusy] = useState(false);
  // One key an event until it is written for certain: sent again after a failure it is still one event.
  const keys = useRef(new Map<string, string>());
  const keyOf = (event: string) => {
    const key = keys.current.get(event) ?? newKey();
    keys.current.set(event, key);
    return key;
  };
  const newest = [...reader.history].reverse();
  const shown = all ? newest : newest.slice(0, SHOWN);
  async function keep() {
    const user = reader.user;
    if (user === undefined || !added.length || busy) return;
    setBusy(true);
    try {
      const events = added.map(({ item }) => ({ key: keyOf(`${user}/${item}`), user, item }));
      await post("/v1/events", { run: run.name, events });
      await pick(user, run.name);
      keys.current.clear();
      setTold(added.length === 1 ? `${added[0]!.title} is now an event of ${user}.` : `${added.length} titles are now events of ${user}.`);
    } catch (failure) {
      setTold(failure instanceof Problem ? failure.message : String(failure));
    } finally {
      setBusy(false);
    }
  }
  if (!reader.history.length && !reader.leaveOut.length)
    return <p className="hint">Without a history the answer is what the run would give to anybody.</p>;
  return (
    <>
      <h3 className="label">History, newest first</h3>
      <ol className="history">
        {shown.map((met) => (
          <li key={met.item}>
            <Cover run={run} item={met.item} title={met.title} size="small" />
            <span className="history-title">{met.title}</span>
            <button type="button" className="icon-button" aria-label={`Remove ${met.title}`} onClick={() => remove(met.item)}>
              <Icon name="close" size={15} />
            </button>
          </li>
        ))}
      </ol>
      <div className="row">
        {newest.length > SHOWN && (
          <button type="button" className="link" onClick={() => setAll(!all)}>
            {all ? "Show fewer" : `Show all ${newest.length}`}
          </button>
        )}
        {reader.user !== undefined && added[0] && (
          <button type="button" className="link" disabled={busy} onClick={() => void keep()}>
            {added.length === 1 ? `Record “${added[0].title}” as an event` : `Record ${added.length} added titles as events`}
          </button>
        )}
      </div>
      {told && (
        <p className="hint" role="status">
          {told}
        </p>
      )}
      {reader.leaveOut.length > 0 && (
        <div className="chips">
          {reader.leaveOut.map((met) => (
            <span key={met.item} className="chip chip-on">
              not {met.title}
              <button type="button" className="chip-close" aria-label={`Allow ${met.title} again`} onClick={() => show(met.item)}>
                <Icon name="close" size={13} />
              </button>
            </span>
          ))}
        </div>
      )}
    </>
  );
}

/** A key that no other event has; `crypto.randomUUID` is missing where the page came without TLS from another machine. */
function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return "web-" + Array.from(bytes, (one) => one.toString(16).padStart(2, "0")).join("");
}

/** The author and year of an item where the data say them, else its categories. */
export function subtitle(about: Found["about"]): string {
  const { author, year, category } = about;
  const when = typeof year === "number" && year < 0 ? `${-year} BCE` : year;
  const parts = [author, when].filter((one) => typeof one === "string" || typeof one === "number");
  if (!author && Array.isArray(category)) parts.push(category.slice(0, 3).join(", "));
  return parts.join(" · ");
}
