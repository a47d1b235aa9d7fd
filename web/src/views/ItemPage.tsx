import { useEffect, useState } from "react";
import { get, post, Problem, type RunCard, type Schemas } from "../api/client";
import { Cover } from "../parts/Cover";
import { Icon } from "../parts/Icon";
import { Link } from "../parts/Link";
import { Badge, Empty, Failure, Waiting } from "../parts/Notice";
import { RunChoice } from "../parts/RunChoice";
import { useAsked } from "../state/asked";
import { href } from "../state/place";
import { useHeld } from "../state/reader";
import { short } from "../charts/Curve";

type Space = Schemas["Neighbours"]["space"];

const SPACES: Record<Space, { name: string; said: string }> = {
  text: { name: "Reads alike", said: "nearest by what their texts say" },
  code: { name: "Named alike", said: "names that begin with the same tokens" },
  behaviour: { name: "Met together", said: "met by the same people" },
};

export function ItemPage({ run, item }: { run: RunCard; item: string }) {
  const { runs, add } = useHeld();
  const page = useAsked(`${run.name}/${run.opened}/${item}/${run.items_retired}`, (signal) => get("/v1/items/one", { run: run.name, item }, signal));
  const one = page.data;
  const title = one?.title;
  useEffect(() => {
    if (title === undefined) return;
    const before = document.title;
    document.title = `${title} · Palate`;
    return () => {
      document.title = before;
    };
  }, [title]);
  // Neighbours by code need a run that names its items; another run of the same data may have one.
  const sameData = runs.filter((other) => other.data === run.data);
  const spaces = (Object.keys(SPACES) as Space[]).map((space) => ({
    space,
    run: run.spaces.includes(space) ? run : sameData.find((other) => other.spaces.includes(space)),
  }));
  return (
    <article className="stack" aria-busy={page.loading}>
      <p>
        <Link to={href("catalogue", { run: run.name })} className="back">
          <Icon name="back" size={15} /> Catalogue
        </Link>
      </p>
      {page.problem && <Failure problem={page.problem} again={page.again} />}
      {!one && page.loading && <Waiting rows={4} />}
      {one && (
        <>
          <div className="item">
            <Cover run={run} item={one.item} title={one.title} size="large" />
            <div className="stack">
              <div>
                <h1>{one.title}</h1>
                <p className="row">
                  <Badge>{one.item}</Badge>
                  <Badge>{one.events} events learned from</Badge>
                  {one.added && <Badge tone="accent">added here</Badge>}
                  {one.retired && <Badge tone="warn">retired: never recommended</Badge>}
                </p>
              </div>
              {one.text && <p className="prose">{one.text}</p>}
              <dl className="facts">
                {Object.entries(one.about).map(([column, value]) => (
                  <div key={column}>
                    <dt>{column.replaceAll("_", " ")}</dt>
                    <dd>{plain(value)}</dd>
                  </div>
                ))}
                {one.name && (
                  <div>
                    <dt>name in {run.title}</dt>
                    <dd>
                      <code>{one.name}</code>
                    </dd>
                  </div>
                )}
              </dl>
              <div className="row">
                <button type="button" className="button" onClick={() => add({ item: one.item, title: one.title })}>
                  <Icon name="plus" size={15} /> Add to the reader’s history
                </button>
                <Retire run={run} item={one.item} retired={one.retired} done={page.again} />
              </div>
            </div>
          </div>
          <WhoGets run={run} item={one.item} />
          <section aria-labelledby="near" className="stack">
            <div className="head">
              <h2 id="near">Neighbours</h2>
              <RunChoice runs={runs} run={run} />
            </div>
            <div className="spaces">
              {spaces.map((one) => (
                <Near key={one.space} space={one.space} run={one.run} item={item} />
              ))}
            </div>
          </section>
        </>
      )}
    </article>
  );
}

function plain(value: Schemas["ItemPage"]["about"][string]): string {
  if (Array.isArray(value)) return value.join(", ");
  return typeof value === "boolean" ? (value ? "yes" : "no") : String(value);
}

