import { Component, useEffect, useRef, useState, useSyncExternalStore, type ReactNode } from "react";
import { denial, get, Problem, token } from "./api/client";
import { Icon, type IconName } from "./parts/Icon";
import { Link } from "./parts/Link";
import { Empty, Failure, Waiting } from "./parts/Notice";
import { useAsked } from "./state/asked";
import { href, usePlace, VIEWS, type View } from "./state/place";
import { Holding, useHeld } from "./state/reader";
import { useTheme } from "./state/theme";
import { Catalogue } from "./views/Catalogue";
import { Compare } from "./views/Compare";
import { Leaderboard } from "./views/Leaderboard";
import { Reader } from "./views/Reader";
import { Runs } from "./views/Runs";

const TITLES: Record<View, string> = {
  reader: "Reader",
  compare: "Compare",
  leaderboard: "Leaderboard",
  catalogue: "Catalogue",
  runs: "Runs",
};
const PAGES: Record<View, () => ReactNode> = {
  reader: () => <Reader />,
  compare: () => <Compare />,
  leaderboard: () => <Leaderboard />,
  catalogue: () => <Catalogue />,
  runs: () => <Runs />,
};
/** What goes along from view to view. */
const KEPT = ["run", "user", "words", "f", "with"];

export function App() {
  const own = useSyncExternalStore(token.watch, token.get);
  const runs = useAsked(`runs/${own}`, (signal) => get("/v1/runs", undefined, signal));
  const denied = runs.problem?.status === 401;
  const refused = useSyncExternalStore(denial.watch, denial.get);
  return (
    <>
      <a className="skip" href="#main">
        Skip to the page
      </a>
      <Head />
      <main id="main" tabIndex={-1}>
        {denied && <TokenForm said={own && "That token is not one of this server’s."} />}
        {!denied && refused && <TokenForm said={refused.message} close={denial.clear} />}
        {runs.problem && !denied && <Failure problem={runs.problem} again={runs.again} />}
        {!runs.data && runs.loading && <Waiting rows={6} />}
        {runs.data && !denied && runs.data.length === 0 && <Empty title="No run is served." />}
        {runs.data && !denied && runs.data.length > 0 && (
          <Holding runs={runs.data} reloadRuns={runs.again}>
            <Page />
          </Holding>
        )}
      </main>
    </>
  );
}

function Page() {
  const { view, query } = usePlace();
  const { reader, pick, runs } = useHeld();
  const user = query.get("user");
  const asked = useRef<string>(undefined);
  const [lost, setLost] = useState<Problem>();
  const [round, setRound] = useState(0);
  useEffect(() => {
    document.title = `${TITLES[view]} · Palate`;
  }, [view]);
  useEffect(() => {
    // An address that names a user shows them; asked once, so that "Start empty" stays empty.
    const run = query.get("run") ?? runs[0]?.name;
    if (user && user !== reader.user && asked.current !== user && run) {
      asked.current = user;
      pick(user, run).then(
        () => setLost(undefined),
        (failure: unknown) => setLost(failure instanceof Problem ? failure : new Problem(0, "bug", String(failure))),
      );
    }
    if (!user) asked.current = undefined;
    if (!user || user === reader.user) setLost(undefined);
  }, [user, reader.user, pick, runs, query, round]);
  const again = () => {
    asked.current = undefined;
    setRound((now) => now + 1);
  };
  return (
    <>
      {lost && <Failure problem={lost} again={again} />}
      <Safe key={view}>{PAGES[view]()}</Safe>
    </>
  );
}

function Head() {
  const { view, query } = usePlace();
  const kept = Object.fromEntries(KEPT.map((key) => [key, query.getAll(key)]));
  const { theme, next } = useTheme();
  const icon: IconName = theme === "light" ? "sun" : theme === "dark" ? "moon" : "auto";
  return (
    <header className="top">
      <div className="top-in">
        <Link to={href("reader", kept)} className="brand">
          <img src="/icon.svg" alt="" width="28" height="28" />
          <span>Palate</span>
        </Link>
        <nav className="nav" aria-label="Views">
          {VIEWS.map((one) => (
            <Link key={one} to={href(one, kept)} className="nav-link" current={one === view}>
              <Icon name={one} size={18} />
              <span>{TITLES[one]}</span>
            </Link>
          ))}
        </nav>
        <button type="button" className="icon-button" onClick={next} aria-label={`Colours: ${theme}. Change`} title={`Colours: ${theme}`}>
          <Icon name={icon} />
        </button>
      </div>
    </header>
  );
}

function TokenForm({ said: wrong, close }: { said: string; close?: () => void }) {
  const [said, setSaid] = useState("");
  return (
    <form
      className="panel form token"
      onSubmit={(event) => {
        event.preventDefault();
        token.set(said.trim());
      }}
    >
      <h1>This server needs a token</h1>
      <p className="muted">Whoever started it gave tokens to read and to write. It is kept until this tab is closed.</p>
      <div>
        <label className="label" htmlFor="token">
          Token
        </label>
        <input
          id="token"
          className="field"
          type="password"
          autoComplete="off"
          required
          value={said}
          aria-describedby={wrong ? "token-wrong" : undefined}
          onChange={(event) => setSaid(event.target.value)}
        />
      </div>
      {wrong && (
        <p id="token-wrong" className="notice-bad hint" role="alert">
          {wrong}
        </p>
      )}
      <button type="submit" className="button button-main">
        Enter
      </button>
      {close && (
        <button type="button" className="button" onClick={close}>
          Go on without
        </button>
      )}
    </form>
  );
}

/** A view that breaks says so, and the others go on. */
class Safe extends Component<{ children: ReactNode }, { broken: boolean }> {
  override state = { broken: false };
  static getDerivedStateFromError() {
    return { broken: true };
  }
  override render() {
    if (!this.state.broken) return this.props.children;
    return (
      <Empty title="This view broke.">
        <button type="button" className="button" onClick={() => window.location.reload()}>
          Load it again
        </button>
      </Empty>
    );
  }
}
