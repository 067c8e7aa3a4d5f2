// The live tree: processes, nurseries, tasks, requests and calls, by the keys of the ARIA tree pattern.
//
// The tree of data becomes a list of visible rows (flatten); rows() keeps the elements of the page in step with it. A row
// is known by its key, the path of ids from its process: so folding, focus and selection survive every update.

import {h, rows, text} from "../dom.js";
import {duration} from "../format.js";

/** A row: {key, level, kind, open (null: a leaf), parent, words, ...}. */
function row(key, parent, level, kind, data, children) {
  return {key, parent, level, kind, data, children};
}

function scopeText(scope, passed) {
  if (scope.cancelled) return `cancelled: ${scope.reason}`;
  if (scope.left === undefined || scope.left === null) return scope.shield ? "shield" : "";
  // Between two looks a deadline that passes is usually one that did its work, such as that of a sleep.
  const left = scope.left < 0 ? scope.left - passed : Math.max(0, scope.left - passed);
  const words = left >= 0 ? `deadline in ${duration(left)}` : `deadline passed ${duration(-left)} ago`;
  return scope.shield ? `shield, ${words}` : words;
}

// From data to a tree of rows.

function processRow(tree) {
  const key = `p:${tree.process}`;
  return row(key, null, 1, "process", tree, () => (tree.root ? [taskRow(tree.root, key, 2)] : []));
}

function taskRow(task, parent, level) {
  const fold = (task.count ?? 1) > 1;
  const key = fold ? `${parent}/f:${task.name}@${task.at ?? ""}:${task.state}` : `${parent}/${task.id}`;
  const own = row(key, parent, level, "task", task, () => {
    const found = (task.calls ?? []).map((call) => row(`${key}/c:${call.name}`, key, level + 1, "call", call, () => []));
    const nurseries = task.nurseries ?? [];
    nurseries.forEach((nursery, index) => {
      const named = nursery.scope || nurseries.length > 1;
      if (named) found.push(nurseryRow(nursery, `${key}/n${index}`, key, level + 1));
      else found.push(...nurseryChildren(nursery, key, level + 1));
    });
    if (fold) {
      const others = [{...task, count: 1, members: []}, ...(task.members ?? [])];
      // The members of a fold are shown without what they have in common with the first one below.
      return [row(`${key}/m`, key, level + 1, "members", {shown: others.length, count: task.count},
        () => others.map((member) => taskRow(member, `${key}/m`, level + 2))), ...found];
    }
    return found;
  });
  own.initially = true;
  return own;
}

function nurseryRow(nursery, key, parent, level) {
  return row(key, parent, level, "nursery", nursery, () => nurseryChildren(nursery, key, level + 1));
}

function nurseryChildren(nursery, key, level) {
  const found = (nursery.tasks ?? []).map((task) => taskRow(task, key, level));
  if (nursery.left_out) found.push(row(`${key}/more`, key, level, "more", nursery, () => []));
  return found;
}

function words(each) {
  const {kind, data} = each;
  if (kind === "process") return `${data.process} ${data.pid}`;
  if (kind === "call") return `call ${data.name} ${data.upstream ?? ""} ${data.state} ${data.why ?? ""} ${(data.attempts ?? []).map((a) => `${a.cause} ${a.replica}`).join(" ")}`;
  if (kind === "task") {
    const request = data.request;
    return `${data.name} ${data.state} ${data.waits ?? ""} ${data.at ?? ""} ${data.function ?? ""} ${data.request_id ?? ""} ` +
      (request ? `${request.method} ${request.path} ${request.route ?? ""} ${request.id}` : "");
  }
  return "";
}

class TreeView {
  #trees = [];
  #received = 0;
  #closed = new Set();
  #opened = new Set();
  #visible = [];
  #current = null;
  #search = h("input", {type: "search", placeholder: "Search name, place, request id …", "aria-label": "Search the tree", oninput: () => this.#draw()});
  #pause = h("button", {type: "button", "aria-pressed": "false", onclick: () => this.#setPaused(!this.#paused)}, "Pause");
  #paused = false;
  #held = null;
  #summary = h("p", {class: "summary"});
  #tree = h("div", {class: "tree", role: "tree", "aria-label": "Tasks", onkeydown: (event) => this.#key(event), onclick: (event) => this.#click(event)});
  #details = h("aside", {class: "details", "aria-label": "Details"}, h("p", {class: "hint"}, "Select a row for its details."));
  #timer = null;
  #context;

