// Commands: POST /ctl/NAME with JSON. The cookie and Origin, which the guard asks for, come from the browser.

/** The JSON of an answer; throws an Error, with the status and a message that says why, unless the answer is a success. */
async function answerOf(response) {
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw Object.assign(new Error(answer.detail ?? `The instance has answered ${response.status}.`), {status: response.status});
  return answer;
}

/** Send a command. Returns its answer; throws an Error whose message says why it was refused. */
export async function command(name, given = {}) {
  return answerOf(await fetch(`/ctl/${name}`, {method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(given)}));
}

/** Get JSON from a path of the admin side, such as /slow/ID. Throws as command(). */
export async function get(path) {
  return answerOf(await fetch(path, {headers: {accept: "application/json"}}));
}
