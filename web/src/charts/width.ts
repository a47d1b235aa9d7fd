// A drawing is scaled to the width of its place; on a phone it is drawn narrower, so that its letters stay readable.
const PHONE = window.matchMedia("(max-width: 40rem)").matches;

export const width = (wide: number, narrow: number) => (PHONE ? narrow : wide);
