import { useEffect, useId, useRef, useState, type ReactNode } from "react";
import { useAsked, useSettled } from "../state/asked";
import { Icon } from "./Icon";

interface Props<T> {
  label: string;
  placeholder: string;
  /** Names the place that is searched; another one begins anew. */
  place: string;
  search: (said: string, signal: AbortSignal) => Promise<T[]>;
  keyOf: (one: T) => string;
  show: (one: T) => ReactNode;
  choose: (one: T) => void;
}

/** A field that searches while one types: arrows go through what was found, Enter takes it, Escape closes. */
export function Combobox<T>({ label, placeholder, place, search, keyOf, show, choose }: Props<T>) {
  const id = useId();
  const [said, setSaid] = useState("");
  const [open, setOpen] = useState(false);
  const [at, setAt] = useState(-1);
  const list = useRef<HTMLUListElement>(null);
  const settled = useSettled(said, 180);
  const found = useAsked(open ? `${place}/${settled}` : null, (signal) => search(settled, signal));
  const options = found.data ?? [];
  // What stands in the list may still answer what was typed before; Enter then waits for the list that is meant.
  const stale = found.answers !== `${place}/${said}`;
  const [entered, setEntered] = useState(false);
  useEffect(() => setAt(-1), [settled, open]);
  useEffect(() => {
    if (!entered || stale) return;
    setEntered(false);
    take(options[0]);
  });
  useEffect(() => {
    list.current?.children[at]?.scrollIntoView({ block: "nearest" });
  }, [at]);

  function take(one: T | undefined) {
    if (one === undefined) return;
    choose(one);
    setSaid("");
    setOpen(false);
  }

  function leave() {
    setOpen(false);
    setEntered(false);
  }

  function press(event: React.KeyboardEvent) {
    if (event.nativeEvent.isComposing) return; // Enter then ends a word of an input method
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      setOpen(true);
      if (stale) return;
      const step = event.key === "ArrowDown" ? 1 : -1;
      setAt((now) => (options.length ? (now + step + options.length) % options.length : -1));
    } else if (event.key === "Enter" && open) {
      event.preventDefault();
      if (at < 0 && !said.trim()) return; // nothing was said and nothing chosen
      if (stale) setEntered(true);
      else take(options[at < 0 ? 0 : at]);
    } else if (event.key === "Escape") {
      leave();
    }
  }

  return (
    <div className="combobox" onBlur={(event) => event.currentTarget.contains(event.relatedTarget) || leave()}>
      <label className="label" htmlFor={id}>
        {label}
      </label>
      <div className="field-with-icon">
        <Icon name="search" size={16} />
        <input
          id={id}
          className="field"
          role="combobox"
          aria-expanded={open}
          aria-controls={`${id}-list`}
          aria-autocomplete="list"
          aria-activedescendant={open && at >= 0 ? `${id}-${at}` : undefined}
          autoComplete="off"
          spellCheck={false}
          placeholder={placeholder}
          value={said}
          maxLength={200}
          onFocus={() => setOpen(true)}
          onClick={() => setOpen(true)}
          onChange={(event) => {
            setSaid(event.target.value);
            setEntered(false);
            setOpen(true);
          }}
          onKeyDown={press}
        />
      </div>
      <ul ref={list} id={`${id}-list`} className="options" role="listbox" aria-label={label} hidden={!open || !options.length}>
        {options.map((one, i) => (
          <li
            key={keyOf(one)}
            id={`${id}-${i}`}
            role="option"
            aria-selected={i === at}
            className="option"
            onMouseDown={(event) => event.preventDefault()}
            onMouseEnter={() => setAt(i)}
            onClick={() => take(one)}
          >
            {show(one)}
          </li>
        ))}
      </ul>
      {open && !options.length && (
        <div className="options options-said" role="status">
          {found.problem ? found.problem.message : found.loading ? "Searching…" : "Nothing found"}
        </div>
      )}
    </div>
  );
}
