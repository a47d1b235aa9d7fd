import type { ReactNode } from "react";
import { go } from "../state/place";

/** A link inside the app: a plain click changes the page here, anything else does what links do. */
export function Link(props: { to: string; className?: string; current?: boolean; children: ReactNode }) {
  return (
    <a
      href={props.to}
      className={props.className}
      aria-current={props.current ? "page" : undefined}
      onClick={(event) => {
        if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
        event.preventDefault();
        go(props.to);
        window.scrollTo(0, 0);
        // The link may be gone with the view it stood in: who goes on by keyboard goes on from the new page.
        document.getElementById("main")?.focus({ preventScroll: true });
      }}
    >
      {props.children}
    </a>
  );
}
