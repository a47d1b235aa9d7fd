import { useId, useRef, useState } from "react";
import { post, Problem, type RunCard, type Schemas } from "../api/client";
import { Icon } from "../parts/Icon";
import { Link } from "../parts/Link";
import { Empty, Failure } from "../parts/Notice";
import { RunChoice } from "../parts/RunChoice";
import { href } from "../state/place";
import { useHeld } from "../state/reader";
import { WhoGets } from "./ItemPage";

/** A new item from its text alone, and who would get it. */
export function AddItem({ run }: { run: RunCard }) {
  const { runs, reloadRuns } = useHeld();
  const id = useId();
  const able = runs.filter((one) => one.takes_new_items);
  const [title, setTitle] = useState("");
  const [text, setText] = useState("");
  const [category, setCategory] = useState("");
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem>();
  // The id of this title until it is added for certain: sent again after a failure it is still one item.
  const named = useRef<{ title: string; item: string }>(undefined);
  const [added, setAdded] = useState<Schemas["Added"]>();
  const target = able.find((one) => one.name === run.name) ?? able[0];
  if (!target)
    return (
      <section className="stack">
        <h1>Add an item</h1>
        <Empty title="No run that is served can take a new item.">Serve one that reads texts, such as text-cosine or TIGER.</Empty>
      </section>
    );

  async function send(event: React.FormEvent) {
    event.preventDefault();
    if (!target) return;
    setBusy(true);
    try {
      const categories = category.split(",").map((one) => one.trim()).filter(Boolean);
      if (named.current?.title !== title) named.current = { title, item: idOf(title) };
      const body: Schemas["NewItem"] = { run: target.name, item: named.current.item, title, attributes: {} };
      if (text && target.columns.includes("text")) body.text = text;
      if (categories.length && target.columns.includes("category")) body.category = categories;
      setAdded(await post("/v1/items", body));
      named.current = undefined;
      setProblem(undefined);
      reloadRuns();
    } catch (failure) {
      if (failure instanceof Problem && failure.status === 409) named.current = undefined; // it was added, with other words
      setProblem(failure instanceof Problem ? failure : new Problem(0, "bug", String(failure)));
    } finally {
      setBusy(false);
    }
  }

  return (
    <section className="stack" aria-labelledby="add">
      <p>
        <Link to={href("catalogue", { run: target.name })} className="back">
          <Icon name="back" size={15} /> Catalogue
        </Link>
      </p>
      <h1 id="add">Add an item</h1>
      <p className="muted">Systems that read texts recommend it from now on, although nobody has met it.</p>
      {!added && (
        <form className="panel form" onSubmit={(event) => void send(event)}>
          <RunChoice runs={able} run={target} />
          <div>
            <label className="label" htmlFor={`${id}-title`}>
              Title
            </label>
            <input id={`${id}-title`} className="field" required maxLength={180} value={title} onChange={(event) => setTitle(event.target.value)} />
          </div>
          {target.columns.includes("text") && (
            <div>
              <label className="label" htmlFor={`${id}-text`}>
                What it is about
              </label>
              <textarea
                id={`${id}-text`}
                className="field"
                rows={5}
                maxLength={20000}
                value={text}
                placeholder="An old captain hunts a thief among the islands…"
                onChange={(event) => setText(event.target.value)}
              />
            </div>
          )}
          {target.columns.includes("category") && (
            <div>
              <label className="label" htmlFor={`${id}-category`}>
                Categories, with commas
              </label>
              <input id={`${id}-category`} className="field" maxLength={400} value={category} onChange={(event) => setCategory(event.target.value)} />
            </div>
          )}
          {problem && <Failure problem={problem} />}
          <button type="submit" className="button button-main" disabled={busy || !title.trim()}>
            {busy ? "Reading its text…" : "Add it and see who would get it"}
          </button>
        </form>
      )}
      {added && (
        <>
          <div className="finding" role="status">
            <p>
              “{title}” is in the catalogue. <Link to={href("catalogue", { run: target.name, item: added.item })}>Its page</Link>
            </p>
            <ul className="plain-list">
              {Object.entries(added.runs).map(([name, said]) => (
                <li key={name}>
                  <strong>{name}</strong>: {said}
                </li>
              ))}
            </ul>
          </div>
          <WhoGets run={target} item={added.item} at />
          <p>
            <button type="button" className="button" onClick={() => (setAdded(undefined), setTitle(""), setText(""))}>
              Add another
            </button>
          </p>
        </>
      )}
    </section>
  );
}

/** An id that reads like the title and is its own. */
function idOf(title: string): string {
  const plain = title.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 60);
  const own = crypto.getRandomValues(new Uint32Array(1))[0]!.toString(36);
  return `${plain || "item"}-${own}`;
}
