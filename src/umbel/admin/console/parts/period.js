// Which figures a view shows, and from which share of failures on they stand out.

import {h} from "../dom.js";

const BAD_SHARE = 0.05;

/** Which figures are shown: of the last seconds, or since the start. */
export class Period {
  #select;

  constructor(onChange) {
    this.#select = h(
      "select",
      {"aria-label": "Period", onchange: onChange},
      h("option", {value: "recent"}, "The last seconds"),
      h("option", {value: "total"}, "Since the start"),
    );
    this.element = this.#select;
  }

  /** The figures of an entry; null: there is no second sample yet. */
  of(entry) {
    return this.#select.value === "recent" ? entry.recent : entry.total;
  }

  text(data) {
    if (this.#select.value === "total") return "Figures since the start of the processes.";
    return data.window_s === null
      ? "Waiting for a second sample …"
      : `Figures of the last ${Math.round(data.window_s)} s.`;
  }
}

/** How a share of failures is marked: "bad" from 5 % on, "warn" from the first one on. */
export function stateOf(part, whole) {
  return part && part / whole >= BAD_SHARE ? "bad" : part ? "warn" : "";
}
