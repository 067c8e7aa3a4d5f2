// Live data: one EventSource for the topics of the view that is shown.

import {refusal} from "./commands.js";

/** @typedef {"connecting" | "live" | "lost"} State */

export class Live {
  #source = null;
  #onState;
  #topics = "";

  /** @param {(state: State, detail: string) => void} onState */
  constructor(onState) {
    this.#onState = onState;
    document.addEventListener("visibilitychange", () => {
      // A page that nobody sees costs the gateway nothing.
      if (document.hidden) this.#source?.close();
      else if (this.#again) this.#again();
    });
  }

  #again = null;

  /**
   * Subscribe to topics, instead of those before.
   *
   * @param {string[]} topics
   * @param {(topic: string, data: any) => void} onData
   */
  subscribe(topics, onData) {
    this.close();
    if (!topics.length) return;
    this.#topics = topics.map((topic) => `topic=${encodeURIComponent(topic)}`).join("&");
    this.#again = () => this.#open(topics, onData);
    if (!document.hidden) this.#again();
  }

  #open(topics, onData) {
    this.#source?.close();
    this.#onState("connecting", "");
    const path = `/events?${this.#topics}`;
    const source = new EventSource(path);
    this.#source = source;
    for (const topic of topics) {
      source.addEventListener(topic, (event) => {
        this.#onState("live", "");
        onData(topic, JSON.parse(event.data));
      });
    }
    source.addEventListener("failed", (event) => this.#onState("lost", JSON.parse(event.data).detail));
    source.addEventListener("error", () => {
      this.#onState("lost", "No connection to the instance; trying again.");
      // EventSource neither tries again after an answer that is no stream, such as a 401 after a restart, nor says why.
      if (source.readyState === EventSource.CLOSED) {
        refusal(path).then(
          (why) => { if (why && this.#source === source) this.#onState("lost", why); },
          () => {}, // There is no connection, as was said.
        );
        setTimeout(() => { if (this.#source === source && !document.hidden) this.#again?.(); }, 2000);
      }
    });
  }

  close() {
    this.#source?.close();
    this.#source = this.#again = null;
  }
}
