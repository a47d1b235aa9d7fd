import { useEffect, useState } from "react";
import { address, picture, token, type RunCard } from "../api/client";

const LOOKS = 8;

function lookOf(item: string): number {
  let sum = 7;
  for (const letter of item) sum = (sum * 31 + letter.charCodeAt(0)) % 9973;
  return sum % LOOKS;
}

/** The picture of an item, else its title on a coloured ground. The title stands beside it, so it is not read out. */
export function Cover(props: { run: RunCard; item: string; title: string; size?: "small" | "large" }) {
  const { run, item, title, size } = props;
  const [broken, setBroken] = useState(false);
  const [held, setHeld] = useState<string>();
  const path = address("/v1/items/cover", { run: run.name, item });
  const needsToken = token.get() !== "";
  useEffect(() => {
    setBroken(false);
    if (!run.covers || !needsToken) return;
    const control = new AbortController();
    let made: string | undefined;
    picture(path, control.signal)
      .then((found) => setHeld((made = found)))
      .catch(() => control.signal.aborted || setBroken(true));
    return () => {
      control.abort();
      if (made) URL.revokeObjectURL(made);
    };
  }, [path, run.covers, needsToken]);
  const classes = `cover ${size ? `cover-${size}` : ""}`;
  const source = needsToken ? held : path;
  if (run.covers && !broken)
    return (
      <span className={classes}>
        {source && <img src={source} alt="" loading="lazy" width="240" height="360" onError={() => setBroken(true)} />}
      </span>
    );
  return (
    <span className={`${classes} cover-plain look-${lookOf(item)}`} aria-hidden="true">
      <span>{title.replace(/\s*\(\d{4}\)$/, "")}</span>
    </span>
  );
}
