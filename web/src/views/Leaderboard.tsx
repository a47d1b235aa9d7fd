import { useId, useState } from "react";
import { get, type Span, type Table } from "../api/client";
import { Intervals, shown } from "../charts/Intervals";
import { Scatter, seconds } from "../charts/Scatter";
import { Badge, Empty, Failure, Waiting } from "../parts/Notice";
import { useAsked } from "../state/asked";
import { useHeld } from "../state/reader";

export function Leaderboard() {
  const { runs } = useHeld();
  const said = useAsked(`leaderboard/${runs.map((run) => run.opened).join()}`, (signal) => get("/v1/leaderboard", undefined, signal));
  if (said.problem)
    return (
      <>
        <h1>Leaderboard</h1>
        <Failure problem={said.problem} again={said.again} />
      </>
    );
  if (!said.data)
    return (
      <>
        <h1>Leaderboard</h1>
        <p className="muted">Comparing the runs over 2,000 resamples; the first time takes a few seconds.</p>
        <Waiting rows={7} />
      </>
    );
  const { tables, unmeasured } = said.data;
  return (
    <>
      {tables.length === 0 && (
        <>
          <h1>Leaderboard</h1>
          <Empty title="No run has been measured yet.">
            <code>palate evaluate RUN</code> asks it the test questions once; the figures then stand here.
          </Empty>
        </>
      )}
      {tables.map((table, i) => (
        <OneTable key={`${table.data}/${table.split}/${table.protocol}/${i}`} table={table} />
      ))}
      {unmeasured.length > 0 && tables.length > 0 && (
        <p className="hint">
          Not measured: {unmeasured.join(", ")}. <code>palate evaluate</code> measures a run.
        </p>
      )}
    </>
  );
}

const SLICE_NAMES: Record<string, string> = {
  "": "Everybody",
  "cold-items-among-cold": "new items, among themselves",
  "cold-items": "new items, among all",
  "warm-items": "known items",
  "head-items": "often met items",
  "tail-items": "seldom met items",
  "short-histories": "short histories",
  "long-histories": "long histories",
};
const sliceName = (name: string) => SLICE_NAMES[name] ?? name;

function OneTable({ table }: { table: Table }) {
  const id = useId();
  const judged = table.metrics.filter((one) => one.higher_is_better !== null);
  const [metric, setMetric] = useState(table.main);
  const [slice, setSlice] = useState("");
  const pretty = table.metrics.find((one) => one.name === metric)?.pretty ?? metric;
  const verdict = table.verdicts.find((one) => one.metric === metric);
  const slices = [...new Set(table.runs.flatMap((run) => Object.keys(run.slices)))];
  const span = (run: Table["runs"][number]): Span | undefined => (slice ? run.slices[slice]?.[metric] : run.metrics[metric]);
  const best = slice ? [] : (verdict?.best ?? []);
  return (
    <section aria-labelledby={`${id}-head`} className="stack">
      <div className="head">
        <div>
          <h1 id={`${id}-head`}>Leaderboard: {table.data}</h1>
          <p className="muted">
            {table.users.toLocaleString("en")} people, split {table.split}, {table.protocol}{" "}
            {table.marks.map((mark) => (
              <Badge key={mark}>{mark}</Badge>
            ))}
          </p>
        </div>
        <fieldset className="segments" aria-label="Figure">
          {judged.map((one) => (
            <label key={one.name}>
              <input type="radio" name={`${id}-metric`} checked={metric === one.name} onChange={() => setMetric(one.name)} />
              <span>{one.pretty}</span>
            </label>
          ))}
        </fieldset>
      </div>

      {table.problem && <p className="finding">{table.problem}</p>}
      {verdict && (
        <div className="finding">
          {verdict.sentence.split("\n").map((line) => (
            <p key={line}>{line}</p>
          ))}
        </div>
      )}

      <div className="panel">
        <div className="panel-head">
          <h2>
            {pretty}
            {slice && `, ${sliceName(slice)}`}
          </h2>
          <label className="inline-label">
            <span className="label">For whom and for what</span>
            <select className="field" value={slice} onChange={(event) => setSlice(event.target.value)}>
              {["", ...slices].map((name) => (
                <option key={name} value={name}>
                  {sliceName(name)}
                </option>
              ))}
            </select>
          </label>
        </div>
        {slice && <p className="hint">{table.slice_rules[slice]}.</p>}
        <Intervals runs={table.runs} span={span} best={best} />
        <p className="hint">
          Dot: mean over people. Line: 95 % interval. {!slice && "★ highest, ≈ not shown to be worse than it."}
        </p>
      </div>

      <div className="two">
        <div className="panel">
          <h2>Cost against quality</h2>
          <Scatter runs={table.runs} span={(run) => run.metrics[metric]} name={pretty} best={verdict?.best ?? []} />
        </div>
        <div className="panel">
          <h2>Cost</h2>
          <Costs table={table} />
        </div>
      </div>

      <Slices table={table} metric={metric} slices={slices} pretty={pretty} />
      <Pairs table={table} metric={metric} pretty={pretty} />
      {table.notes.map((note) => (
        <p key={note} className="hint">
          {note}
        </p>
      ))}
    </section>
  );
}

