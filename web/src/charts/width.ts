import { useSyncExternalStore } from "react";

// A drawing is scaled to the width of its place; on a phone it is drawn narrower, so that its letters stay readable.
const PHONE = window.matchMedia("(max-width: 40rem)");

function watch(tell: () => void): () => void {
  PHONE.addEventListener("change", tell);
  return () => PHONE.removeEventListener("change", tell);
}

/** How wide to draw; drawn anew when a phone is turned or a window becomes narrow. */
export const useWidth = (wide: number, narrow: number): number => useSyncExternalStore(watch, () => (PHONE.matches ? narrow : wide));
