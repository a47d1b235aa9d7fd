import type { Measured, Span } from "../api/client";
import { shown, ticks } from "./Intervals";
import { useWidth } from "./width";

const H = 330;
const LEFT = 56;
const RIGHT = 24;
const TOP = 16;
const BOTTOM = 46;

export function seconds(value: number): string {
  if (value < 1) return value < 0.1 ? "<0.1 s" : `${value.toFixed(1)} s`;
  if (value < 120) return `${Math.round(value)} s`;
  return value < 7200 ? `${Math.round(value / 60)} min` : `${(value / 3600).toFixed(1)} h`;
}

/** Quality against seconds of fitting, on a logarithmic axis; up and to the left is better. */
export function Scatter(props: { runs: Measured[]; span: (run: Measured) => Span | undefined; name: string; best: string[] }) {
  const W = useWidth(640, 340);
  /** Right of it a name stands left of its point. */
  const HALF = W - Math.min(130, W / 2.5);
  const points = props.runs
    .map((run) => ({ run, cost: Math.max(run.cost.fit_seconds ?? NaN, 0.01), span: props.span(run) }))
    .filter((one) => Number.isFinite(one.cost) && one.span?.value != null);
  if (!points.length) return <p className="hint">The cost of these runs was not measured.</p>;
  const values = points.flatMap((one) => [one.span!.value!, one.span!.low ?? one.span!.value!, one.span!.high ?? one.span!.value!]);
  const at = ticks(Math.min(0, ...values), Math.max(...values));
  const [low, high] = [at[0]!, at[at.length - 1]!];
  const costs = points.map((one) => Math.log10(one.cost));
  const [from, to] = [Math.floor(Math.min(...costs)), Math.max(Math.ceil(Math.max(...costs)), Math.floor(Math.min(...costs)) + 1)];
  const x = (cost: number) => LEFT + ((Math.log10(cost) - from) / (to - from)) * (W - LEFT - RIGHT);
  const y = (value: number) => H - BOTTOM - ((value - low) / (high - low || 1)) * (H - BOTTOM - TOP);
  const decades = Array.from({ length: to - from + 1 }, (_, i) => 10 ** (from + i));
  const said = points.map((one) => `${one.run.name}: ${shown(one.span!.value)} in ${seconds(one.cost)}`).join("; ");
  return (
    <svg className="scatter" viewBox={`0 0 ${W} ${H}`} role="img" aria-label={`${props.name} against seconds of fitting. ${said}`}>
      {at.map((value) => (
        <g key={value}>
          <line className="grid" x1={LEFT} x2={W - RIGHT} y1={y(value)} y2={y(value)} />
          <text className="tick" x={LEFT - 8} y={y(value) + 4} textAnchor="end">
            {Number(value.toPrecision(3))}
          </text>
        </g>
      ))}
      {decades.map((cost) => (
        <g key={cost}>
          <line className="grid" x1={x(cost)} x2={x(cost)} y1={TOP} y2={H - BOTTOM} />
          <text className="tick" x={x(cost)} y={H - BOTTOM + 18} textAnchor="middle">
            {cost < 1 ? `${cost} s` : seconds(cost)}
          </text>
        </g>
      ))}
      <text className="axis-name" x={(LEFT + W - RIGHT) / 2} y={H - 6} textAnchor="middle">
        seconds of fitting, one seed
      </text>
      {placed(points.map((one) => ({ ...one, x: x(one.cost), y: y(one.span!.value!) }))).map(({ run, span, x: cx, y: cy, label }) => (
        <g key={run.name} className={props.best.includes(run.name) ? "point point-best" : "point"}>
          {span!.low != null && span!.high != null && <line className="whisker" x1={cx} x2={cx} y1={y(span!.low)} y2={y(span!.high)} />}
          <circle className="dot" cx={cx} cy={cy} r="6" />
          <text className="point-name" x={cx > HALF ? cx - 11 : cx + 11} y={label} textAnchor={cx > HALF ? "end" : "start"}>
            {run.name}
          </text>
        </g>
      ))}
    </svg>
  );
}

/** Each label beside its point, moved down or up where it would cover another. */
function placed<T extends { x: number; y: number }>(points: T[]): (T & { label: number })[] {
  const done: { x: number; label: number }[] = [];
  return [...points]
    .sort((a, b) => a.y - b.y)
    .map((point) => {
      let label = point.y + 4;
      while (done.some((other) => Math.abs(other.x - point.x) < 120 && Math.abs(other.label - label) < 15)) label += 3;
      done.push({ x: point.x, label });
      return { ...point, label };
    });
}
