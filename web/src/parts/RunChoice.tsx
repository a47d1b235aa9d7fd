import { useId } from "react";
import type { RunCard } from "../api/client";
import { change } from "../state/place";

/** Which run is asked. */
export function RunChoice({ runs, run }: { runs: RunCard[]; run: RunCard }) {
  const id = useId();
  return (
    <div>
      <label className="label" htmlFor={id}>
        Run
      </label>
      <select id={id} className="field" value={run.name} onChange={(event) => change({ run: event.target.value })}>
        {runs.map((one) => (
          <option key={one.name} value={one.name}>
            {one.name === one.system ? one.title : `${one.name} (${one.title})`}
          </option>
        ))}
      </select>
    </div>
  );
}

/** What is wished in words; a run that reads none says so and names one that does. */
export function Words({ runs, run, words }: { runs: RunCard[]; run: RunCard; words: string }) {
  const id = useId();
  const reading = runs.find((one) => one.reads_words);
  return (
    <div className="words">
      <label className="label" htmlFor={id}>
        In words
      </label>
      <input
        id={id}
        className="field"
        value={words}
        maxLength={1000}
        disabled={!run.reads_words}
        placeholder={run.reads_words ? "something lighter, at sea" : `${run.title} reads no words`}
        onChange={(event) => change({ words: event.target.value || undefined })}
      />
      {!run.reads_words && reading && (
        <button type="button" className="link" onClick={() => change({ run: reading.name })}>
          Ask {reading.title}, which reads words
        </button>
      )}
    </div>
  );
}
