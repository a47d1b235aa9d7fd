import { useEffect, useId, useState } from "react";
import { get, type RunCard } from "../api/client";
import { Cover } from "../parts/Cover";
import { Filters } from "../parts/Filters";
import { Icon } from "../parts/Icon";
import { Link } from "../parts/Link";
import { Badge, Empty, Failure, Waiting } from "../parts/Notice";
import { subtitle } from "../parts/ReaderPanel";
import { RunChoice } from "../parts/RunChoice";
import { useAsked, useSettled } from "../state/asked";
import { change, href, usePlace } from "../state/place";
import { useFilters, useHeld, useRun } from "../state/reader";
import { AddItem } from "./AddItem";
import { ItemPage } from "./ItemPage";

const PAGE = 24;

export function Catalogue() {
  const run = useRun();
  const { query } = usePlace();
  const item = query.get("item");
  if (query.has("new")) return <AddItem run={run} />;
  return item ? <ItemPage key={`${run.name}/${item}`} run={run} item={item} /> : <Search run={run} />;
}

function Search({ run }: { run: RunCard }) {
  const { runs } = useHeld();
  const { query } = usePlace();
  const { texts } = useFilters();
  const id = useId();
  const q = query.get("q") ?? "";
  const settled = useSettled(q, 180);
  const [start, setStart] = useState(0);
  const filters = texts.join("&");
  useEffect(() => setStart(0), [settled, filters, run.name]);
  const found = useAsked(JSON.stringify([run.name, run.opened, run.items, settled, texts, start]), (signal) =>
    get("/v1/items", { run: run.name, q: settled, filter: texts, start, limit: PAGE }, signal),
  );
  const total = found.data?.total ?? 0;
  const grows = runs.find((one) => one.takes_new_items);
  return (
    <section className="stack" aria-labelledby="catalogue" aria-busy={found.loading}>
      <div className="head">
        <div>
          <h1 id="catalogue">Catalogue</h1>
          <p className="muted">
            {run.data}: {run.items.toLocaleString("en")} items{run.items_added > 0 && `, ${run.items_added} added here`}{" "}
            {run.simulated && <Badge>simulated readers</Badge>}
          </p>
        </div>
        {grows && (
          <Link className="button button-main" to={href("catalogue", { run: grows.name, new: "1" })}>
            <Icon name="plus" size={16} /> Add an item
          </Link>
        )}
      </div>
      <div className="controls">
        <div className="words">
          <label className="label" htmlFor={id}>
            Search titles, authors and texts
          </label>
          <div className="field-with-icon">
            <Icon name="search" size={16} />
            <input
              id={id}
              className="field"
              type="search"
              value={q}
              maxLength={200}
              placeholder="sherlock, island, robot…"
              onChange={(event) => change({ q: event.target.value || undefined })}
            />
          </div>
        </div>
        <RunChoice runs={runs} run={run} />
      </div>
      <Filters run={run} />
      {found.problem && <Failure problem={found.problem} again={found.again} />}
      {!found.data && found.loading && <Waiting rows={12} shape="cards" />}
      {found.data && total === 0 && <Empty title="Nothing found.">Search for another word, or take a filter away.</Empty>}
      {found.data && total > 0 && (
        <p className="muted small" role="status">
          {total.toLocaleString("en")} found{total > PAGE && `, ${start + 1} to ${Math.min(start + PAGE, total)} shown`}
        </p>
      )}
      <ul className={`tiles ${found.loading ? "stale" : ""}`}>
        {(found.data?.items ?? []).map((one) => (
          <li key={one.item}>
            <Link to={href("catalogue", { run: run.name, item: one.item })} className="tile">
              <Cover run={run} item={one.item} title={one.title} />
              <span className="tile-title">{one.title}</span>
              <span className="muted small">{subtitle(one.about)}</span>
              {one.added && <Badge tone="accent">added</Badge>}
              {one.retired && <Badge tone="warn">retired</Badge>}
            </Link>
          </li>
        ))}
      </ul>
      {total > PAGE && (
        <div className="row">
          <button type="button" className="button" disabled={start === 0} onClick={() => setStart(Math.max(0, start - PAGE))}>
            Earlier
          </button>
          <button type="button" className="button" disabled={start + PAGE >= total} onClick={() => setStart(start + PAGE)}>
            More
          </button>
        </div>
      )}
    </section>
  );
}
