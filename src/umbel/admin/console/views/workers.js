// Workers, or the one process: event loop, memory, requests; and the commands for them.

import {command} from "../commands.js";
import {h, rows, text} from "../dom.js";
import {bytes, count, duration} from "../format.js";

// The columns: a name, and whether only the workers of a master have it.
const COLUMNS = [["state"], ["pid"], ["up"], ["loop lag"], ["last heartbeat", true], ["memory"], ["tasks"], ["requests"], ["in flight"], ["streams"], ["connections"], ["log queue"], ["restarts", true]];
const TEXTS = new Set(["state", "restarts"]);

class WorkersView {
  #summary = h("p", {class: "summary"});
  #head = h("tr", {});
  #body = h("tbody", {});
  #said = h("p", {class: "said", role: "status"});
  #whole = h("div", {class: "bar"});
  #columns = [];
  #commands;

  constructor(root, context) {
    this.#commands = context.commands;
    root.append(this.#summary, this.#whole,
      h("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": "Workers"},
        h("table", {class: "figures workers"}, h("caption", {class: "unseen"}, "Workers"), h("thead", {}, this.#head), this.#body)),
      this.#said);
  }

  update(_topic, data) {
    const head = data.master ?? data.process ?? {};
    text(this.#summary, `${head.state}: ${head.summary}` + (head.generation ? `, generation ${head.generation}` : "") + `, up ${duration(head.uptime_s)}` + (head.log_level ? `, log level ${head.log_level}` : ""));
    if (!this.#columns.length) this.#begin(Boolean(data.master));
    rows(this.#body, data.slots ? data.slots.flatMap(ofSlot) : [ofProcess(data)], (each) => each.key,
      (each) => this.#make(each), (element, each) => {
        text(element.firstElementChild, each.name);
        this.#columns.forEach((column, index) => text(element.children[index + 1].firstElementChild, each.cells[column] ?? ""));
        element.dataset.state = each.state;
      });
  }

  #begin(master) {
    this.#columns = COLUMNS.filter(([, ofMaster]) => master || !ofMaster).map(([name]) => name);
    this.#head.append(h("th", {scope: "col"}, master ? "worker" : "process"), ...this.#columns.map((column) => h("th", {scope: "col", class: TEXTS.has(column) ? null : "number"}, column)));
    if (master) this.#head.append(h("th", {scope: "col"}, h("span", {class: "unseen"}, "commands")));
    this.#addCommands(master);
  }

  #addCommands(master) {
    if (master) this.#whole.append(this.#button("Reload", "reload", {}, "Replace all workers, with configuration, certificates and code read again?"));
    if (this.#commands.has("reopen")) this.#whole.append(this.#button("Reopen logs", "reopen", {}, ""));
    if (!this.#commands.has("log-level")) return;
    const level = h("select", {"aria-label": "Log level"}, ["debug", "info", "warning", "error"].map((each) => h("option", {selected: each === "info"}, each)));
    this.#whole.append(h("span", {class: "group"}, level, h("button", {type: "button", onclick: () => this.#run("log-level", {level: level.value}, "")}, "Set log level")));
  }

  #make(each) {
    return h("tr", {}, h("th", {scope: "row"}),
      this.#columns.map((column) => h("td", {"data-label": column, class: TEXTS.has(column) ? null : "number"}, h("span", {class: "value"}))),
      each.slot !== undefined && h("td", {class: "actions"}, each.slot ? [
        this.#button("Drain", "drain", {slot: each.slot}, `Replace the worker of slot ${each.slot}? It drains when its successor is ready.`),
        this.#button("Restart", "kill", {slot: each.slot}, `Kill the worker of slot ${each.slot}? Its requests fail; the master starts another one.`),
      ] : null));
  }

  #button(title, name, given, question) {
    return h("button", {type: "button", onclick: () => this.#run(name, given, question)}, title);
  }

  async #run(name, given, question) {
    if (question && !confirm(question)) return;
    text(this.#said, `${name} …`);
    try {
      await command(name, given);
      text(this.#said, `${name}: done`);
    } catch (error) {
      text(this.#said, `${name}: ${error.message}`);
    }
  }
}

function logQueue(queues) {
  const waiting = Object.values(queues ?? {});
  return waiting.length ? count(waiting.reduce((sum, each) => sum + each, 0)) : "";
}

function ofSlot(slot) {
  const own = {restarts: slot.last_exit ? `${count(slot.restarts)}, last: ${slot.last_exit}` : count(slot.restarts)};
  if (!slot.workers.length) return [{key: `${slot.slot}`, name: `slot ${slot.slot}`, slot: 0, state: slot.state, cells: {state: slot.state, ...own}}];
  return slot.workers.map((worker) => {
    const beat = worker.beat ?? {};
    const lag = worker.state === "silent" ? worker.beat_age : (beat.lag_ms ?? 0) / 1000;
    return {
      key: `${slot.slot}/${worker.pid}`,
      name: `worker ${slot.slot}`,
      slot: worker.state === "draining" ? 0 : slot.slot,
      state: worker.state,
      cells: {
        state: worker.blocked ? `${worker.state} at ${worker.blocked.at}` : worker.state, pid: worker.pid, up: duration(worker.uptime),
        "loop lag": duration(lag), "last heartbeat": duration(worker.beat_age), memory: bytes(beat.rss), tasks: count(beat.tasks),
        requests: count(beat.requests), "in flight": count(beat.inflight), streams: count(beat.streams ?? 0),
        connections: count(beat.connections), "log queue": logQueue(worker.stats?.queues), ...own,
      },
    };
  });
}

function ofProcess(data) {
  const {process, server = {}} = data;
  const state = process.blocked ? `${process.state} at ${process.blocked.at}` : process.state;
  return {key: "process", name: "main", state: process.state, cells: {
    state, pid: process.pid, up: duration(process.uptime_s), "loop lag": duration(process.lag_s), memory: bytes(process.rss),
    tasks: count(process.tasks), requests: count(server.requests_total), "in flight": count(server.requests_in_flight),
    streams: count(server.streams), connections: count(server.connections), "log queue": logQueue(data.queues),
  }};
}

export const view = {
  name: "workers",
  title: "Workers",
  topics: ["workers"],
  mount: (root, context) => new WorkersView(root, context),
};
