// Upstreams: attempts, replicas, limits, breakers and budgets, over all processes and of each process.

import {h, rows, text} from "../dom.js";
import {count, duration, milliseconds, rate, share} from "../format.js";
import {meter} from "../parts/charts.js";
import {Period, stateOf} from "../parts/period.js";

const REPLICA_COLUMNS = ["replica", "state", "in flight", "rate", "errors", "p50", "p95", "p99"];
const PROCESS_COLUMNS = [
  "process",
  "breaker",
  "opened",
  "refused by it",
  "in use",
  "waiting",
  "limit",
  "retries",
  "hedges",
  "hedges won",
  "ejections",
];
const CAUSES = {retry: "retries", hedge: "hedges", redirect: "redirects", mirror: "mirrored"};

function table(title, columns, body) {
  return h(
    "table",
    {class: "figures"},
    h("caption", {class: "unseen"}, title),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        columns.map((name) => h("th", {scope: "col"}, name)),
      ),
    ),
    body,
  );
}

/** A row of a table of figures: cells by column name. */
function fillRow(element, cells) {
  for (const [name, value, state = ""] of cells) {
    const cell = element.querySelector(`[data-label="${name}"]`);
    text(cell.lastElementChild, value);
    cell.dataset.state = state;
  }
}

function makeRow(columns) {
  return h(
    "tr",
    {},
    h("th", {scope: "row", "data-label": columns[0]}, h("span", {class: "value"})),
    columns.slice(1).map((name) => h("td", {"data-label": name}, h("span", {class: "value"}))),
  );
}

/** The state of a replica in words, and how bad it is. */
function replicaState(replica) {
  const ejected = replica.ejected.map((each) => `${each.process} for ${duration(each.for_s)}`);
  const parts = [];
  if (replica.down.length) parts.push(`down (health check of ${replica.down.join(", ")})`);
  if (ejected.length) parts.push(`ejected by ${ejected.join(", ")}`);
  return parts.length ? [parts.join("; "), "bad"] : ["up", ""];
}

class Card {
  #name = h("h2", {});
  #breaker = h("span", {class: "chip"});
  #facts = h("dl", {class: "facts"});
  #replicas = h("tbody", {});
  #processes = h("tbody", {});

