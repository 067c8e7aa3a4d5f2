// Configuration: the keys as loaded, without secrets, and what the last reload has changed.

import {get} from "../commands.js";
import {h, rows, text} from "../dom.js";
import {count} from "../format.js";

const SHOWN_MAX = 2000;

/** The section of a key: "upstreams.users", "routes.\"GET /items/<id>\"", or the first name alone. */
function sectionOf(key) {
  const quoted = /^routes\.("(?:[^"]*)"(?: #\d+)?)/.exec(key);
  if (quoted) return `routes.${quoted[1]}`;
  const [first, second] = key.split(".");
  return ["upstreams", "auth", "limits"].includes(first) && second ? `${first}.${second}` : first;
}

/** A value as an element: secrets and variables are marked as such. */
function valueElement(value) {
  const kind = value === "[redacted]" ? "secret" : /\$\{[^}]*\}/.test(value) ? "variable" : null;
  return h(
    "span",
    {
      class: kind,
      title:
        kind === "secret"
          ? "a secret, which is never shown"
          : kind === "variable"
            ? "the name of an environment variable"
            : null,
    },
    value,
  );
}

/** "umbel.toml:12" of "/etc/umbel/umbel.toml:12"; the whole path is the title. */
function placeElement(at) {
  return h("span", {title: at}, at.slice(at.lastIndexOf("/") + 1));
}

/** A table with its columns' names, which are hidden where the section makes them plain. */
function table(title, columns, cells, headless = false) {
  return h(
    "table",
    {class: "config"},
    h("caption", {class: "unseen"}, title),
    h(
      "thead",
      {class: headless ? "unseen" : null},
      h(
        "tr",
        {},
        columns.map((name) => h("th", {scope: "col"}, name)),
      ),
    ),
    h(
      "tbody",
      {},
      cells.map(([first, ...others]) =>
        h(
          "tr",
          {},
          h("th", {scope: "row"}, first),
          others.map((each, index) => h("td", {class: index === others.length - 1 ? "at" : null}, each)),
        ),
      ),
    ),
  );
}

class ConfigurationView {
  #generation = null;
  #rows = [];
  #closed = new Set();
  #reload = h("section", {class: "reload", hidden: true});
  #summary = h("p", {class: "summary"}, "Loading …");
  #search = h("input", {
    type: "search",
    placeholder: "Search key, value, file …",
    "aria-label": "Search the configuration",
    oninput: () => this.#draw(),
  });
  #sections = h("div", {});

  constructor(root, context) {
    this.#search.value = context.parameters.get("q") ?? "";
    root.append(this.#reload, h("div", {class: "bar"}, this.#search), this.#summary, this.#sections);
  }

  update(_topic, data) {
    this.#drawReload(data);
    if (data.generation !== this.#generation) {
      this.#generation = data.generation;
      this.#load();
    }
  }

  async #load() {
    try {
      const {rows: found, left_out: leftOut} = await get("/config");
      this.#rows = found.map((row) => ({
        ...row,
        section: sectionOf(row.key),
        words: `${row.key} ${row.value} ${row.at}`.toLowerCase(),
      }));
      this.#leftOut = leftOut;
      this.#draw();
    } catch (error) {
      text(this.#summary, error.message);
    }
  }

  #leftOut = 0;

  #draw() {
    const query = this.#search.value.trim().toLowerCase();
    const found = this.#rows.filter((row) => !query || row.words.includes(query));
    const shown = found.slice(0, SHOWN_MAX);
    text(
      this.#summary,
      this.#rows.length
        ? `${count(found.length)} keys that files set${query ? " and the search finds" : ""}. ` +
            "Values of variables are shown by name, secrets not at all." +
            (found.length > shown.length ? ` The first ${count(shown.length)} are shown; search for the others.` : "") +
            (this.#leftOut ? ` ${count(this.#leftOut)} further keys are left out.` : "")
        : "The instance has no configuration file.",
    );
    const sections = new Map();
    for (const row of shown) sections.set(row.section, [...(sections.get(row.section) ?? []), row]);
    rows(
      this.#sections,
      [...sections],
      ([name, each]) => `${name} ${each.length} ${each.map((row) => row.value).join()}`,
      ([name, each]) => {
        const details = h(
          "details",
          {class: "config-section"},
          h("summary", {}, name),
          table(
            name,
            ["key", "value", "where"],
            each.map((row) => [
              row.key.slice(name.length).replace(/^\./, "") || row.key,
              valueElement(row.value),
              placeElement(row.at),
            ]),
            true,
          ),
        );
        details.open = query !== "" || !this.#closed.has(name);
        details.addEventListener("toggle", () => {
          if (details.open) this.#closed.delete(name);
          else this.#closed.add(name);
        });
        return details;
      },
      () => {},
    );
  }

  #drawReload({generation, last_reload: last}) {
    const signature = JSON.stringify([generation, last]);
    if (this.#reload.dataset.signature === signature) return;
    this.#reload.dataset.signature = signature;
    this.#reload.hidden = false;
    if (last === null) {
      this.#reload.dataset.state = "none";
      this.#reload.replaceChildren(
        h("h2", {}, "No reload yet"),
        h("p", {class: "dim"}, "The configuration is that of the start."),
      );
      return;
    }
    const {failure, changes} = last;
    this.#reload.dataset.state = failure ? "bad" : "good";
    const listed = changes
      ? [
          ...changes.changed.map((row) => [
            row.key,
            [
              h("del", {}, row.before),
              " → ",
              h("ins", {}, row.after),
              row.before === row.after ? " (the values are secret, and differ)" : "",
            ],
            placeElement(row.at),
          ]),
          ...changes.added.map((row) => [row.key, ["added: ", h("ins", {}, row.after)], placeElement(row.at)]),
          ...changes.removed.map((row) => [row.key, ["removed: ", h("del", {}, row.before)], placeElement(row.at)]),
        ]
      : [];
    this.#reload.replaceChildren(
      h("h2", {}, failure ? "The last reload failed" : "The last reload"),
      h(
        "p",
        {},
        `${new Date(last.at * 1000).toLocaleString("en-GB")}, generation ${generation}${failure ? `: ${failure}` : "."}`,
      ),
      listed.length
        ? table("Changes of the last reload", ["key", "change", "where"], listed)
        : h("p", {class: "dim"}, changes ? "No key has changed." : "The configuration before it stays in use."),
      changes?.left_out ? h("p", {class: "dim"}, `${count(changes.left_out)} further changes are left out.`) : "",
    );
  }
}

export const view = {
  name: "configuration",
  title: "Configuration",
  topics: ["config"],
  mount: (root, context) => new ConfigurationView(root, context),
};
