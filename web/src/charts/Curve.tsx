import { ticks } from "./Intervals";
import { useWidth } from "./width";

const H = 240;
const LEFT = 52;
const RIGHT = 16;
const TOP = 14;
const BOTTOM = 38;

export interface Point {
  x: number;
  y: number;
}

/** One curve over epochs; `mark` is the best of them. */
export function Curve(props: { points: Point[]; name: string; mark?: Point | undefined; tone: "loss" | "valid" }) {
  const { points, name, mark, tone } = props;
  const W = useWidth(560, 330);
  if (!points.length) return null;
  const ys = points.map((one) => one.y);
  const at = ticks(Math.min(...ys), Math.max(...ys), 4);
  const [low, high] = [at[0]!, at[at.length - 1]!];
  const last = points[points.length - 1]!;
  const first = Math.min(points[0]!.x, 1);
  const end = Math.max(last.x, first + 1);
  const x = (value: number) => LEFT + ((value - first) / (end - first)) * (W - LEFT - RIGHT);
  const y = (value: number) => H - BOTTOM - ((value - low) / (high - low || 1)) * (H - BOTTOM - TOP);
  const path = points.map((one, i) => `${i ? "L" : "M"}${x(one.x).toFixed(1)} ${y(one.y).toFixed(1)}`).join("");
  const epochs = ticks(first, end, 6).filter((one) => Number.isInteger(one) && one >= first && one <= end);
  return (
    <figure className="curve">
      <figcaption>{name}</figcaption>
      <svg viewBox={`0 0 ${W} ${H}`} role="img" aria-label={`${name} over ${last.x} epochs, now ${short(last.y)}`}>
        {at.map((value) => (
          <g key={value}>
            <line className="grid" x1={LEFT} x2={W - RIGHT} y1={y(value)} y2={y(value)} />
            <text className="tick" x={LEFT - 8} y={y(value) + 4} textAnchor="end">
              {short(value)}
            </text>
          </g>
        ))}
        {epochs.map((epoch) => (
          <text key={epoch} className="tick" x={x(epoch)} y={H - BOTTOM + 18} textAnchor="middle">
            {epoch}
          </text>
        ))}
        <text className="axis-name" x={(LEFT + W - RIGHT) / 2} y={H - 3} textAnchor="middle">
          epoch
        </text>
        <path className={`curve-line curve-${tone}`} d={path} />
        <circle className={`curve-end curve-${tone}`} cx={x(last.x)} cy={y(last.y)} r="4" />
        {mark && (
          <g>
            <circle className={`curve-mark curve-${tone}`} cx={x(mark.x)} cy={y(mark.y)} r="6" />
            <text className="point-name" x={x(mark.x)} y={y(mark.y) - 11} textAnchor={x(mark.x) > W - 80 ? "end" : "middle"}>
              best {short(mark.y)}
            </text>
          </g>
        )}
      </svg>
    </figure>
  );
}

export const short = (value: number) => value.toLocaleString("en", { maximumSignificantDigits: 3 });