  constructor() {
    this.element = h(
      "section",
      {class: "card"},
      h("div", {class: "card-head"}, this.#name, this.#breaker),
      this.#facts,
      table("Replicas", REPLICA_COLUMNS, this.#replicas),
      h("details", {}, h("summary", {}, "By process"), table("Processes", PROCESS_COLUMNS, this.#processes)),
    );
  }

  fill(upstream, period, seconds) {
    const figures = period.of(upstream) ?? {};
    text(this.#name, upstream.name);
    this.#breaker.hidden = upstream.breaker === null;
    this.#breaker.dataset.state = upstream.breaker ?? "";
    text(this.#breaker, `breaker ${upstream.breaker}`);
    this.#fillFacts(upstream, figures, seconds);
    rows(
      this.#replicas,
      upstream.replicas,
      (each) => each.name,
      () => makeRow(REPLICA_COLUMNS),
      (element, each) => {
        const own = period.of(each) ?? {};
        fillRow(element, [
          ["replica", each.name],
          ["state", ...replicaState(each)],
          ["in flight", count(each.in_flight)],
          ["rate", rate(each.recent?.answered ?? 0, seconds)],
          ["errors", share(own.errors ?? 0, own.answered), stateOf(own.errors, own.answered)],
          ["p50", milliseconds(own.p50_ms)],
          ["p95", milliseconds(own.p95_ms)],
          ["p99", milliseconds(own.p99_ms)],
        ]);
      },
    );
    rows(
      this.#processes,
      upstream.processes,
      (each) => each.process,
      () => makeRow(PROCESS_COLUMNS),
      (element, each) => {
        const {breaker} = each;
        fillRow(element, [
          ["process", each.process],
          ["breaker", breaker ? breaker.state : "none", breaker && breaker.state !== "closed" ? "bad" : ""],
          ["opened", breaker ? `${count(breaker.opened)} times` : ""],
          ["refused by it", breaker ? count(breaker.refused) : ""],
          ["in use", count(each.in_use)],
          [
            "waiting",
            `${count(each.waiting)}${each.stalled ? ", stalled" : ""}`,
            each.waiting || each.stalled ? "warn" : "",
          ],
          ["limit", `${count(each.limit)}${each.is_learned ? ", learned" : ""}`],
          ["retries", count(each.retries)],
          ["hedges", count(each.hedges)],
          ["hedges won", count(each.hedges_won)],
          ["ejections", count(each.ejections)],
        ]);
      },
    );
  }

  #fillFacts(upstream, figures, seconds) {
    const {bulkhead, budget, pool, streams} = upstream;
    const attempts = Object.entries(figures.attempts ?? {})
      .filter(([cause, number]) => cause !== "first" && number)
      .map(([cause, number]) => `${CAUSES[cause] ?? cause} ${count(number)}`);
    const sent = Object.values(upstream.recent?.attempts ?? {}).reduce((sum, each) => sum + each, 0);
    const refused = budget.denied ? `, ${count(budget.denied)} refused since the start` : "";
    const connecting = pool.connecting ? `, ${count(pool.connecting)} connecting` : "";
    const facts = [
      ["attempts", rate(sent, seconds)],
      ["further attempts", attempts.join(", ") || "none"],
      ["errors", share(figures.errors ?? 0, figures.answered), stateOf(figures.errors, figures.answered)],
      ["p50", milliseconds(figures.p50_ms) || "–"],
      ["p95", milliseconds(figures.p95_ms) || "–"],
      ["p99", milliseconds(figures.p99_ms) || "–"],
      [
        "in flight",
        `${count(bulkhead.in_use)} of ${count(bulkhead.limit)}`,
        bulkhead.in_use >= bulkhead.limit ? "bad" : "",
        [bulkhead.in_use, bulkhead.limit],
      ],
      ["waiting for a place", count(bulkhead.waiting), bulkhead.waiting ? "warn" : ""],
      ["budget for repeats", `${Math.floor(budget.left * 10) / 10} left${refused}`, budget.left < 1 ? "bad" : ""],
      ["connections", `${count(pool.active)} active, ${count(pool.idle)} idle${connecting}`],
      ...(streams ? [["streams", count(streams)]] : []),
    ];
    rows(
      this.#facts,
      facts,
      ([name]) => name,
      () => h("div", {}, h("dt", {}), h("dd", {}, h("span", {}))),
      (element, [name, value, state = "", parts]) => {
        text(element.firstElementChild, name);
        element.dataset.state = state;
        const [place] = element.lastElementChild.children;
        text(place, value);
        if (parts && place.dataset.of !== value) {
          place.dataset.of = value;
          place.nextElementSibling?.remove();
          element.lastElementChild.append(meter(...parts, state));
        }
      },
    );
  }
}

class UpstreamsView {
  #data = null;
  #cards = new Map();
  #period = new Period(() => this.#draw());
  #search = h("input", {
    type: "search",
    placeholder: "Search upstream, replica …",
    "aria-label": "Search upstreams",
    oninput: () => this.#draw(),
  });
  #summary = h("p", {class: "summary"});
  #list = h("div", {class: "cards"});
  #limits = h("tbody", {});
  #limitsPart = h(
    "section",
    {hidden: true},
    h("h2", {class: "part"}, "Limits that let calls wait"),
    table("Limits", ["limit", "calls waiting", "calls delayed since the start"], this.#limits),
  );

  constructor(root) {
    root.append(
      h("div", {class: "bar"}, this.#search, this.#period.element),
      this.#summary,
      this.#list,
      this.#limitsPart,
    );
  }

  update(_topic, data) {
    this.#data = data;
    this.#draw();
  }

  #draw() {
    const data = this.#data;
    if (!data) return;
    const query = this.#search.value.trim().toLowerCase();
    const found = data.upstreams.filter(
      (each) =>
        !query || [each.name, ...each.replicas.map((replica) => replica.name)].join(" ").toLowerCase().includes(query),
    );
    text(
      this.#summary,
      `${found.length} ${found.length === 1 ? "upstream" : "upstreams"}. ${this.#period.text(data)}` +
        data.silent.map((each) => ` ${each} has not answered.`).join("") +
        (data.left_out ? ` ${data.left_out} upstreams are left out.` : ""),
    );
    rows(
      this.#list,
      found,
      (each) => each.name,
      (each) => {
        if (!this.#cards.has(each.name)) this.#cards.set(each.name, new Card());
        return this.#cards.get(each.name).element;
      },
      (_element, each) => this.#cards.get(each.name).fill(each, this.#period, data.window_s),
    );
    this.#limitsPart.hidden = !data.limits.length;
    const columns = ["limit", "calls waiting", "calls delayed since the start"];
    rows(
      this.#limits,
      data.limits,
      (each) => each.name,
      () => makeRow(columns),
      (element, each) =>
        fillRow(element, [
          ["limit", each.name],
          ["calls waiting", count(each.waiting), each.waiting ? "warn" : ""],
          ["calls delayed since the start", count(each.delayed)],
        ]),
    );
  }
}

export const view = {
  name: "upstreams",
  title: "Upstreams",
  topics: ["upstreams"],
  mount: (root) => new UpstreamsView(root),
};
