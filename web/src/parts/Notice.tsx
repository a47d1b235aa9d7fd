import type { ReactNode } from "react";
import { Problem } from "../api/client";

/** What stands where there is nothing: what this place is for, and what to do. */
export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className="notice">
      <p className="notice-title">{title}</p>
      {children && <div className="notice-more">{children}</div>}
    </div>
  );
}

/** What went wrong, in the server's own sentence. */
export function Failure({ problem, again }: { problem: Problem; again?: () => void }) {
  return (
    <div className="notice notice-bad" role="alert">
      <p className="notice-title">{problem.message}</p>
      {problem.status === 429 && <p className="notice-more">Asking again by itself.</p>}
      {again && (
        <button type="button" className="button" onClick={again}>
          Try again
        </button>
      )}
    </div>
  );
}

/** Grey shapes while the first answer is on its way. */
export function Waiting({ rows = 6, shape = "rows" }: { rows?: number; shape?: "rows" | "cards" }) {
  return (
    <div className={`waiting waiting-${shape}`} role="status">
      <span className="hidden">Loading</span>
      {Array.from({ length: rows }, (_, i) => (
        <span key={i} className="waiting-one" />
      ))}
    </div>
  );
}

/** A word about data or a run. */
export function Badge({ tone = "plain", children }: { tone?: "plain" | "accent" | "good" | "warn"; children: ReactNode }) {
  return <span className={`badge badge-${tone}`}>{children}</span>;
}