function Near({ space, run, item }: { space: Space; run: RunCard | undefined; item: string }) {
  const key = run ? `${run.name}/${run.opened}/${run.items}/${item}/${space}` : null;
  const near = useAsked(key, (signal) => get("/v1/items/near", { run: run!.name, item, space, k: 8 }, signal));
  const { name, said } = SPACES[space];
  return (
    <section className="panel" aria-label={name} aria-busy={near.loading}>
      <h3>{name}</h3>
      <p className="muted small" title={near.data?.method}>
        {said}
        {space === "code" && run && `, by ${run.title}`}
      </p>
      {!run && <p className="hint">No run of these data gives its items names; TIGER, P5 and LC-Rec do.</p>}
      {near.problem && <Failure problem={near.problem} again={near.again} />}
      {!near.data && near.loading && <Waiting rows={5} />}
      {near.data && !near.data.items.length && <p className="hint">{near.data.note ?? "nothing is near"}</p>}
      <ol className="near">
        {(near.data?.items ?? []).map((one) => (
          <li key={one.item}>
            <Cover run={run!} item={one.item} title={one.title} size="small" />
            <span>
              <Link to={href("catalogue", { run: run!.name, item: one.item })}>{one.title}</Link>
              {one.name && <code className="block small muted">{one.name}</code>}
            </span>
            <span className="muted small">{space === "code" ? `${one.similarity} shared` : short(one.similarity)}</span>
          </li>
        ))}
      </ol>
    </section>
  );
}

function Retire(props: { run: RunCard; item: string; retired: boolean; done: () => void }) {
  const { reloadRuns } = useHeld();
  const [problem, setProblem] = useState<Problem>();
  async function change() {
    try {
      await post("/v1/items/retire", { run: props.run.name, items: [props.item], back: props.retired });
      setProblem(undefined);
      reloadRuns();
      props.done();
    } catch (failure) {
      setProblem(failure instanceof Problem ? failure : new Problem(0, "bug", String(failure)));
    }
  }
  return (
    <>
      <button type="button" className="button" onClick={() => void change()}>
        {props.retired ? "Recommend it again" : "Retire it"}
      </button>
      {problem && <Failure problem={problem} />}
    </>
  );
}

/** Who would get an item; asked only on demand, for it asks the run about hundreds of people. */
export function WhoGets({ run, item, at = false }: { run: RunCard; item: string; at?: boolean }) {
  const [wanted, setWanted] = useState(at);
  const who = useAsked(wanted ? `${run.name}/${run.opened}/${item}` : null, (signal) =>
    post("/v1/audience", { run: run.name, item, k: 10, users: 500 }, signal),
  );
  const found = who.data;
  return (
    <section className="panel" aria-labelledby="audience" aria-busy={who.loading && wanted}>
      <div className="panel-head">
        <h2 id="audience">Who would get it</h2>
        {!wanted && (
          <button type="button" className="button" onClick={() => setWanted(true)}>
            Ask {run.title}
          </button>
        )}
      </div>
      {who.problem && <Failure problem={who.problem} again={who.again} />}
      {wanted && who.loading && !found && <Waiting rows={3} />}
      {found && (
        <>
          <p>
            <strong>{found.receivers.length.toLocaleString("en")}</strong> of {found.asked.toLocaleString("en")} people asked would
            find it among their best {found.k}
            {found.asked < found.users && <span className="muted"> ({found.users.toLocaleString("en")} people in all)</span>}.
          </p>
          {!found.receivers.length && <Empty title="Nobody asked would get it yet.">Somebody who met it already is not offered it again.</Empty>}
          <ul className="chips">
            {found.receivers.slice(0, 24).map((one) => (
              <li key={one.user}>
                <Link to={href("reader", { run: run.name, user: one.user })} className="chip chip-button">
                  {one.user} <span className="muted">#{one.rank}</span>
                </Link>
              </li>
            ))}
          </ul>
        </>
      )}
    </section>
  );
}