function Costs({ table }: { table: Table }) {
  return (
    <div className="scroll" tabIndex={0} role="group" aria-label="Cost of the runs">
      <table>
        <thead>
          <tr>
            <th scope="col">Run</th>
            <th scope="col">Pretrained</th>
            <th scope="col" className="num">
              Fit
            </th>
            <th scope="col" className="num">
              Memory
            </th>
            <th scope="col" className="num">
              Parameters
            </th>
          </tr>
        </thead>
        <tbody>
          {table.runs.map((run) => (
            <tr key={run.name}>
              <th scope="row">{run.name}</th>
              <td>{run.pretrained}</td>
              <td className="num">{run.cost.fit_seconds === undefined ? "–" : seconds(run.cost.fit_seconds)}</td>
              <td className="num">{run.cost.peak_mb === undefined ? "–" : `${Math.round(run.cost.peak_mb).toLocaleString("en")} MB`}</td>
              <td className="num">{run.cost.parameters === undefined ? "–" : run.cost.parameters.toLocaleString("en", { notation: "compact" })}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Slices(props: { table: Table; metric: string; slices: string[]; pretty: string }) {
  const { table, metric, slices, pretty } = props;
  if (!slices.length) return null;
  return (
    <div className="panel">
      <h2>{pretty}, by slice</h2>
      <div className="scroll" tabIndex={0} role="group" aria-label="Figures by slice">
        <table>
          <thead>
            <tr>
              <th scope="col">Run</th>
              {slices.map((name) => (
                <th key={name} scope="col" className="num" title={table.slice_rules[name]}>
                  {sliceName(name)}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {table.runs.map((run) => (
              <tr key={run.name}>
                <th scope="row">{run.name}</th>
                {slices.map((name) => {
                  const one = run.slices[name]?.[metric];
                  const top = Math.max(...table.runs.map((other) => other.slices[name]?.[metric]?.value ?? 0), 1e-9);
                  return (
                    <td key={name} className="num">
                      {shown(one?.value)}
                      <span className="muted small block">{one?.low == null ? "" : `${shown(one.low)}–${shown(one.high)}`}</span>
                      <span className="cell-bar" aria-hidden="true">
                        <span style={{ width: `${(100 * (one?.value ?? 0)) / top}%` }} />
                      </span>
                    </td>
                  );
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </div>
  );
}

function Pairs({ table, metric, pretty }: { table: Table; metric: string; pretty: string }) {
  const pairs = table.pairs.filter((pair) => pair.metric === metric);
  if (!pairs.length) return null;
  const sign = (value: number | null) => (value == null ? "–" : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`);
  return (
    <details className="panel">
      <summary>
        <h2>Every pair on {pretty}</h2>
      </summary>
      <div className="scroll" tabIndex={0} role="group" aria-label="Comparison of every pair">
        <table>
          <thead>
            <tr>
              <th scope="col">Pair</th>
              <th scope="col" className="num">
                Difference
              </th>
              <th scope="col" className="num">
                95 % interval
              </th>
              <th scope="col" className="num">
                p, corrected
              </th>
              <th scope="col">In words</th>
            </tr>
          </thead>
          <tbody>
            {pairs.map((pair) => (
              <tr key={`${pair.a}/${pair.b}`}>
                <th scope="row">
                  {pair.a} − {pair.b}
                </th>
                <td className="num">{sign(pair.difference)}</td>
                <td className="num">
                  {sign(pair.low)} to {sign(pair.high)}
                </td>
                <td className="num">{pair.p_holm == null ? "–" : pair.p_holm < 0.001 ? "<0.001" : pair.p_holm.toFixed(3)}</td>
                <td>{pair.better ? `${pair.better} is better` : "not shown to differ"}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </details>
  );
}
