// Lints: what is wrong with the use of the event loop, and what to do about it.

import {h, rows, text} from "../dom.js";
import {duration} from "../format.js";

class LintsView {
  #list = h("ul", {class: "lints"});
  #none = h("p", {class: "hint"}, "Waiting for the first look …");

  constructor(root) {
    root.append(this.#none, this.#list);
  }

  update(_topic, data) {
    const lints = data.lints;
    this.#none.hidden = lints.length > 0;
    text(this.#none, "Nothing stands out: no long steps, no growing nurseries, no full queues. Lints are looked for while a page is open.");
    rows(this.#list, lints, (lint) => `${lint.process}:${lint.name}:${lint.where}`,
      () => h("li", {}, h("h2", {}), h("p", {class: "advice"}), h("p", {class: "dim"})),
      (element, lint) => {
        const [title, advice, facts] = element.children;
        text(title, lint.where ? `${lint.title}: ${lint.where}` : lint.title);
        text(advice, lint.advice);
        text(facts, `${lint.process} · ${lint.detail} · ${lint.count} ${lint.count === 1 ? "time" : "times"} · first ${duration(lint.first)} ago, last ${duration(lint.last)} ago`);
      });
  }
}

export const view = {
  name: "lints",
  title: "Lints",
  topics: ["lints"],
  mount: (root) => new LintsView(root),
};
