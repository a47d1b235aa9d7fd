import { useId, useState } from "react";
import { get, type Facet, type RunCard } from "../api/client";
import { useAsked } from "../state/asked";
import { change } from "../state/place";
import { filterOf, useFilters } from "../state/reader";
import { Icon } from "./Icon";

const nice = (column: string) => column.replaceAll("_", " ");

/** Chips of what is filtered, and a way to add one. Filters live in the address, so they hold in every view. */
export function Filters({ run }: { run: RunCard }) {
  const { texts } = useFilters();
  const id = useId();
  const [open, setOpen] = useState(false);
  const facets = useAsked(`${run.name}/${run.opened}`, (signal) => get("/v1/facets", { run: run.name }, signal));
  const set = (next: string[]) => change({ f: next });
  const known = facets.data ?? [];
  if (!known.length && !texts.length) return null;
  return (
    <div className="filters">
      <div className="chips">
        <button type="button" className="chip chip-button" aria-expanded={open} aria-controls={id} onClick={() => setOpen(!open)}>
          <Icon name="plus" size={14} /> Filter
        </button>
        {texts.map((text) => (
          <span key={text} className="chip chip-on">
            {said(text)}
            <button
              type="button"
              className="chip-close"
              aria-label={`Remove the filter ${said(text)}`}
              onClick={() => set(texts.filter((one) => one !== text))}
            >
              <Icon name="close" size={13} />
            </button>
          </span>
        ))}
      </div>
      <div id={id} className="filter-panel" hidden={!open}>
        {known.map((facet) => (
          <OneFacet key={facet.column} facet={facet} texts={texts} set={set} />
        ))}
      </div>
    </div>
  );
}

function said(text: string): string {
  const one = filterOf(text);
  if (!one) return text;
  if (one.any_of) return `${nice(one.column)}: ${one.any_of.join(" or ")}`;
  return `${nice(one.column)}: ${one.least ?? "…"} to ${one.most ?? "…"}`;
}

function OneFacet({ facet, texts, set }: { facet: Facet; texts: string[]; set: (texts: string[]) => void }) {
  const id = useId();
  const others = texts.filter((text) => filterOf(text)?.column !== facet.column);
  const mine = texts.map(filterOf).find((one) => one?.column === facet.column);
  if (facet.values.length) {
    const chosen = mine?.any_of ?? [];
    const toggle = (value: string) => {
      const next = chosen.includes(value) ? chosen.filter((one) => one !== value) : [...chosen, value];
      set(next.length ? [...others, `${facet.column}=${next.join(",")}`] : others);
    };
    // A comma parts values in the address, so a value that holds one cannot be chosen here.
    const values = facet.values.filter((one) => !one.value.includes(",") && !one.value.includes(".."));
    return (
      <fieldset className="facet">
        <legend className="label">{nice(facet.column)}</legend>
        <div className="facet-values">
          {values.map((one) => (
            <label key={one.value} className="choice">
              <input type="checkbox" checked={chosen.includes(one.value)} onChange={() => toggle(one.value)} />
              <span>{one.value}</span>
              <span className="muted small">{one.items}</span>
            </label>
          ))}
        </div>
      </fieldset>
    );
  }
  const ends = (least: string, most: string) =>
    set(least || most ? [...others, `${facet.column}=${least}..${most}`] : others);
  const least = mine?.least == null ? "" : String(mine.least);
  const most = mine?.most == null ? "" : String(mine.most);
  return (
    <fieldset className="facet">
      <legend className="label">{nice(facet.column)}</legend>
      <div className="range">
        <label htmlFor={`${id}-low`}>from</label>
        <input
          id={`${id}-low`}
          className="field field-short"
          type="number"
          placeholder={String(facet.low)}
          value={least}
          onChange={(event) => ends(event.target.value, most)}
        />
        <label htmlFor={`${id}-high`}>to</label>
        <input
          id={`${id}-high`}
          className="field field-short"
          type="number"
          placeholder={String(facet.high)}
          value={most}
          onChange={(event) => ends(least, event.target.value)}
        />
      </div>
    </fieldset>
  );
}
