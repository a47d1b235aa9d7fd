import type { Measured, Span } from "../api/client";

export const shown = (value: number | null | undefined) => (value == null ? "–" : value.toFixed(3));

/** Nice ends and ticks of an axis that holds these numbers. */
export function ticks(low: number, high: number, about = 5): number[] {
  const span = high - low || Math.abs(high) || 1;
  const raw = span / about;
  const ten = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * ten).find((one) => one >= raw) ?? raw;
  const found = [];
  for (let at = Math.floor(low / step) * step; at < high + step * 0.999; at += step) found.push(Number(at.toPrecision(12)));
  return found;
}

/** One line a run: a dot with its 95 % interval, on one axis. The numbers stand beside, so the drawing is not read out. */
export function Intervals(props: { runs: Measured[]; span: (run: Measured) => Span | undefined; best: string[] }) {
  const { runs, span, best } = props;
  const spans = runs.map(span);
  const values = spans.flatMap((one) => (one ? [one.value, one.low, one.high, one.chance] : [])).filter((one) => one != null);
  if (!values.length) return <p className="hint">No run has this figure.</p>;
  const at = ticks(Math.min(0, ...values), Math.max(...values));
  const low = at[0]!;
  const high = at[at.length - 1]!;
  const x = (value: number) => `${(100 * (value - low)) / (high - low || 1)}%`;
  const chance = spans.find((one) => one?.chance != null)?.chance;
  return (
    <div className="intervals">
      {runs.map((run, i) => {
        const one = spans[i];
        const first = best[0] === run.name;
        const level = best.includes(run.name);
        return (
          <div key={run.name} className={`interval ${first ? "interval-best" : level ? "interval-level" : ""}`}>
            <span className="interval-name">
              <span className="mark" aria-hidden="true">
                {first ? "★" : level ? "≈" : ""}
              </span>
              {run.name}
              {first && <span className="hidden">, the best</span>}
              {level && !first && <span className="hidden">, not shown to be worse than the best</span>}
            </span>
            <svg className="interval-plot" aria-hidden="true" width="100%" height="28">
              {at.map((one) => (
                <line key={one} className="grid" x1={x(one)} x2={x(one)} y1="0" y2="28" />
              ))}
              {chance != null && <line className="chance" x1={x(chance)} x2={x(chance)} y1="0" y2="28" />}
              {one?.low != null && one.high != null && (
                <line className="whisker" x1={x(one.low)} x2={x(one.high)} y1="14" y2="14" />
              )}
              {one?.value != null && <circle className="dot" cx={x(one.value)} cy="14" r="5.5" />}
            </svg>
            <span className="interval-number">
              <strong>{shown(one?.value)}</strong>
              {one?.low != null && one.high != null && (
                <span className="muted small">
                  {shown(one.low)}–{shown(one.high)}
                </span>
              )}
            </span>
          </div>
        );
      })}
      <div className="interval interval-axis" aria-hidden="true">
        <span />
        <span className="axis">
          {at.map((one) => (
            <span key={one} style={{ left: x(one) }}>
              {Number(one.toPrecision(3))}
            </span>
          ))}
        </span>
        <span />
      </div>
      {chance != null && <p className="hint">Dashed line: what chance alone gives, {shown(chance)}.</p>}
    </div>
  );
}
