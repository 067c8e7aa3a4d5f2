// Workers, or the one process: event loop, memory, requests; and the commands for them.

import {command} from "../commands.js";
import {h, rows, text} from "../dom.js";
import {bytes, count, duration} from "../format.js";

const COLUMNS = ["process", "state", "pid", "up", "loop lag", "last message", "memory", "tasks", "requests", "in flight", "streams", "connections", "log queue", "restarts", ""];

class WorkersView {
  #summary = h("p", {class: "summary"});
  #body = h("tbody", {});
  #said = h("p", {class: "said", role: "status"});
  #whole = h("div", {class: "bar"});

  #commands;

  constructor(root, context) {
    this.#commands = context.commands;
    root.append(this.#summary, this.#whole,
      h("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": "Workers"},
        h("table", {}, h("thead", {}, h("tr", {}, COLUMNS.map((column) => h("th", {scope: "col"}, column)))), this.#body)),
      this.#said);
  }

  update(_topic, data) {
    const head = data.master ?? data.process ?? {};
    text(this.#summary, `${head.state}: ${head.summary}` + (head.generation ? `, generation ${head.generation}` : "") + `, up ${duration(head.uptime_s)}` + (head.log_level ? `, log level ${head.log_level}` : ""));
    if (!this.#hasCommands) this.#addCommands(Boolean(data.master));
    rows(this.#body, data.slots ? data.slots.flatMap(ofSlot) : [ofProcess(data)], (each) => each.key,
      (each) => this.#make(each), (element, each) => {
        each.cells.forEach((cell, index) => text(element.children[index], cell));
        element.dataset.state = each.state;
      });
  }

  #hasCommands = false;

  #addCommands(master) {
    this.#hasCommands = true;
    if (master) this.#whole.append(this.#button("Reload", "reload", {}, "Replace all workers, with configuration, certificates and code read again?"));
    if (this.#commands.has("reopen")) this.#whole.append(this.#button("Reopen logs", "reopen", {}, ""));
    if (!this.#commands.has("log-level")) return;
    const level = h("select", {"aria-label": "Log level"}, ["debug", "info", "warning", "error"].map((each) => h("option", {selected: each === "info"}, each)));
    this.#whole.append(h("span", {class: "group"}, level, h("button", {type: "button", onclick: () => this.#run("log-level", {level: level.value}, "")}, "Set log level")));
  }

  #make(each) {
    return h("tr", {}, each.cells.map((_, index) => h(index ? "td" : "th", {scope: index ? null : "row", class: index > 2 ? "number" : null})),
      h("td", {class: "actions"}, each.slot ? [
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
  const own = [count(slot.restarts)];
  if (!slot.workers.length) return [{key: `${slot.slot}`, slot: 0, state: slot.state, cells: [`slot ${slot.slot}`, slot.state, ...Array(11).fill(""), ...own]}];
  return slot.workers.map((worker) => {
    const beat = worker.beat ?? {};
    const lag = worker.state === "silent" ? worker.beat_age : (beat.lag_ms ?? 0) / 1000;
    return {
      key: `${slot.slot}/${worker.pid}`,
      slot: worker.state === "draining" ? 0 : slot.slot,
      state: worker.state,
      cells: [`worker ${slot.slot}`, worker.blocked ? `${worker.state} at ${worker.blocked.at}` : worker.state, worker.pid, duration(worker.uptime), duration(lag), duration(worker.beat_age), bytes(beat.rss),
        count(beat.tasks), count(beat.requests), count(beat.inflight), count(beat.streams ?? 0), count(beat.connections), logQueue(worker.stats?.queues), ...own],
    };
  });
}

function ofProcess(data) {
  const {process, server = {}} = data;
  return {key: "process", slot: 0, state: process.state, cells: ["process", process.state, process.pid, duration(process.uptime_s), duration(process.lag_s), "", bytes(process.rss),
    count(process.tasks), count(server.requests_total), count(server.requests_in_flight), count(server.streams), count(server.connections), logQueue(data.queues), ""]};
}

export const view = {
  name: "workers",
  title: "Workers",
  topics: ["workers"],
  mount: (root, context) => new WorkersView(root, context),
};