  constructor(root, context) {
    this.#context = context;
    this.#search.value = context.parameters.get("q") ?? "";
    root.append(
      h("div", {class: "bar"}, this.#search, this.#pause,
        h("button", {type: "button", onclick: () => this.#all(true)}, "Unfold all"),
        h("button", {type: "button", onclick: () => this.#all(false)}, "Fold all")),
      this.#summary,
      h("div", {class: "columns"}, this.#tree, this.#details),
      h("p", {class: "keys"}, "Keys: ", ["↑ ↓ move", "← → fold and unfold", "Home End", "Enter details", "/ search", "p pause", "g then 1, 2, … other views"].map((each) => h("span", {}, each))));
    this.#timer = setInterval(() => this.#tick(), 200);
    this.#onKey = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select")) return;
      if (event.key === "/") { event.preventDefault(); this.#search.focus(); }
      if (event.key === "p") this.#setPaused(!this.#paused);
    };
    this.#search.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { this.#search.value = ""; this.#draw(); this.#focus(); }
      if (event.key === "Enter" || event.key === "ArrowDown") { event.preventDefault(); this.#focus(); }
    });
    document.addEventListener("keydown", this.#onKey);
  }

  #onKey;

  unmount() {
    clearInterval(this.#timer);
    document.removeEventListener("keydown", this.#onKey);
  }

  update(_topic, data) {
    if (this.#paused) { this.#held = data; return; }
    this.#trees = data.trees;
    this.#received = performance.now();
    this.#draw();
  }

  #setPaused(paused) {
    this.#paused = paused;
    this.#pause.setAttribute("aria-pressed", String(paused));
    text(this.#pause, paused ? "Resume" : "Pause");
    this.#context.announce(paused ? "Paused" : "Live");
    if (!paused && this.#held) { const held = this.#held; this.#held = null; this.update("tree", held); }
  }

  // Whether a row is unfolded: as the user has left it; else all but the members of folds.
  #isOpen(each) {
    if (this.#opened.has(each.key)) return true;
    if (this.#closed.has(each.key)) return false;
    return each.kind !== "members";
  }

  #setOpen(each, open) {
    (open ? this.#opened : this.#closed).add(each.key);
    (open ? this.#closed : this.#opened).delete(each.key);
  }

  #all(open) {
    const walk = (each) => {
      const children = each.children();
      if (children.length && each.kind !== "process") this.#setOpen(each, open);
      children.forEach(walk);
    };
    this.#trees.map(processRow).forEach(walk);
    this.#draw();
  }

  #flatten() {
    const query = this.#search.value.trim().toLowerCase();
    const found = [];
    // With a search: the rows that match, with all above and below them. Returns whether anything was shown.
    const walk = (each, inside) => {
      const place = found.length;
      found.push(each);
      const children = each.children();
      each.isLeaf = !children.length;
      each.isOpen = query && !inside ? true : this.#isOpen(each);
      each.matches = query !== "" && words(each).toLowerCase().includes(query);
      const shown = inside || each.matches || query === "";
      let any = shown;
      if (each.isOpen) for (const child of children) any = walk(child, shown) || any;
      if (!any) found.length = place;
      return any;
    };
    this.#trees.forEach((tree) => walk(processRow(tree), false));
    return found;
  }

  #draw() {
    this.#visible = this.#flatten();
    if (!this.#visible.some((each) => each.key === this.#current)) this.#current = this.#visible[0]?.key ?? null;
    rows(this.#tree, this.#visible, (each) => each.key, make, (element, each) => this.#fill(element, each));
    const tasks = this.#trees.reduce((sum, tree) => sum + (tree.tasks ?? 0), 0);
    const blocked = this.#trees.filter((tree) => tree.blocked).length;
    text(this.#summary, `${tasks} tasks in ${this.#trees.length} ${this.#trees.length === 1 ? "process" : "processes"}` +
      (blocked ? `, ${blocked} blocked` : "") + (this.#search.value ? `; ${this.#visible.filter((each) => each.matches).length} rows match` : ""));
    this.#drawDetails();
  }

  #passed() {
    return (performance.now() - this.#received) / 1000;
  }

  #tick() {
    if (this.#paused) return;
    const passed = this.#passed();
    for (const each of this.#tree.querySelectorAll("[data-left]")) {
      const left = Number(each.dataset.left) - passed;
      each.classList.toggle("soon", left < 1);
      text(each, scopeText({left: Number(each.dataset.left), shield: each.dataset.shield === "true"}, passed));
    }
  }

  #fill(element, each) {
    element.setAttribute("aria-level", each.level);
    if (each.isLeaf) element.removeAttribute("aria-expanded");
    else element.setAttribute("aria-expanded", String(each.isOpen));
    const selected = each.key === this.#current;
    element.setAttribute("aria-selected", String(selected));
    element.tabIndex = selected ? 0 : -1;
    element.classList.toggle("match", each.matches);
    element.style.setProperty("--level", each.level - 1);
    fill[each.kind](element.lastElementChild, each.data, this.#passed());
  }

  #focus() {
    [...this.#tree.children].find((element) => element.dataset.key === this.#current)?.focus();
  }

  #select(index) {
    const each = this.#visible[Math.max(0, Math.min(index, this.#visible.length - 1))];
    if (!each) return;
    this.#current = each.key;
    this.#draw();
    this.#focus();
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const at = this.#visible.findIndex((each) => each.key === this.#current);
    const each = this.#visible[at];
    if (!each) return;
    const open = !each.isLeaf && each.isOpen;
    const actions = {
      ArrowDown: () => this.#select(at + 1),
      ArrowUp: () => this.#select(at - 1),
      PageDown: () => this.#select(at + 15),
      PageUp: () => this.#select(at - 15),
      Home: () => this.#select(0),
      End: () => this.#select(this.#visible.length - 1),
      ArrowRight: () => (open ? this.#select(at + 1) : this.#toggle(each, true)),
      ArrowLeft: () => (open ? this.#toggle(each, false) : this.#select(Math.max(0, this.#visible.findIndex((other) => other.key === each.parent)))),
      " ": () => this.#toggle(each, !open),
      Enter: () => { this.#drawDetails(); this.#details.scrollIntoView({block: "nearest"}); },
    };
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  #toggle(each, open) {
    if (each.isLeaf) return;
    this.#setOpen(each, open);
    this.#draw();
    this.#focus();
  }

  #click(event) {
    const element = event.target.closest("[role=treeitem]");
    if (!element) return;
    const each = this.#visible.find((other) => other.key === element.dataset.key);
    if (!each) return;
    this.#current = each.key;
    if (event.target.closest(".twisty")) this.#toggle(each, !each.isOpen);
    else this.#select(this.#visible.indexOf(each));
  }

  #drawDetails() {
    const each = this.#visible.find((other) => other.key === this.#current);
    if (!each) return;
    const parts = details(each, this.#passed());
    const signature = JSON.stringify([each.key, parts.pairs.map(([name]) => name), parts.attempts?.length]);
    if (this.#details.dataset.signature !== signature) {
      this.#details.dataset.signature = signature;
      this.#details.replaceChildren(
        h("h2", {}, parts.title),
        h("dl", {}, parts.pairs.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])));
    } else {
      [...this.#details.querySelectorAll("dd")].forEach((element, index) => text(element, parts.pairs[index][1]));
    }
  }
}

function make() {
  return h("div", {role: "treeitem", class: "row"}, h("span", {class: "twisty", "aria-hidden": "true"}), h("span", {class: "cells"}));
}

/** Put the parts [class, text, data] into a row's cells, and keep the elements that are there. */
function cells(place, parts) {
  const shown = parts.filter((part) => part && part[1] !== "");
  rows(place, shown, (part) => part[3] ?? part[0], () => h("span", {}), (element, part) => {
    element.className = part[0];
    for (const name of Object.keys(element.dataset)) if (name !== "key") delete element.dataset[name];
    Object.assign(element.dataset, part[2] ?? {});
    text(element, part[1]);
  });
}

function scopeCells(scopes, passed) {
  return (scopes ?? []).map((scope, index) => {
    const counts = !scope.cancelled && scope.left !== undefined;
    const data = counts ? {left: String(scope.left), shield: String(Boolean(scope.shield))} : {};
    const kind = scope.cancelled ? "chip cancelled" : scope.shield ? "chip shield" : "chip deadline";
    return [kind, scopeText(scope, passed), data, `scope${index}`];
  });
}

const fill = {
  process(place, tree) {
    cells(place, [
      ["name strong", tree.process],
      ["dim", `pid ${tree.pid}`],
      ["dim", tree.tasks ? `${tree.tasks} tasks` : "", {}, "tasks"],
      tree.blocked ? ["chip cancelled", `blocked for ${duration(tree.blocked.seconds)}${tree.blocked.at ? ` at ${tree.blocked.at}` : ""}`, {}, "blocked"] : null,
      tree.age ? ["dim", `read ${duration(tree.age)} ago`, {}, "age"] : null,
      ["note", tree.note ?? ""],
    ]);
  },
  task(place, task, passed) {
    const request = task.request;
    const count = task.count ?? 1;
    cells(place, [
      [`state ${task.state}`, task.state, {}, "state"],
      ["name", shortName(task.name)],
      count > 1 ? ["times", `× ${count}`] : null,
      request ? ["chip request", `${request.method} ${request.path}`, {}, "request"] : null,
      request && request.left !== undefined ? ["chip deadline", scopeText(request, passed), {left: String(request.left)}, "left"] : null,
      !request && task.request_id ? ["chip request", task.request_id, {}, "id"] : null,
      ["waits", task.waits ? `waits for ${task.waits}` : ""],
      ["at", task.at ?? ""],
      ["age", age(task, request, passed)],
      ...scopeCells(task.scopes, passed),
    ]);
  },
  nursery(place, nursery, passed) {
    cells(place, [["kind", "nursery"], ["dim", `${nursery.size} ${nursery.size === 1 ? "task" : "tasks"}`], ...scopeCells(nursery.scope ? [nursery.scope] : [], passed)]);
  },
  call(place, call) {
    const attempts = call.attempts ?? [];
    cells(place, [
      [`state call-${call.state}`, call.state, {}, "state"],
      ["kind", "call"],
      ["name", call.name],
      ["dim", call.upstream ?? "", {}, "upstream"],
      ["chip cancelled", call.why ?? "", {}, "why"],
      call.items ? ["dim", `${call.items} items`, {}, "items"] : null,
      ["age", call.age === undefined ? "" : duration(call.age)],
      ...attempts.map((attempt, index) => [
        `chip attempt ${attempt.cause}`,
        `${attempt.cause}${attempt.replica ? ` ${attempt.replica.replace(/^https?:\/\//, "")}` : ""}: ${attempt.state}${attempt.status ? ` ${attempt.status}` : ""}${attempt.age === undefined ? "" : ` ${duration(attempt.age)}`}`,
        {}, `attempt${index}`]),
    ]);
  },
  members(place, members) {
    cells(place, [["dim", members.shown < members.count ? `${members.shown} of ${members.count}, one by one` : "one by one"]]);
  },
  more(place, nursery) {
    cells(place, [["dim", `… and ${nursery.left_out} more, which are not sent`]]);
  },
};

function shortName(name) {
  const parts = name.replace(/<locals>\./g, "").split(".");
  return parts.slice(-2).join(".");
}

function age(task, request, passed) {
  if (request) return duration(request.age + passed);
  if (task.age === undefined) return "";
  return `${task.older ? "≥ " : ""}${duration(task.age + passed)}`;
}

function details(each, passed) {
  const {kind, data} = each;
  if (kind === "task") {
    const request = data.request;
    return {title: data.name, pairs: [
      ["state", data.waits ? `${data.state} for ${data.waits}` : data.state],
      ["place", data.at ? `${data.at} in ${data.function}` : "not known"],
      ["age", age(data, null, passed) || "not known"],
      ...(request ? [["request", `${request.method} ${request.path}`], ["request id", request.id], ["route", request.route || "none"],
        ["request age", duration(request.age + passed)], ["time left", request.left === undefined ? "no deadline" : duration(request.left - passed)]] : []),
      ...(!request && data.request_id ? [["request id", data.request_id]] : []),
      ...(data.scopes ?? []).map((scope, index) => [`scope ${index + 1}`, scopeText(scope, passed)]),
      ...((data.count ?? 1) > 1 ? [["stands for", `${data.count} equal tasks`]] : []),
    ]};
  }
  if (kind === "call") {
    return {title: `call ${data.name}`, attempts: data.attempts, pairs: [
      ["what it is", "a call of the composition: it has no task, callbacks carry it on"],
      ["state", data.why ? `${data.state}: ${data.why}` : data.state],
      ...(data.upstream ? [["upstream", data.upstream]] : []),
      ["age", data.age === undefined ? "not begun" : duration(data.age)],
      ...(data.attempts ?? []).map((attempt, index) => [`attempt ${index + 1}`,
        `${attempt.cause} to ${attempt.replica || "no replica yet"}: ${attempt.state}${attempt.status ? ` ${attempt.status}` : ""}${attempt.age === undefined ? "" : `, ${duration(attempt.age)}`}`]),
    ]};
  }
  if (kind === "process") {
    return {title: data.process, pairs: [["pid", String(data.pid)], ["tasks", String(data.tasks ?? "not known")],
      ["event loop", data.blocked ? `blocked for ${duration(data.blocked.seconds)}${data.blocked.at ? `, at ${data.blocked.at}` : ""}` : "runs"]]};
  }
  if (kind === "nursery") {
    return {title: "nursery", pairs: [["tasks", String(data.size)], ["scope", data.scope ? scopeText(data.scope, passed) : "no deadline, no shield"]]};
  }
  return {title: "", pairs: []};
}

export const view = {
  name: "tree",
  title: "Tree",
  topics: ["tree"],
  mount: (root, context) => new TreeView(root, context),
};
